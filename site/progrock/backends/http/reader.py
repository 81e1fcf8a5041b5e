"""Reads an answer by a table: what a start, a look and a cancel say. No network here."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jmespath.exceptions import JMESPathError

from progrock.backends.base import Handle, JobState, JobView, Status, check_handle
from progrock.backends.errors import BackendError, shortened
from progrock.backends.http.answers import Answer, parse
from progrock.backends.http.requests import Request
from progrock.backends.http.spec import HttpSpec
from progrock.backends.http.values import Seen, Value, as_text, progress
from progrock.backends.templates import MISSING, Scope

#: Statuses from 400 on that say nothing of the job, because any other job would get them too.
OF_ANY_JOB = (401, 403, 408, 425, 429)
#: These, and the statuses of a proxy or an overloaded server. Such bodies say nothing of the job.
_OF_NO_JOB = (*OF_ANY_JOB, 502, 503, 504)
#: Statuses that mean "not known (yet)".
UNKNOWN_JOB = (404, 410)
#: Statuses that mean "not now", and not "no".
NOT_NOW = (408, 423, 425, 429)
#: Where a backend usually writes why it refused.
USUAL_PLACES = ("error.message", "detail", "message", "title", "error")
_LONGEST_REASON = 1000

#: Called with the key of the table, the value's expression, and what it found or None.
Note = Callable[[str, str, Any], None]


class Reader:
    """Reads answers by a table.

    `note` is called with each value that was not found, and with all values if `notes_all`.
    """

    def __init__(self, spec: HttpSpec, note: Note) -> None:
        self.spec, self._note = spec, note
        self.notes_all = False

    # Starts

    def start(self, answer: Answer, scope: Scope) -> Handle | Status:
        """What a start says: the handle, or the job's end where it is over already.

        Raises BackendError, which is `final` after a refusal and after an answer with neither.
        """
        taken = answer.status < 400 or answer.status in self.spec.start.taken
        if not taken:
            raise self._no(answer, scope)
        found, unusable = self.find("handle", self.spec.handle, answer.seen(scope)), None
        if found is not None:
            try:
                return Handle(check_handle(found), answer.wait)
            except BackendError as error:
                error.final, error.status = True, answer.status
                unusable = error
        try:
            status = self.look(answer, scope, at_start=True)
        except BackendError:
            status = None
        if status is not None and status.state != "running":
            return status
        if unusable:
            raise unusable
        sentence = f"the backend answered {answer.status}, but `handle` found nothing"
        if reason := self.reason(answer, scope):
            sentence += f": {reason}"
        raise BackendError(sentence, final=True, status=answer.status)

    def _no(self, answer: Answer, scope: Scope) -> BackendError:
        error = self.refusal(answer, scope)
        error.final = 400 <= answer.status < 500 and answer.status not in NOT_NOW
        not_now = answer.status in NOT_NOW or (answer.status == 503 and answer.wait is not None)
        error.sent = not not_now
        return error

    # Looks

    def look(self, answer: Answer, scope: Scope, *, at_start: bool = False) -> Status:
        """Where a job stands, from an answer about it alone. Raises BackendError."""
        return self._status(answer, answer.seen(scope), at_start=at_start)

    def items(self, answer: Answer, request: Request, handles: Sequence[str]) -> dict[str, Any]:
        """The items of an answer about several jobs, by handle.

        Raises BackendError where the answer fails them all.
        """
        assert request.items is not None  # the table has both
        assert request.id is not None
        nobody = Scope(handles=handles)
        if answer.status >= 300:
            raise self.refusal(answer, nobody)
        if answer.json is MISSING:
            answer.body  # noqa: B018  # raises where it is too large
            raise BackendError("the backend answered with something that is not JSON")
        items = self.find("poll_many items", request.items, answer.seen(nobody))
        if not isinstance(items, list):
            raise BackendError("the backend answered without a list of jobs")
        by_handle: dict[str, Any] = {}
        for item in items:
            found = self.find("poll_many id", request.id, Seen(item, answer.headers, nobody))
            if (handle := _as_text(found)) is not None:
                by_handle[handle] = item
        return by_handle

    def looks(
        self, answer: Answer, items: Mapping[str, Any], jobs: Sequence[JobView]
    ) -> dict[str, Status | BackendError]:
        """Where several jobs stand, by job id; a BackendError for each that has no good item."""
        outcomes: dict[str, Status | BackendError] = {}
        for job in jobs:
            try:
                if job.handle not in items:
                    raise BackendError("the backend does not know this job", forgotten=True)
                seen = Seen(items[job.handle], answer.headers, Scope(job))
                outcomes[job.id] = self._status(answer, seen, of_many=True)
            except BackendError as error:
                error.retry_after = answer.wait
                outcomes[job.id] = error
        return outcomes

    def _status(
        self, answer: Answer, seen: Seen, *, at_start: bool = False, of_many: bool = False
    ) -> Status:
        spec = self.spec
        if not at_start and answer.status < 400 and (moved := self._moved(seen)):
            return self._running(answer, seen, moved)
        state, word = self._state(answer, seen, of_many=of_many)
        if state is None:
            raise self._complaint(answer, seen, word)
        if state == "running":
            return self._running(answer, seen)
        error = None
        if state != "succeeded":
            error = _as_text(self.find("error", spec.error, seen))
            if error is None and word is None:  # the HTTP status alone says so
                error = self.reason(answer, seen.scope)
        result, message = None, _as_text(self.find("message", spec.message, seen))
        if state == "succeeded" and not spec.fetch:
            if answer.raw is None:
                message = _too_large_to_keep(answer)
            else:
                result = self.find("result", spec.result, seen)
        return Status(
            state=state,
            progress=progress(self.find("progress", spec.progress, seen), spec.progress_scale),
            message=message,
            result=result,
            error=error,
            retry_after=answer.wait,
        )

    def _running(self, answer: Answer, seen: Seen, handle: str | None = None) -> Status:
        spec = self.spec
        return Status(
            state="running",
            progress=progress(self.find("progress", spec.progress, seen), spec.progress_scale),
            message=_as_text(self.find("message", spec.message, seen)),
            handle=handle,
            retry_after=answer.wait,
        )

    def _moved(self, seen: Seen) -> str | None:
        """The handle that the job has from now on, where it is another one than before."""
        if self.spec.moves is None:
            return None
        try:
            moved = check_handle(self.find("moves", self.spec.moves, seen))
        except BackendError:  # nothing, or what can be no handle
            return None
        return moved if seen.scope.job and moved != seen.scope.job.handle else None

    def _is_a_proxys(self, answer: Answer) -> bool:
        """Whether a 404 or 410 comes from a proxy: it is a page, though the backend speaks JSON."""
        return answer.status in UNKNOWN_JOB and self.spec.state is not None and answer.is_html

    def _state(
        self, answer: Answer, seen: Seen, *, of_many: bool = False
    ) -> tuple[JobState | None, str | None]:
        """The state, and the word that an answer has for it; None where there is none.

        A word counts in any answer about the job. `*` counts only below the status 400. With
        `of_many` the HTTP status does not count, because the job shares it with others.
        """
        states, status = self.spec.states, answer.status
        if self._is_a_proxys(answer):
            return None, None
        word = None
        if status not in _OF_NO_JOB and status not in UNKNOWN_JOB:
            word = _as_text(self.find("state", self.spec.state, seen))
            if word is not None and (state := states.words.get(word.strip().lower())):
                return state, word
        if not of_many and (state := states.statuses.get(status)):
            return state, None
        return (states.other, word) if word is not None and status < 400 else (None, word)

    def _complaint(self, answer: Answer, seen: Seen, word: str | None) -> BackendError:
        """Why an answer to a look cannot be used."""
        if answer.status >= 300:
            return self.refusal(answer, seen.scope)
        if answer.raw is None:
            sentence = answer.too_large
        elif seen.body is MISSING and self.spec.state is not None:
            sentence = "the backend answered with something that is not JSON"
        elif self.spec.state is None:
            sentence = f"the backend answered {answer.status}, which stands in no list of `states`"
        elif word is None:
            sentence = "the backend answered without a state"
        else:
            sentence = f"the backend answered with an unknown state: {word[:50]}"
        return BackendError(sentence, status=answer.status, retry_after=answer.wait)

    # The second request of a look

    def fetched(self, answer: Answer, request: Request, status: Status, scope: Scope) -> Status:
        """The end of a job with what the second request brought. Raises BackendError."""
        if self.spec.states.statuses.get(answer.status) == "failed":
            return Status(
                state="failed", error=self.reason(answer, scope), progress=status.progress
            )
        if answer.status >= 300:
            error = self.refusal(answer, scope)
            error.forgotten = False  # the look has just found the job
            raise error
        if answer.raw is None:
            return _with(status, message=_too_large_to_keep(answer))
        body = _read(request.read, answer.body)
        seen = Seen(body, answer.headers, scope)
        if status.state != "succeeded":
            return _with(
                status, error=_as_text(self.find("error", self.spec.error, seen)) or status.error
            )
        result = body if self.spec.result is None else self.find("result", self.spec.result, seen)
        return _with(status, result=None if result is MISSING else result)

    # Refusals

    def refusal(self, answer: Answer, scope: Scope) -> BackendError:
        """The error for an answer that is not a 2xx, with the backend's own reason."""
        sentence = f"the backend answered {answer.status}"
        forgotten = answer.status in UNKNOWN_JOB
        if answer.status < 400:
            sentence += ", and redirects are not followed"
        elif self._is_a_proxys(answer):
            forgotten = False
            sentence += " with an HTML page, which is a proxy's"
        elif reason := self.reason(answer, scope):
            sentence += f": {reason}"
        return BackendError(
            sentence, status=answer.status, forgotten=forgotten, retry_after=answer.wait
        )

    def reason(self, answer: Answer, scope: Scope) -> str | None:
        """Why the backend refused: what `error` finds, else what stands in the usual places."""
        seen = answer.seen(scope)
        found = _as_text(self.find("error", self.spec.error, seen))
        if not found and seen.body is not MISSING:
            for place in USUAL_PLACES:
                value = seen.body
                for name in place.split("."):
                    value = value.get(name) if isinstance(value, dict) else None
                if value and (found := _as_text(value)):
                    break
        kind = answer.headers.get("content-type", "").strip().lower()
        if not found and kind.startswith("text/plain"):
            found = (answer.raw or b"").decode("utf-8", "replace").strip().partition("\n")[0]
        return shortened(found.strip(), _LONGEST_REASON) if found else None

    def find(self, key: str, value: Value | None, seen: Seen) -> Any:
        """What a value of the table finds. None if that is nothing, or if its expression fails."""
        if value is None:
            return None
        try:
            found = value.find(seen)
        except (
            BackendError,
            JMESPathError,
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            ArithmeticError,
            RecursionError,
        ):  # functions of JMESPath raise all of these for values that they do not expect
            found = None
        if found is None or self.notes_all:
            self._note(key, value.written, found)
        return found


def _read(kind: str, body: bytes) -> Any:
    """The body of a second request as the table says. Raises BackendError."""
    if kind == "json":
        return parse(body) if body else MISSING
    text = body.decode("utf-8", "replace")
    return (
        text
        if kind == "text"
        else [parse(line.encode()) for line in re.split(r"\r?\n", text) if line.strip()]
    )


def _too_large_to_keep(answer: Answer) -> str:
    return f"the result is too large to keep: above {answer.limit:,} bytes"


def _with(status: Status, **changes: Any) -> Status:
    values = {name: getattr(status, name) for name in Status.__slots__}
    return Status(**values | changes)


def _as_text(value: Any) -> str | None:
    try:
        return as_text(value)
    except TypeError:  # nested too deeply to be written
        return None
