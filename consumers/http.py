"""HTTP before Django: `http_application` answers streams of events and hands on all else."""

from io import BytesIO
from typing import Any

from channels.sessions import SessionMiddlewareStack
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.urls import Resolver404, ResolverMatch, resolve
from django.utils import translation

from progrock.consumers.events import answer, events
from progrock.consumers.origins import same_site
from progrock.errors import Refused
from progrock.problems import problem


def http_application(django_application: Any) -> Any:
    """Django's ASGI application with ProgRock's streams before it: "http" in your `asgi.py`.

    The addresses are those of `progrock.urls`, wherever the project includes them.
    """
    streams = SessionMiddlewareStack(events)

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            match = _match(scope)
        except Refused as refused:
            await answer(send, problem(refused.code, refused.message))
            return
        if match is None:
            await django_application(scope, receive, send)
        else:
            await streams(scope, receive, send)

    return application


def _match(scope: dict[str, Any]) -> ResolverMatch | None:
    """The route of a request that is answered here; None for one that Django answers.

    Raises Refused for a host or a page that may not ask.
    """
    if scope["method"] != "GET" or not scope["path"].endswith("events"):
        return None
    try:
        request = ASGIRequest(scope, BytesIO())
        with translation.override(_language(request)):
            match = resolve(request.path_info)
    except (Resolver404, UnicodeDecodeError):
        return None
    if match.app_names[-1:] != ["progrock"] or match.url_name != "events":
        return None
    _check(request)
    return match


def _language(request: ASGIRequest) -> str | None:
    """The language in which the project's routes are to be read, where they have translations."""
    return translation.get_language_from_path(request.path_info) or translation.get_language()


def _check(request: ASGIRequest) -> None:
    """Raise Refused for a host that is not in ALLOWED_HOSTS, or for a page of another site."""
    try:
        request.get_host()
    except DisallowedHost:
        raise Refused("bad_host", "This host is not in ALLOWED_HOSTS.") from None
    if not same_site(request.headers.get("origin")):
        raise Refused("forbidden", "A page of another site may not ask.")
