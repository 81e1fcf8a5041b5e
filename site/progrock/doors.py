"""Decides what a visitor may do, over the WebSocket and over HTTP alike: start, cancel, see a job.

Both doors call these functions and nothing else. All of them query the database. A backend's
`browser` and PROGROCK_AUTHORIZE are heeded here, so they do not bind the project's own code, which
calls `progrock.start`.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.utils.module_loading import import_string

from progrock import clock, conf, creation, journal, ledger
from progrock.attempts import all_or_nothing
from progrock.errors import CANNOT_TELL, Refused
from progrock.gate import checked_authorization
from progrock.ledger import Row
from progrock.own_code import own_code


def start(
    scope: Mapping[str, Any],
    audiences: Sequence[str],
    backend: Any,
    params: Any,
    request: Any,
    *,
    original_id: str | None = None,
) -> tuple[Row, bool]:
    """Start a job for the first of the audiences.

    `scope` is an ASGI scope, for the project's function of PROGROCK_AUTHORIZE. `backend` is by
    default the first one that browsers may start. `original_id` is the id of the job that is run
    again.
    Returns the job, and whether it is new. A `request` that has started a job before gives that
    job, and PROGROCK_AUTHORIZE is not asked. Raises Refused.
    """
    name, audience = _startable(backend), audiences[0]
    if path := conf.authorize_path():
        params = creation.checked(name, params, request)
        if creation.started_before(audience, request) is None:
            params = _authorized(path, scope, name, params)
    with all_or_nothing():
        job, created = creation.create(audience, name, params, request, original_id=original_id)
        job_id = str(job.pk)
        return ledger.load([job_id], results=True)[job_id], created


def again(
    scope: Mapping[str, Any], audiences: Sequence[str], job_id: Any, request: Any
) -> tuple[Row, bool]:
    """Start a new job with the backend and the params of this one, for the first of the audiences.

    The rules of `start` hold. Returns what `start` returns, and raises Refused.
    """
    row = see(audiences, job_id)
    params = orjson.loads(row.params)
    new, created = start(scope, audiences, row.backend, params, request, original_id=row.id)
    if created:
        journal.again(row.id, new.id, new.backend)
    return new, created


def cancel(audiences: Sequence[str], job_id: Any) -> tuple[Row, bool]:
    """Ask for the cancellation of a job that one of the audiences may see.

    Returns the job, and whether this request changed it. Raises Refused.
    """
    row = see(audiences, job_id)
    asked = ledger.request_cancel(row.id, clock.measured())
    return asked or row, asked is not None


def see(audiences: Sequence[str], job_id: Any, *, whole: bool = False) -> Row:
    """The job with this id, which is a string or a UUID.

    A large result is read only with `whole`. Raises Refused where there is no such job or none of
    the audiences may see it. The two sound alike, so that nobody learns whether a job exists.
    """
    try:
        job_id = str(job_id if isinstance(job_id, uuid.UUID) else uuid.UUID(job_id))
        row = ledger.load([job_id], results=True, large=whole).get(job_id)
    except (ValueError, TypeError, AttributeError):
        row = None
    if row is None or row.audience not in audiences:
        raise Refused("unknown_job", "There is no such job, or it is not yours.")
    return row


def _startable(backend: Any) -> Any:
    """The backend that a visitor asks for, by default the first one that browsers may start.

    Raises Refused for a backend that only the project's own code may start. An unknown one is
    returned as it is, because `creation.checked` refuses it.
    """
    backends = conf.backends()
    if not backend:
        backend = next((name for name, options in backends.items() if options.browser), None)
        if backend is None:
            raise Refused(
                "forbidden", "Browsers may not start jobs here: no backend has `browser = true`."
            )
    options = backends.get(backend) if isinstance(backend, str) else None
    if options is not None and not options.browser:
        raise Refused(
            "forbidden",
            f"Browsers may not start jobs of the backend {backend}:"
            " its table has no `browser = true`.",
        )
    return backend


def _authorized(
    path: str, scope: Mapping[str, Any], backend: str, params: dict[str, Any]
) -> dict[str, Any]:
    """The params that the project's function of PROGROCK_AUTHORIZE returns. Raises Refused."""
    with own_code("PROGROCK_AUTHORIZE", CANNOT_TELL, passing=(Refused,)):
        try:
            found = import_string(path)(scope, backend, params)
        except Refused as refused:  # its texts may be lazy translations, which are no strings yet
            raise Refused(str(refused.code), str(refused.message)) from refused
        schema = conf.backends()[backend].params_schema
        return checked_authorization(found, path, schema)
