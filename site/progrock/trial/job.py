"""The job of a trial, and the ways in which it is looked at."""

from dataclasses import dataclass

from progrock.ledger import Row
from progrock.lifecycle import Decision
from progrock.models import State


def new_job(job_id: str, backend: str, deadline_at: float) -> Row:
    """The job of a trial, as a worker would read it from the ledger before its start."""
    return Row(
        id=job_id,
        backend=backend,
        state=State.QUEUED,
        handle="",
        progress=None,
        message="",
        turn=1,
        due_at=0.0,
        deadline_at=deadline_at,
        missing_at=None,
        attempts=0,
        crashes=0,
        sweeps=0,
        cancel_requested=False,
        cancel_taken=False,
        owed=False,
    )


def take_step(job: Row, decision: Decision) -> None:
    """Make of the job what was decided."""
    job.turn += 1
    job.state, job.handle, job.progress = decision.state, decision.handle, decision.progress
    job.message, job.error, job.attempts = decision.message, decision.error, decision.attempts
    job.missing_at, job.cancel_taken = decision.missing_at, decision.cancel_taken


@dataclass
class Way:
    """One way to look at the job, "poll" or "poll_many", and where the job stands by it.

    `failures` counts calls in a row that failed. `told` is true when the backend has said how the
    job ended. `taken` is true when the last call failed although the backend accepted it.
    `complaint` says what was wrong with the last call.
    """

    name: str
    job: Row
    failures: int = 0
    looks: int = 0
    delay: float = 0.0
    told: bool = False
    taken: bool = False
    complaint: str = ""
