"""The HTTP API: list jobs, start one, see it, cancel it, run it again (docs/http.md).

The views are synchronous, so they work under WSGI and ASGI alike. Under ASGI each request has a
thread of its own, and neither the event loop nor the sockets' database thread waits for it. Other
threads send to RabbitMQ.
"""

import hashlib
import math
import re
import reprlib
import uuid
from typing import Any

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse
from django.utils.cache import get_conditional_response
from django.views.decorators.csrf import ensure_csrf_cookie

from progrock import api, conf, doors, listing, views, wire
from progrock.attempts import attempt
from progrock.audiences import audiences_of, not_admitted, scope_of
from progrock.endpoints import bears_token, endpoint
from progrock.errors import CANNOT_TELL_WHO, Refused
from progrock.ledger import Row
from progrock.listing import Cursor, Query
from progrock.models import STATES_OF, State
from progrock.own_code import own_code
from progrock.sessions import make_visitor
from progrock.storable import read_strictly

#: The longest body that is read, in bytes.
MAX_BODY = 65_536
#: The most jobs on one page of a list.
MOST_JOBS = 200
#: The longest text that is searched for, in characters.
MAX_TEXT = 200
#: The least and the most seconds of `Retry-After`; between them it is the backend's interval.
ASK_AGAIN = (1, 30)


def _visitor(request: HttpRequest, *, new: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The scope and the audiences of whoever sent this request.

    With `new`, a visitor without a login who comes for the first time gets an id in the session.
    Otherwise such a visitor has no audience yet, and sees no job. Raises Refused for everybody else
    who has no audience.
    """
    scope, token = scope_of(request), bears_token(request)
    with own_code("PROGROCK_AUDIENCES", CANNOT_TELL_WHO):
        audiences = audiences_of(scope)
        anonymous = not token and hasattr(request, "session") and conf.anonymous()
        if not audiences and new and anonymous and make_visitor(request.session):
            audiences = audiences_of(scope)
    if not audiences and (new or not anonymous):
        raise not_admitted(scope["user"])
    return scope, audiences


# The views


def _list(request: HttpRequest) -> HttpResponseBase:
    _, audiences = _visitor(request, new=True)
    query = _query(request)
    found = attempt(lambda: listing.page(audiences, query))
    jobs = [wire.job_frame(row) for row in found.rows]
    after = found.after and _next(request, found.after)
    return _for_programs(request, {"jobs": jobs, "next": after})


def _backends(request: HttpRequest) -> HttpResponseBase:
    _visitor(request, new=True)
    return _for_programs(request, {"backends": wire.backends(conf.backends())})


def _start(request: HttpRequest) -> HttpResponseBase:
    scope, audiences = _visitor(request, new=True)
    asked = _body(request, "backend", "params", "request")
    row, created = attempt(lambda: doors.start(scope, audiences, *asked))
    return _started(request, row, created)


def _again(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
    scope, audiences = _visitor(request)
    [asked] = _body(request, "request")
    row, created = attempt(lambda: doors.again(scope, audiences, job_id, asked))
    return _started(request, row, created)


def _see(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
    _, audiences = _visitor(request)
    row = attempt(lambda: doors.see(audiences, job_id))
    if (unchanged := _not_modified(request, row)) is not None:
        return unchanged
    row = attempt(lambda: doors.see(audiences, job_id, whole=True))
    answer = _json(wire.job_frame(row, whole=True))
    answer["ETag"] = _etag(row)
    return _with_retry_after(answer, row)


def _cancel(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
    _, audiences = _visitor(request)
    row, asked = attempt(lambda: doors.cancel(audiences, job_id))
    if asked:
        api.send_soon(row)
    status = 202 if row.active or asked else 200
    return _with_retry_after(_json(wire.job_frame(row), status=status), row)


def _result(request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
    _, audiences = _visitor(request)
    row = attempt(lambda: doors.see(audiences, job_id))
    if row.result_size is None:
        raise Refused("no_result", f"The job is {row.state} and has no result.")
    if (unchanged := _not_modified(request, row)) is not None:
        return unchanged
    if wire.is_large(row.result_size):
        row = attempt(lambda: doors.see(audiences, job_id, whole=True))
    answer = _json(row.result)
    answer["ETag"] = _etag(row)
    answer["X-Content-Type-Options"] = "nosniff"
    if "download" in request.GET:
        name = f"{row.backend}-{row.id[:8]}.json"
        answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


# What the views read and write


def _query(request: HttpRequest) -> Query:
    """The filters of a list. Raises Refused."""
    known = ("state", "backend", "q", "before", "limit")
    if unknown := [each for each in request.GET if each not in known]:
        raise _bad_query(
            f"The address has {unknown[0]!r}, which is no filter; wanted: {', '.join(known)}."
        )
    states: set[str] = set()
    for name in request.GET.getlist("state"):
        if name not in STATES_OF:
            raise _bad_query(f"There is no state {name!r}; wanted one of: {', '.join(STATES_OF)}.")
        states |= set(STATES_OF[name])
    texts = {name: request.GET.get(name, "") for name in ("backend", "q")}
    for name, text in texts.items():
        if len(text) > MAX_TEXT:
            raise _bad_query(f"{name} has {len(text)} characters; wanted {MAX_TEXT} at most.")
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise _bad_query(f"{name} has a control character; wanted none, not even a tab.")
    limit = request.GET.get("limit", "50")
    if not re.fullmatch("[0-9]{1,3}", limit) or not 1 <= int(limit) <= MOST_JOBS:
        raise _bad_query(f"limit is {limit!r}; wanted a whole number from 1 to {MOST_JOBS}.")
    place = request.GET.get("before")
    try:
        before = Cursor.read(place) if place is not None else None
    except ValueError:
        found = reprlib.repr(place)
        raise _bad_query(f"before is {found}; wanted that of an earlier page's `next`.") from None
    every = len(states) == len(State)
    return Query(
        states=frozenset(() if every else states),
        backend=texts["backend"],
        text=texts["q"],
        before=before,
        limit=int(limit),
    )


def _bad_query(sentence: str) -> Refused:
    return Refused("bad_query", sentence)


def _next(request: HttpRequest, after: Cursor) -> str:
    """The address of the next page, from the root of this host."""
    query = request.GET.copy()
    query["before"] = str(after)
    return f"{request.path}?{query.urlencode()}"


def _body(request: HttpRequest, *names: str) -> list[Any]:
    """The values of these names in the body, a JSON object; None for those that it lacks.

    Raises Refused.
    """
    length = request.META.get("CONTENT_LENGTH") or "0"
    text = b"" if length.isdigit() and int(length) > MAX_BODY else request.read(MAX_BODY + 1)
    if len(text) > MAX_BODY or (length.isdigit() and int(length) > MAX_BODY):
        raise Refused("too_large", f"The body is too large; wanted {MAX_BODY} bytes at most.")
    if not text:
        return [None for _ in names]
    if not request.content_type:
        raise Refused("bad_type", "The body has no Content-Type; wanted application/json.")
    try:
        body = read_strictly(text)
    except ValueError as error:
        raise Refused("bad_json", f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise Refused("bad_body", f"The body is a {type(body).__name__}; wanted a JSON object.")
    if unknown := [each for each in body if each not in names]:
        raise Refused("bad_body", f"The body has {unknown[0]!r}; wanted only: {', '.join(names)}.")
    return [body.get(each) for each in names]


def _started(request: HttpRequest, row: Row, created: bool) -> HttpResponse:
    """The answer to a start: the job, its address, and when to ask again."""
    if created:
        api.send_soon(row)
    answer = _json(wire.job_frame(row), status=202)
    match = request.resolver_match
    namespace = match.namespace if match else None
    path = reverse("progrock:job", args=[row.id], current_app=namespace)
    # Clients for Azure's long-running operations read Operation-Location, all others Location.
    answer["Location"] = answer["Operation-Location"] = request.build_absolute_uri(path)
    return _with_retry_after(answer, row)


def _with_retry_after(answer: HttpResponse, row: Row) -> HttpResponse:
    """Tell the client of an active job to ask again after the backend's interval, within bounds."""
    if row.active:
        options = conf.backends().get(row.backend)
        least, most = ASK_AGAIN
        seconds = math.ceil(options.interval) if options else most
        answer["Retry-After"] = str(min(max(seconds, least), most))
    return answer


def _not_modified(request: HttpRequest, row: Row) -> HttpResponse | None:
    """The answer (304) to a client that has this version of the job already; None for others."""
    answer = get_conditional_response(request, _etag(row))
    if answer is None:
        return None
    answer["ETag"] = _etag(row)
    return _with_retry_after(answer, row)


def _etag(row: Row) -> str:
    return f'"{row.version}"'


def _for_programs(request: HttpRequest, body: dict[str, Any]) -> HttpResponseBase:
    """An answer with an ETag made of its content, and with the CSRF cookie for whoever needs it."""
    text = orjson.dumps(body)
    etag = f'"{hashlib.blake2b(text, digest_size=12).hexdigest()}"'
    answer = HttpResponse(text, "application/json", headers={"ETag": etag})
    found = get_conditional_response(request, etag, response=answer) or answer
    has_token = settings.CSRF_USE_SESSIONS or settings.CSRF_COOKIE_NAME in request.COOKIES
    if has_token or bears_token(request):
        return found
    return ensure_csrf_cookie(lambda _: found)(request)


def _json(value: Any, *, status: int = 200) -> HttpResponse:
    return HttpResponse(orjson.dumps(value), "application/json", status=status)


jobs = endpoint(GET=_list, POST=_start)
job = endpoint(page=views.job_page, GET=_see, DELETE=_cancel)
again = endpoint(POST=_again)
result = endpoint(GET=_result)
backends = endpoint(GET=_backends)
