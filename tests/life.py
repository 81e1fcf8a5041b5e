"""A job without a ledger, and what the rules of its life decide about it."""

from dataclasses import dataclass
from typing import Any

from progrock.backends import BackendError, Options, Status
from progrock.lifecycle import (
    Decision,
    Moment,
    after_cancel,
    after_poll,
    after_start,
)
from progrock.models import ACTIVE

NOW = 1_800_000_000.0
OPTIONS = Options(name="render")


@dataclass(kw_only=True)
class Job:
    """A job that runs, with an hour left."""

    state: str = "running"
    handle: str = "h1"
    progress: float | None = 40.0
    message: str = "Rendering"
    error: str = ""
    turn: int = 3
    attempts: int = 0
    crashes: int = 0
    sweeps: int = 0
    missing_at: float | None = None
    due_at: float = NOW
    deadline_at: float = NOW + 3600
    cancel_requested: bool = False
    cancel_taken: bool = False
    owed: bool = False
    watched: bool = True

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def waiting(state: str, **changes: Any) -> Job:
    """A job that the backend has not confirmed yet."""
    values: dict[str, Any] = {"handle": "", "progress": None, "message": ""}
    return Job(state=state, **values | changes)


def moment(options: Options = OPTIONS, draw: float = 0.5) -> Moment:
    """The moment of an answer."""
    return Moment(NOW, draw, options)


def poll(outcome: Status | BackendError, job: Job | None = None, **about: Any) -> Decision:
    """What follows an answer to a look."""
    return after_poll(job or Job(), outcome, moment(**about))


def start(
    outcome: str | BackendError, job: Job | None = None, *, repeated: bool = False, **about: Any
) -> Decision:
    """What follows an answer to a start."""
    return after_start(job or waiting("starting"), outcome, moment(**about), repeated=repeated)


def cancel(outcome: Status | BackendError | None, job: Job | None = None) -> Decision:
    """What follows an answer to a cancel."""
    return after_cancel(job or Job(cancel_requested=True), outcome, moment())
