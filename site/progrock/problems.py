"""Makes HTTP's error answers: problem details (RFC 9457) with the codes of docs/wire.md."""

from http import HTTPStatus

import orjson
from django.http import HttpResponse

#: The status of each code that is not a 400.
STATUS = {
    "login_required": HTTPStatus.UNAUTHORIZED,
    "csrf": HTTPStatus.FORBIDDEN,
    "forbidden": HTTPStatus.FORBIDDEN,
    "no_audience": HTTPStatus.FORBIDDEN,
    "no_result": HTTPStatus.NOT_FOUND,
    "unknown_job": HTTPStatus.NOT_FOUND,
    "bad_method": HTTPStatus.METHOD_NOT_ALLOWED,
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "bad_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "bad_params": HTTPStatus.UNPROCESSABLE_ENTITY,
    "unknown_backend": HTTPStatus.UNPROCESSABLE_ENTITY,
    "too_many_jobs": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_sockets": HTTPStatus.TOO_MANY_REQUESTS,
    "too_many_starts": HTTPStatus.TOO_MANY_REQUESTS,
    "misconfigured": HTTPStatus.INTERNAL_SERVER_ERROR,
    "needs_asgi": HTTPStatus.NOT_IMPLEMENTED,
    "busy": HTTPStatus.SERVICE_UNAVAILABLE,
    "unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    "outcome_unknown": HTTPStatus.GATEWAY_TIMEOUT,
}
#: Codes whose status is 400. A code that is in neither table is one of the project's own.
BAD_REQUEST = frozenset(
    {"bad_body", "bad_host", "bad_json", "bad_query", "bad_request", "unknown_action"}
)
#: After so many seconds a client may try again, if it was refused only for the moment.
RETRY_AFTER = 5


def status_of(code: str) -> HTTPStatus:
    """The status of a code; 403 for one of the project's own."""
    if code in BAD_REQUEST:
        return HTTPStatus.BAD_REQUEST
    return STATUS.get(code, HTTPStatus.FORBIDDEN)


def problem(code: str, detail: str) -> HttpResponse:
    """The answer to a request that had no effect; `detail` says why, in a sentence for people."""
    status = status_of(code)
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
    if status == HTTPStatus.UNAUTHORIZED:
        answer["WWW-Authenticate"] = "Bearer"
    return answer
