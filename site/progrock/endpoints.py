"""An address of the HTTP API: its methods, Django's CSRF token, and errors as problems."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.db import Error, transaction
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import patch_vary_headers
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from progrock.attempts import NoAnswer
from progrock.database_errors import Trouble, drop, trouble
from progrock.errors import DATABASE_AWAY, NO_ANSWER, WRONG_HOST, Refused
from progrock.problems import problem

View = Callable[..., HttpResponseBase]
#: The methods that change nothing.
SAFE = ("GET", "HEAD")


def endpoint(*, page: View | None = None, **methods: View) -> View:
    """A view of one address: a function for each method, and perhaps a page for browsers.

    What the functions raise on purpose becomes a problem.
    """
    if "GET" in methods:
        methods["HEAD"] = methods["GET"]

    @never_cache
    @transaction.non_atomic_requests  # what is sent to RabbitMQ follows the commit
    @csrf_exempt  # `_guarded` asks for the token
    def view(request: HttpRequest, **parts: Any) -> HttpResponseBase:
        if page is not None and request.method in SAFE and _wants_page(request):
            answer = page(request, **parts)
        else:
            answer = _told(request, methods, parts)
        if page is not None:
            patch_vary_headers(answer, ["Accept"])
        return answer

    return view


def _told(
    request: HttpRequest, methods: dict[str, View], parts: dict[str, Any]
) -> HttpResponseBase:
    try:
        request.get_host()
        if (act := methods.get(request.method or "")) is None:
            known = ", ".join(methods)
            refused = problem("bad_method", f"{request.method} means nothing here; wanted {known}.")
            refused["Allow"] = known
            return refused
        return _guarded(request, act, parts)
    except Refused as refused:
        return problem(refused.code, refused.message)
    except DisallowedHost:
        return problem("bad_host", WRONG_HOST)
    except NoAnswer:
        return problem("outcome_unknown", NO_ANSWER)
    except Error as error:
        if trouble(error) is Trouble.MISTAKE:
            raise
        drop()  # a read-only server would keep the connection, and the next request too
        return problem("unavailable", DATABASE_AWAY)


def _guarded(request: HttpRequest, act: View, parts: dict[str, Any]) -> HttpResponseBase:
    """Call the view of a method; Django's CSRF token is asked for first, where one is needed."""
    if request.method in SAFE:
        return act(request, **parts)
    found = request.content_type  # now, because the check of the token reads forms
    if found not in ("", "application/json") and request.META.get("CONTENT_LENGTH") != "0":
        raise Refused("bad_type", f"The body is {found}; wanted application/json.")
    if bears_token(request):
        return act(request, **parts)
    answers: list[HttpResponseBase] = []

    def passed(request: HttpRequest) -> HttpResponseBase:
        answers.append(act(request, **parts))
        return answers[0]

    answer = csrf_protect(passed)(request)
    if not answers:
        raise Refused(
            "csrf",
            "Django's CSRF token is missing or wrong: send the value of its cookie in the header"
            " X-CSRFToken. A program that sends `Authorization: Bearer` and no session needs none.",
        )
    return answer


def bears_token(request: HttpRequest) -> bool:
    """Whether only a token can say who this is, so that no page of another site can have sent it.

    A browser adds cookies, and the credentials of Basic and the like, to requests that a page of
    another site makes. It never adds a Bearer token by itself.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    return scheme == "bearer" and settings.SESSION_COOKIE_NAME not in request.COOKIES


def _wants_page(request: HttpRequest) -> bool:
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"
