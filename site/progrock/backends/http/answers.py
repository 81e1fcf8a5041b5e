"""Reads a backend's answer over HTTP: the handle of a start, the status of a job. No network here.

Everything here raises BackendError for an answer that cannot be used.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
from jmespath.exceptions import JMESPathError

from progrock.backends.base import Handle, JobView, Status, check_handle, percent
from progrock.backends.errors import BackendError
from progrock.backends.http.table import Expression, HttpSpec, Many
from progrock.storable import read_leniently, read_strictly


def read_handle(spec: HttpSpec, body: bytes, wait: float | None) -> Handle:
    """The handle in the answer to a start; `wait` is the answer's Retry-After in seconds."""
    return Handle(check_handle(evaluate(spec.handle, parse(body))), wait)


def read_status(spec: HttpSpec, body: bytes, wait: float | None) -> Status:
    """Where a job stands, from an answer about this job alone."""
    return _status(spec, parse(body), wait)


def read_statuses(
    spec: HttpSpec, many: Many, jobs: Sequence[JobView], body: bytes, wait: float | None
) -> dict[str, Status | BackendError]:
    """Where several jobs stand, by job id; a BackendError for each one that the answer fails."""
    items = evaluate(many.items, parse(body))
    if not isinstance(items, list):
        raise BackendError("the backend answered without a list of jobs")
    by_handle = {as_text(evaluate(many.id, item)): item for item in items}
    found: dict[str, Status | BackendError] = {}
    for job in jobs:
        try:
            if job.handle not in by_handle:
                raise BackendError("the backend does not know this job", forgotten=True)
            found[job.id] = _status(spec, by_handle[job.handle], wait)
        except BackendError as error:
            error.retry_after = wait
            found[job.id] = error
    return found


def is_html(content_type: str, body: bytes) -> bool:
    """Whether an answer is a page for people, by its type or by how it begins."""
    page = content_type in ("text/html", "application/xhtml+xml")
    return page or body[:100].lstrip().lower().startswith((b"<!doctype html", b"<html"))


def read_reason(expression: Expression | None, body: bytes) -> str | None:
    """The reason that a refusal gives, if it gives one."""
    return as_text(evaluate(expression, parse(body))) if expression else None


def _status(spec: HttpSpec, answer: Any, wait: float | None) -> Status:
    if (word := as_text(evaluate(spec.state, answer))) is None:
        raise BackendError("the backend answered without a state")
    if (state := spec.states.get(word.lower())) is None:
        raise BackendError(f"the backend answered with an unknown state: {word[:50]}")
    return Status(
        state=state,
        progress=percent(evaluate(spec.progress, answer), spec.progress_scale),
        message=as_text(evaluate(spec.message, answer)),
        result=evaluate(spec.result, answer) if state == "succeeded" else None,
        error=as_text(evaluate(spec.error, answer)) if state in ("failed", "cancelled") else None,
        retry_after=wait,
    )


def retry_after(value: str | None, sent: str | None, now: float) -> float | None:
    """A Retry-After header, which holds seconds or a date, in seconds from when it was sent.

    `sent` is the answer's Date, by the same clock; without it our own clock must do, which says
    `now` (epoch seconds). None without a header and for nonsense (RFC 9110, 10.2.3).
    """
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    if (until := _date(value)) is None:
        return None
    return max(0.0, until - (now if (at := _date(sent or "")) is None else at))


def _date(text: str) -> float | None:
    """A date of HTTP in seconds since the epoch; None for nonsense."""
    try:
        date: datetime = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def parse(body: bytes) -> Any:
    """The body as JSON values.

    Many servers write what is not JSON in the strict sense: `read_leniently` says what becomes of
    it.
    """
    try:
        return read_strictly(body)
    except ValueError:
        pass
    try:
        return read_leniently(body)
    except (ValueError, TypeError, RecursionError):
        raise BackendError("the backend answered with something that is not JSON") from None


def evaluate(expression: Expression | None, answer: Any) -> Any:
    """What the expression finds in an answer; None without an expression."""
    try:
        return expression and expression(answer)
    except (
        JMESPathError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as error:  # whatever a function of JMESPath raises for values that it does not expect
        raise BackendError("the backend's answer has an unexpected form") from error


def as_text(value: Any) -> str | None:
    """Text as it is, None as it is, and any other value as JSON."""
    try:
        return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    except TypeError as error:  # nested too deeply to be written
        raise BackendError("the backend's answer has an unexpected form") from error
