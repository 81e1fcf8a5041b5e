"""Decides what becomes of a job after each call to its backend. Pure: the clock and the dice are arguments."""

import re
from typing import Any, NamedTuple, Protocol

import orjson

from progrock.backends.base import Handle, Options, Status, check_handle, percent
from progrock.backends.errors import BackendError
from progrock.broker.lanes import round_delay

LONGEST_BACKOFF = 60.0
LONGEST_MESSAGE = 500
LONGEST_ERROR = 2000
FORGOTTEN_LIMIT = 3
FORGOTTEN = "the backend does not know this job at the moment, asking again"

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")


class Job(Protocol):
    """What the policy reads of a job: a row of the ledger, say."""

    state: str
    handle: str
    progress: float | None
    message: str
    attempts: int
    deadline_at: float
    cancel_requested: bool


class Decision(NamedTuple):
    """What to write into the ledger; `delay` is in seconds until the next step, None where the job has ended."""

    state: str
    handle: str
    progress: float | None
    message: str = ""
    result: object = None
    error: str = ""
    attempts: int = 0
    delay: float | None = None


def decide_start(
    job: Job, outcome: str | BackendError, *, now: float, options: Options, draw: float
) -> Decision:
    """After a start: the handle, or what went wrong. `draw` is uniform in [0, 1).

    A start that surely never arrived goes back to the queue. One that may have arrived is repeated with the same key
    (the intent stays open: a cancel waits for the handle), or is unknown where the backend takes no repeat.
    """
    if not isinstance(outcome, BackendError):
        try:
            handle = check_handle(str(outcome) if isinstance(outcome, str) else outcome)
        except BackendError as error:
            outcome = error
    if isinstance(outcome, BackendError):
        if outcome.final:
            return _ended(job, "failed", outcome.sentence)
        if outcome.sent and not options.repeat:
            return _ended(job, "failed", f"outcome unknown: {outcome.sentence}")
        state = "starting" if outcome.sent else "queued"
        return _again(job, outcome, state, now=now, options=options, draw=draw)
    wait = outcome.retry_after if isinstance(outcome, Handle) else None
    delay = max(min(options.interval, 1.0), wait or 0.0)
    running = Decision(state="running", handle=handle, progress=None, delay=_until(job, delay, now))
    return running if now < job.deadline_at else _expired(job, options)._replace(handle=handle)


def decide_poll(
    job: Job, outcome: Status | BackendError, *, now: float, options: Options, draw: float
) -> Decision:
    """After a poll: where the job stands, or why nobody knows. The backend's word counts even when it comes late."""
    if isinstance(outcome, BackendError):
        if outcome.final:
            return _ended(job, "failed", outcome.sentence)
        if outcome.forgotten:
            in_a_row = job.attempts + 1 if job.message == FORGOTTEN else 1
            if in_a_row >= FORGOTTEN_LIMIT:
                return _ended(job, "failed", "the backend no longer knows this job")
            again = _again(job, outcome, "running", now=now, options=options, draw=draw)
            return (
                again
                if again.delay is None
                else again._replace(message=FORGOTTEN, attempts=in_a_row)
            )
        return _again(job, outcome, "running", now=now, options=options, draw=draw)
    progress, message = percent(outcome.progress), _text(outcome.message, LONGEST_MESSAGE)
    if outcome.state == "running":
        if now >= job.deadline_at:
            return _expired(job, options)
        delay = _until(job, max(options.interval, outcome.retry_after or 0.0), now)
        return Decision(
            state="running", handle=job.handle, progress=progress, message=message, delay=delay
        )
    if outcome.state == "succeeded":
        try:
            result = _storable(outcome.result)
        except TypeError as error:
            return _ended(
                job,
                "failed",
                f"the job succeeded, but its result cannot be kept: {error}",
                message=message,
            )
        return Decision(
            state="succeeded", handle=job.handle, progress=100.0, message=message, result=result
        )
    error_text = _text(outcome.error, LONGEST_ERROR)
    if outcome.state not in ("failed", "cancelled"):
        raise ValueError(f"a backend's class answered with the state {outcome.state!r}")
    if outcome.state == "failed":
        error_text = error_text or "the backend says that the job failed"
    elif not job.cancel_requested:
        error_text = error_text or "cancelled at the backend"
    known = job.progress if progress is None else progress
    return _ended(job, outcome.state, error_text, message=message, progress=known)


def decide_cancel(
    job: Job, outcome: Status | BackendError | None, *, now: float, options: Options, draw: float
) -> Decision:
    """After a cancel: None is done; a Status is where a job stands that the backend refused to cancel."""
    if outcome is None:
        return _ended(job, "cancelled", "")
    if isinstance(outcome, Status):
        if outcome.state != "running":
            return decide_poll(job, outcome, now=now, options=options, draw=draw)
        refused = BackendError(
            "the backend refused to cancel the job", retry_after=outcome.retry_after
        )
        again = _again(job, refused, "running", now=now, options=options, draw=draw)
        if again.delay is None:
            return again
        return again._replace(
            progress=percent(outcome.progress), message=f"{refused.sentence}, trying again"
        )
    return _again(
        job, outcome, "running", now=now, options=options, draw=draw, doing="cancelling, "
    )


def _again(
    job: Job,
    error: BackendError,
    state: str,
    *,
    now: float,
    options: Options,
    draw: float,
    doing: str = "",
) -> Decision:
    """Once more, after a backoff with full jitter, rounded to what two lanes hold, or after Retry-After, exactly."""
    if now >= job.deadline_at:
        return _expired(job, options, f"; at last {error.sentence}")
    attempts = job.attempts + 1
    ceiling = min(
        max(LONGEST_BACKOFF, options.interval), options.interval * 2.0 ** min(attempts, 30)
    )
    delay = round_delay(max(0.1, options.interval / 10, draw * ceiling))
    if error.retry_after is not None and error.retry_after > delay:
        delay = error.retry_after
    return Decision(
        state=state,
        handle=job.handle,
        progress=job.progress,
        message=_text(f"{doing}backend unreachable, retrying ({error.sentence})", LONGEST_MESSAGE),
        attempts=attempts,
        delay=_until(job, delay, now),
    )


def _until(job: Job, delay: float, now: float) -> float:
    """The delay, cut so that the last look is at the deadline."""
    return max(0.0, min(delay, job.deadline_at - now))


def _ended(
    job: Job, state: str, error: str, *, message: str = "", progress: float | None = None
) -> Decision:
    known = job.progress if progress is None else progress
    return Decision(
        state=state,
        handle=job.handle,
        progress=known,
        message=message,
        error=_text(error, LONGEST_ERROR),
        attempts=job.attempts,
    )


def _expired(job: Job, options: Options, more: str = "") -> Decision:
    return _ended(job, "expired", f"the job did not end within {_duration(options.deadline)}{more}")


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} seconds"


def _text(text: object, longest: int) -> str:
    """Cut to what the ledger holds, without the NUL that PostgreSQL refuses."""
    return (
        ("" if text is None else str(text))
        .encode("utf-8", "replace")
        .decode()
        .replace("\0", "")[:longest]
    )


def _storable(result: object) -> Any:
    """The result as JSON can hold it, without the NUL that PostgreSQL refuses. Raises TypeError."""
    if result is None:
        return None
    dumped = orjson.dumps(
        [[[[result]]]]
    )  # its depth is limited, and the ledger puts something around it
    return orjson.loads(_NUL.sub(rb"\1", dumped))[0][0][0][0] if rb"\u0000" in dumped else result
