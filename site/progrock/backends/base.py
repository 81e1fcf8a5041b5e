"""The protocol between ProgRock and whatever runs the jobs, and the values that cross it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import orjson

from progrock.backends.errors import BackendError

if TYPE_CHECKING:
    from progrock.backends.config import HttpSpec

JobState = Literal["running", "succeeded", "failed", "cancelled"]
LONGEST_HANDLE = 500


@dataclass(frozen=True, kw_only=True)
class Options:
    """One table of the backends' file, times in seconds; over HTTP with a `spec`, else with `cls` and `arguments`."""

    name: str
    interval: float = 1.0
    timeout: float = 5.0
    deadline: float = 3600.0
    shards: int = 2
    repeat: bool = True
    cancels: bool = False
    has_progress: bool = False
    concurrency: int = 8
    max_answer: int = 1 << 20
    spec: "HttpSpec | None" = field(default=None, repr=False)
    cls: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)


class JobView:
    """What a backend sees of a job: `id`, `handle` (empty until the backend gave one) and `params`, read from their JSON when asked for."""

    __slots__ = ("_params", "handle", "id")

    def __init__(self, id: str, handle: str, params: dict[str, Any] | str) -> None:
        self.id, self.handle, self._params = id, handle, params

    @property
    def params(self) -> dict[str, Any]:
        """What the job was started with."""
        if isinstance(self._params, str):
            self._params = orjson.loads(self._params)
        return cast(dict[str, Any], self._params)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a backend says of a job: progress 0 to 100 or None where it cannot tell, `retry_after` in seconds."""

    state: JobState
    progress: float | None = None
    message: str | None = None
    result: object = None
    error: str | None = None
    retry_after: float | None = None


class Handle(str):
    """A handle that came with a Retry-After; a backend may as well return a plain `str`."""

    __slots__ = ("retry_after",)
    retry_after: float | None

    def __new__(cls, value: str, retry_after: float | None = None) -> "Handle":
        handle = super().__new__(cls, value)
        handle.retry_after = retry_after
        return handle


class Backend(Protocol):
    """A service that runs long jobs. A class of one's own is called with the options, then the table's other keys."""

    options: Options

    async def start(self, job: JobView) -> str:
        """Start the job and return the backend's handle for it. Raises BackendError.

        The same `job.id` may come twice and must start one job, unless the table says `repeat = false`.
        """

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        """Where the jobs stand, by job id, every one of them. Takes no longer than the timeout; never raises."""

    async def cancel(self, job: JobView) -> Status | None:
        """Cancel the job; None: it is cancelled, or gone. Raises BackendError.

        Where the backend refuses (the job may have ended meanwhile), returns where the job stands instead.
        """

    async def aclose(self) -> None:
        """Let go of connections."""


def check_handle(value: object) -> str:
    """The handle as text; it may be text or a whole number. Raises BackendError for one that cannot be used."""
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
    """A backend's progress, of which `scale` is the whole, as 0 to 100; None for what is no finite number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever JSON held: float() itself is the check
    except (TypeError, ValueError, OverflowError):
        return None
    return min(100.0, max(0.0, number * 100.0 / scale)) if math.isfinite(number) else None
