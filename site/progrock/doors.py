"""What a visitor may do, whatever door they come through: start, cancel, run again, look.

The WebSocket and the HTTP API call these functions and nothing else. All of them query the
database. A backend's `browser` and PROGROCK_AUTHORIZE are held here; the project's own code
(`progrock.start`) does not come this way.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from django.utils.module_loading import import_string

from progrock import api, clock, conf, journal, ledger
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
    like: str | None = None,
) -> tuple[Row, bool]:
    """Start a job for the first of the audiences; without a backend, on the first that they may.

    `scope` is what PROGROCK_AUDIENCES gets. Returns the job, and whether it is new: the same
    `request` gives the job that it started before, and then PROGROCK_AUTHORIZE is not asked.
    `like` is the id of the job that is started again. Raises Refused.
    """
    name, audience = _startable(backend), audiences[0]
    if path := conf.authorize_path():
        params = api.checked(name, params, request)
        if api.known(audience, request) is None:
            params = _authorized(path, scope, name, params)
    with all_or_nothing():
        job, created = api.create(audience, name, params, request, like=like)
        job_id = str(job.pk)
        return ledger.load([job_id], results=True)[job_id], created


def again(
    scope: Mapping[str, Any], audiences: Sequence[str], job: Any, request: Any
) -> tuple[Row, bool]:
    """Start a job like this one: the same backend and params, for the first of the audiences.

    It is a start like any other, and is refused like any other. Returns as `start` does. Raises
    Refused.
    """
    row = look(audiences, job)
    params = orjson.loads(row.params)
    new, created = start(scope, audiences, row.backend, params, request, like=row.id)
    if created:
        journal.again(row.id, new.id, new.backend)
    return new, created


def cancel(audiences: Sequence[str], job: Any) -> tuple[Row, bool]:
    """Ask for a job's cancellation on behalf of these audiences.

    Returns the job, and whether this request changed it. Raises Refused.
    """
    row = look(audiences, job)
    asked = ledger.request_cancel(row.id, clock.measured())
    return asked or row, asked is not None


def look(audiences: Sequence[str], job: Any, *, whole: bool = False) -> Row:
    """The job of this id, a string or a UUID; with `whole`, its result however large it is.

    Raises Refused where there is none, or where none of the audiences may see it: nobody learns
    which of the two.
    """
    try:
        job_id = str(job if isinstance(job, uuid.UUID) else uuid.UUID(job))
        row = ledger.load([job_id], results=True, large=whole).get(job_id)
    except (ValueError, TypeError, AttributeError):
        row = None
    if row is None or row.audience not in audiences:
        raise Refused("unknown_job", "There is no such job, or it is not yours.")
    return row


def _startable(backend: Any) -> Any:
    """The backend that a visitor asks for, by default the first one that they may use.

    Raises Refused for one that only code may start.
    """
    backends = conf.backends()
    if not backend:
        backend = next((name for name, options in backends.items() if options.browser), None)
        if backend is None:
            raise Refused("forbidden", "Browsers may not start jobs here.")
    options = backends.get(backend) if isinstance(backend, str) else None
    if options is not None and not options.browser:
        raise Refused("forbidden", f"Browsers may not start jobs of the backend {backend}.")
    return backend


def _authorized(
    path: str, scope: Mapping[str, Any], backend: str, params: dict[str, Any]
) -> dict[str, Any]:
    """The params that the project's function lets through. Raises Refused."""
    with own_code("PROGROCK_AUTHORIZE", CANNOT_TELL, passing=(Refused,)):
        try:
            found = import_string(path)(scope, backend, params)
        except Refused as refused:  # perhaps with a translation that is not a string yet
            raise Refused(str(refused.code), str(refused.message)) from refused
        schema = conf.backends()[backend].params_schema
        return checked_authorization(found, path, schema)
