"""Makes the JSON that browsers see: a job's frame, the snapshot, errors, status (docs/wire.md)."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from django.urls import NoReverseMatch, reverse

from progrock.backends import Options
from progrock.ledger import LARGE_RESULT, Row
from progrock.models import State

#: A committed change as it is pushed to web processes: the audience, the job's id and version,
#: whether it has ended, and the text of its frame.
Change = list[Any]

#: The states in the words of Azure's long-running operations, so that its clients can poll jobs.
STATUS = {
    State.QUEUED.value: "NotStarted",
    State.STARTING.value: "Running",
    State.RUNNING.value: "Running",
    State.SUCCEEDED.value: "Succeeded",
    State.FAILED.value: "Failed",
    State.EXPIRED.value: "Failed",
    State.CANCELLED.value: "Canceled",
}
#: Why updates are delayed, in a sentence for people.
DELAYED = {
    "rabbitmq": "Updates are delayed: RabbitMQ is away."
    " Your jobs run on, and this page catches up by itself.",
    "ledger": "Updates are delayed: the database is away. This page catches up by itself.",
    "work": "Updates are delayed: the workers have more to do than they can at the moment."
    " This page catches up by itself.",
}


def job_frame(row: Row, *, whole: bool = False) -> dict[str, Any]:
    """The frame of a job.

    A job that has ended has `complete` true and a `result` or an `error`. A result that is large or
    was not read is left out, and `result_url` is its address. With `whole` a large result is kept,
    and the frame has what none on a socket has: the params, the milestones, and the status in the
    words of Azure's clients.
    """
    frame: dict[str, Any] = {
        "type": "job",
        "job": row.id,
        "request": row.request,
        "backend": row.backend,
        "label": row.label or None,
        "version": row.version,
        "state": row.state,
        "progress": row.progress,
        "complete": not row.active,
        "message": row.message,
        "cancelling": row.cancel_requested and row.active,
        "created": _time(row.created),
        "ended": row.ended and _time(row.ended),
    }
    if row.state == State.SUCCEEDED:
        large = is_large(row.result_size) and not whole
        if large or (row.result_size is not None and row.result is None):
            frame["result_url"] = address_of(row.id)
        frame["result"] = None if large else row.result
    elif not row.active:
        frame["error"] = row.error or None
    if whole:
        frame["params"] = orjson.loads(row.params)
        frame["status"] = STATUS[row.state]
        frame["milestones"] = [
            {"at": _iso(at), "what": what, "text": text} for at, what, text in row.story
        ]
    return frame


def snapshot_frame(rows: Iterable[Row], configured: Mapping[str, Options]) -> dict[str, Any]:
    """The first frame of a socket: its jobs in the order of `rows`, and the backends."""
    return {
        "type": "snapshot",
        "jobs": [job_frame(row) for row in rows],
        "backends": backends(configured),
    }


def backends(configured: Mapping[str, Options]) -> list[dict[str, Any]]:
    """The backends for a snapshot, in the order of their file.

    Only those that browsers may start have their label and the schema of their params.
    """
    return [_backend(name, options) for name, options in configured.items()]


def _backend(name: str, options: Options) -> dict[str, Any]:
    shown = options if options.browser else None
    return {
        "name": name,
        "title": options.title or name,
        "start": options.browser,
        "progress": options.has_progress,
        "cancel": options.cancels,
        "label": shown and shown.label and shown.label.written,
        "params": shown and shown.params_schema,
    }


def error_frame(code: str, message: str, request: str | None = None) -> dict[str, Any]:
    """The frame that says why a message of the browser's had no effect."""
    return {"type": "error", "code": code, "message": message, "request": request}


def status_frame(trouble: str | None) -> dict[str, Any]:
    """The frame that says whether updates come at once. If not, `trouble` is a key of DELAYED."""
    return {
        "type": "status",
        "live": trouble is None,
        "code": trouble,
        "message": DELAYED[trouble] if trouble else "",
    }


def beat_frame() -> dict[str, Any]:
    """An empty frame, by which a script can tell that its connection lives."""
    return {"type": "beat"}


def is_large(size: int | None) -> bool:
    """Whether a result of so many bytes stays out of frames; None stands for no result."""
    return size is not None and size > LARGE_RESULT


def change_of(row: Row) -> Change:
    """The change to push, which shows a job as it is now."""
    return [row.audience, row.id, row.version, not row.active, encode(job_frame(row))]


def encode(frame: Mapping[str, Any]) -> str:
    """The text of a frame."""
    return orjson.dumps(frame).decode()


def _time(text: str) -> str:
    """A text of a time in UTC as ISO 8601, to the millisecond."""
    return _iso(datetime.fromisoformat(text))


def _iso(time: datetime) -> str:
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def address_of(job_id: str) -> str | None:
    """The address of the whole job; None in a project that does not include `progrock.urls`."""
    try:
        return reverse("progrock:job", args=[job_id])
    except NoReverseMatch:
        return None
