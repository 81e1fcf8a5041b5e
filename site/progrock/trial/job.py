"""The job of a trial, and the ways in which it is looked at."""

from dataclasses import dataclass

from progrock.lifecycle import Decision
from progrock.models import ACTIVE, State


@dataclass
class TriedJob:
    """The job of a trial: what `lifecycle` reads of a job. Times are seconds since the epoch."""

    deadline_at: float
    state: str = State.QUEUED
    handle: str = ""
    progress: float | None = None
    message: str = ""
    error: str = ""
    turn: int = 1
    attempts: int = 0
    crashes: int = 0
    sweeps: int = 0
    due_at: float = 0.0
    missing_at: float | None = None
    cancel_requested: bool = False
    cancel_taken: bool = False
    owed: bool = False
    watched: bool = True

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE

    def step(self, decision: Decision) -> None:
        """Take over what was decided."""
        for name in ("state", "handle", "progress", "message", "error", "attempts", "missing_at"):
            setattr(self, name, getattr(decision, name))
        self.cancel_taken = decision.cancel_taken
        self.turn += 1


@dataclass
class Way:
    """One way to look at the job, "poll" or "poll_many", and where the job stands by it.

    `failures` counts calls in a row that failed. `told` is true when the backend has said how the
    job ended. `taken` is true when the last call failed although the backend accepted it.
    `complaint` says what was wrong with the last call.
    """

    name: str
    job: TriedJob
    failures: int = 0
    looks: int = 0
    delay: float = 0.0
    told: bool = False
    taken: bool = False
    complaint: str = ""
