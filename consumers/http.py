"""HTTP before Django: streams of events and waiting requests. All else goes on to Django.

What takes long is answered here, because a view would keep a thread and a connection to the
database meanwhile.
"""

from collections.abc import Callable, Coroutine
from io import BytesIO
from typing import Any

from channels.sessions import SessionMiddlewareStack
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.urls import Resolver404, resolve
from django.utils import translation

from progrock.consumers.answers import Receive, Scope, Send, send_response
from progrock.consumers.events import Stream
from progrock.consumers.origins import same_site
from progrock.consumers.waits import Wait, conditional, preferred
from progrock.errors import WRONG_HOST
from progrock.problems import problem


def http_application(django_application: Any) -> Any:
    """Django's ASGI application, with ProgRock before it: "http" in your `asgi.py`.

    The addresses are those of `progrock.urls`, wherever the project includes them.
    """

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        route, job_id = _route(scope)
        if route is None:
            await django_application(scope, receive, send)
        elif route != "events":
            wait = Wait(django_application, scope, receive, send, job_id=job_id)
            await _with_session(wait.run, scope)
        elif (refused := _refused(scope)) is None:
            await _with_session(Stream(receive, send).run, scope)
        else:
            await send_response(send, refused)

    return application


def _route(scope: Scope) -> tuple[str | None, str | None]:
    """The name of a route that is answered here, and the job's id in it; None for all others."""
    headers = scope["headers"]
    waits = preferred(headers) > 0
    if scope["method"] != "GET" or not (waits or scope["path"].endswith("events")):
        return None, None
    try:
        path = ASGIRequest(scope, BytesIO()).path_info
        # The project's routes may have translations.
        language = translation.get_language_from_path(path) or translation.get_language()
        with translation.override(language):
            match = resolve(path)
    except (Resolver404, UnicodeDecodeError):
        return None, None
    if match.app_names[-1:] != ["progrock"]:
        return None, None
    ours = match.url_name == "events" or (
        waits and (match.url_name == "job" or (match.url_name == "jobs" and conditional(headers)))
    )
    job_id = match.kwargs.get("job_id")
    return (match.url_name, job_id and str(job_id)) if ours else (None, None)


async def _with_session(run: Callable[[Scope], Coroutine[Any, Any, None]], scope: Scope) -> None:
    """Call `run` with a scope that has the session.

    `run` sends past the session middleware, which would save the session once more.
    """

    async def inner(known: Scope, *_: Any) -> None:
        await run(known)

    await SessionMiddlewareStack(inner)(scope, None, None)


def _refused(scope: Scope) -> HttpResponse | None:
    """The answer to a wrong host, or to a page of another site."""
    request = ASGIRequest(scope, BytesIO())
    try:
        request.get_host()
    except DisallowedHost:
        return problem("bad_host", WRONG_HOST)
    if not same_site(request.headers.get("origin")):
        return problem("forbidden", "A page of another site may not ask.")
    return None
