"""Makes a view of the functions for one address of the HTTP API: methods, CSRF token, errors."""

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
    """A view for one address. `methods` are its functions, by the name of their HTTP method.

    `page` is a view that browsers get in place of GET. Refused, and errors of a database that is
    away or busy, become problem details (RFC 9457).
    """
    if "GET" in methods:
        methods["HEAD"] = methods["GET"]

    @never_cache
    @transaction.non_atomic_requests  # RabbitMQ must hear of a job only after its commit
    @csrf_exempt  # because `_guarded` checks the token
    def view(request: HttpRequest, **parts: Any) -> HttpResponseBase:
        if page is not None and request.method in SAFE and _wants_page(request):
            answer = page(request, **parts)
        else:
            answer = _answer(request, methods, parts)
        if page is not None:
            patch_vary_headers(answer, ["Accept"])
        return answer

    return view


def _answer(
    request: HttpRequest, methods: dict[str, View], parts: dict[str, Any]
) -> HttpResponseBase:
    try:
        request.get_host()
        if (act := methods.get(request.method or "")) is None:
            known = ", ".join(methods)
            refused = problem("bad_method", f"The method is {request.method}; wanted {known}.")
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
        drop()  # else the next request might use the same read-only server again
        return problem("unavailable", DATABASE_AWAY)


def _guarded(request: HttpRequest, act: View, parts: dict[str, Any]) -> HttpResponseBase:
    """Call the function of a method, after a check of the body's type and of the CSRF token."""
    if request.method in SAFE:
        return act(request, **parts)
    found = request.content_type  # checked first, because the check of the token reads forms
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
            " X-CSRFToken. A program needs no token if it sends `Authorization: Bearer` and no"
            " session cookie.",
        )
    return answer


def bears_token(request: HttpRequest) -> bool:
    """Whether the request has a Bearer token and no session, so that it needs no CSRF token.

    A browser adds cookies, and the credentials of Basic and the like, to requests that a page of
    another site makes. It never adds a Bearer token by itself.
    """
    scheme = request.headers.get("Authorization", "").partition(" ")[0].lower()
    return scheme == "bearer" and settings.SESSION_COOKIE_NAME not in request.COOKIES


def _wants_page(request: HttpRequest) -> bool:
    return request.get_preferred_type(["application/json", "text/html"]) == "text/html"
