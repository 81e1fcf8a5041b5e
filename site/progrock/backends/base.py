"""The protocol between ProgRock and the services that run jobs, and the values that cross it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import orjson

from progrock.backends.errors import BackendError

JobState = Literal["running", "succeeded", "failed", "cancelled"]
LONGEST_HANDLE = 4096
#: A lease lasts for this many looks, or for this many seconds if that is longer, plus one second.
LEASE_LOOKS, LEAST_LEASE = 6, 15.0
#: The shortest lease, in looks. Under an overload looks come late. A shorter lease would then end
#: between two of them, and each look would be written, which keeps the overload up.
LEAST_LOOKS = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """One backend's table in the backends' file. Times are in seconds, `max_answer` is in bytes.

    docs/backends.md explains the keys of the file. What differs from the file:
    `unwatched` is None where it is the same as `interval`. `lease` is 0 where each look is written,
    and `usual_lease` if left out. `reads_params` says whether looks and cancels need the params of
    their jobs, as a start always does. `start_timeout` is how long a start may take, and
    `longest_call` how long any call may take; both are `timeout` if left out. `params_schema` is
    the JSON Schema of params. `browser` says whether browsers may start jobs. `spec` holds the rest
    of the table, which only this kind of backend understands.
    """

    name: str
    interval: float = 1.0
    timeout: float = 5.0
    deadline: float = 3600.0
    shards: int = 2
    repeat: bool = True
    cancels: bool = False
    has_progress: bool = False
    concurrency: int = 8
    missing_for: float = 30.0
    max_answer: int = 1 << 20
    unwatched: float | None = None
    lease: float = -1.0
    title: str = ""
    label: Any = None
    params_schema: Mapping[str, Any] | None = None
    browser: bool = False
    start_timeout: float = 0.0
    longest_call: float = 0.0
    reads_params: bool = True
    spec: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.lease < 0:
            object.__setattr__(self, "lease", usual_lease(self.interval))
        for name in ("start_timeout", "longest_call"):
            if not getattr(self, name):
                object.__setattr__(self, name, self.timeout)


def usual_lease(interval: float) -> float:
    """The lease of jobs that are looked at each `interval`; both in seconds."""
    return max(LEAST_LEASE, LEASE_LOOKS * interval) + 1.0


class JobView:
    """What a backend sees of a job: `id`, `handle`, `params` and `again`.

    `handle` is empty until the backend has given one. `params` may come as JSON text, which is
    read when somebody asks for it, because most polls do not. `again` is true if the last call
    for this job failed.
    """

    __slots__ = ("_params", "again", "handle", "id")

    def __init__(
        self, id: str, handle: str, params: dict[str, Any] | str, *, again: bool = False
    ) -> None:
        self.id, self.handle, self._params, self.again = id, handle, params, again

    @property
    def params(self) -> dict[str, Any]:
        """What the job was started with."""
        if isinstance(self._params, str):
            self._params = orjson.loads(self._params)
        return cast(dict[str, Any], self._params)

    def moved(self, handle: str) -> "JobView":
        """The same job with another handle."""
        return JobView(self.id, handle, self._params, again=self.again)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a backend says about a job.

    `progress` goes from 0 to 100 and is None where the backend cannot tell. `result` is any JSON.
    `retry_after` is the wait in seconds that the backend asks for before the next poll. `handle` is
    the job's handle from now on, or None where it stays the same. `cancelling` means that the
    backend has taken a cancel, and that the job has not ended yet. In the answer to a cancel,
    `error` says why the cancel was refused.
    """

    state: JobState
    progress: float | None = None
    message: str | None = None
    result: object = None
    error: str | None = None
    retry_after: float | None = None
    handle: str | None = None
    cancelling: bool = False


class Handle(str):
    """A handle that came with a Retry-After (seconds). A backend may also return a plain `str`."""

    __slots__ = ("retry_after",)
    retry_after: float | None

    def __new__(cls, value: str, retry_after: float | None = None) -> "Handle":
        handle = super().__new__(cls, value)
        handle.retry_after = retry_after
        return handle


class Backend(Protocol):
    """A service that runs long jobs.

    A class of your own is called with the options, then with the other keys of its table by name.
    Its methods must not block: they run in the worker's event loop, with all other backends.
    """

    options: Options

    async def start(self, job: JobView) -> "str | Status":
        """Start the job. Returns the backend's handle, or a Status where it is over already.

        Raises BackendError. The same `job.id` may come twice and must then start one job only,
        unless the table says `repeat = false`.
        """

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        """Where each of these jobs stands, by job id; a BackendError where that is not known.

        Takes no longer than the timeout and never raises.
        """

    async def cancel(self, job: JobView) -> Status | None:
        """Cancel the job. None means that it is cancelled or gone. Raises BackendError.

        Where the backend refuses, perhaps because the job has ended, return its status instead.
        Where it has taken the cancel and needs time, return a status that is `cancelling`: the job
        is then polled until it ends.
        """

    async def aclose(self) -> None:
        """Close the connections."""


def check_handle(value: object) -> str:
    """The handle as text. Raises BackendError unless it is a usable text or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if (
        not isinstance(value, str)
        or value in ("", ".", "..")
        or len(value) > LONGEST_HANDLE
        or not value.isprintable()
    ):
        raise BackendError("the backend answered without a usable handle for the job")
    return value


def percent(value: object, scale: float = 100.0) -> float | None:
    """A backend's progress as 0 to 100; `scale` is what the backend calls the whole.

    None for what is not a finite number.
    """
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # any JSON value: float() is the check
    except (TypeError, ValueError, OverflowError):
        return None
    return min(100.0, max(0.0, number * 100.0 / scale)) if math.isfinite(number) else None
