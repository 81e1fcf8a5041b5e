"""Errors over HTTP: problem details (RFC 9457) with the codes of the wire."""

from http import HTTPStatus

import orjson
from django.http import HttpResponse

#: The status of each code that is not a 400.
STATUS = {
    "login_required": HTTPStatus.UNAUTHORIZED,
    "forbidden": HTTPStatus.FORBIDDEN,
    "no_audience": HTTPStatus.FORBIDDEN,
    "too_many_sockets": HTTPStatus.TOO_MANY_REQUESTS,
    "misconfigured": HTTPStatus.INTERNAL_SERVER_ERROR,
    "needs_asgi": HTTPStatus.NOT_IMPLEMENTED,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
}
#: Seconds after which a client may try again what was refused only for now.
RETRY_AFTER = 5


def problem(code: str, detail: str) -> HttpResponse:
    """The answer that says why a request had no effect; `detail` is a sentence for people."""
    status = STATUS.get(code, HTTPStatus.BAD_REQUEST)
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
    }
    answer = HttpResponse(orjson.dumps(body), "application/problem+json", status=status)
    answer["Cache-Control"] = "no-store"
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        answer["Retry-After"] = str(RETRY_AFTER)
    return answer
