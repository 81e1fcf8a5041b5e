"""A backend that says what a test has written down for it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from progrock.backends import BackendError, JobView, Options, Status

T = TypeVar("T")

#: What a call may come to: an answer of its own kind, or what is raised.
Polled = Status | Exception
Started = str | Status | Exception
Cancelled = Status | Exception | None


class Script:
    """Answers each call with the next line of its script.

    `polls` are the answers to polls: a Status, or an error that is raised. When they are used up,
    the test goes on. `starts` are the answers to starts: a handle, a Status, or an error. When they
    are used up, each start gets a handle. `cancels` are the answers to cancels: None (the job is
    cancelled), a Status, or an error. When they are used up, each cancel is obeyed.
    Raises TypeError for a line of any other type.
    """

    def __init__(
        self,
        polls: Iterable[Polled] = (),
        *,
        starts: Iterable[Started] = (),
        cancels: Iterable[Cancelled] = (),
    ) -> None:
        self.options = Options(name="script")
        self.polls = _lines("polls", polls, Status, Exception)
        self.starts = _lines("starts", starts, str, Status, Exception)
        self.cancels = _lines("cancels", cancels, type(None), Status, Exception)

    async def start(self, job: JobView) -> str | Status:
        """A handle, or a Status where the job is over already."""
        line = self.starts.popleft() if self.starts else f"script-{job.id[:8]}"
        if isinstance(line, Exception):
            raise line
        return line

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        """Where the one job stands."""
        line = self.polls.popleft()
        if not isinstance(line, Status | BackendError):
            raise line
        return {job.id: line for job in jobs}

    async def cancel(self, job: JobView) -> Status | None:
        """None where it is cancelled."""
        line = self.cancels.popleft() if self.cancels else None
        if isinstance(line, Exception):
            raise line
        return line

    async def aclose(self) -> None:
        """There is nothing to close."""


def _lines(name: str, lines: Iterable[T], *wanted: type) -> deque[T]:
    found = deque(lines)
    for n, line in enumerate(found):
        if not isinstance(line, wanted):
            kinds = ", ".join("None" if each is type(None) else each.__name__ for each in wanted)
            raise TypeError(f"line {n} of {name} is {line!r}; wanted one of: {kinds}")
    return found
