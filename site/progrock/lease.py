"""The lease of a running job: until when a look that finds nothing new writes nothing.

Everything here is pure, as in `progrock.lifecycle`. docs/promise.md says why ProgRock never makes
two such looks at once.
"""

from typing import Protocol

from progrock.backends.base import Options
from progrock.lifecycle import Decision, Job, is_visible, unchanged
from progrock.models import State

#: A lease is drawn anew for each round, up to this share longer or shorter, so that leases which
#: began together do not end together.
DRAW = 0.2
#: The longest draw in relation to the shortest. What is left of a lease is never more.
_LONGEST_DRAW = (1 + DRAW) / (1 - DRAW)


class Leased(Job, Protocol):
    """A job with the time until which its turn may be looked at without a write."""

    due_at: float


def lease_of(options: Options, draw: float) -> float:
    """For how many seconds a commit of this round may lease turns; `draw` is in [0, 1)."""
    return options.lease * (1.0 + DRAW * (2.0 * draw - 1.0))


def due_in(job: Leased, decision: Decision, lease: float, now: float) -> float | None:
    """In how many seconds the job's row is due after this decision; None where it has ended.

    The row is due when the next step is, or at the end of the lease if that is later. A job has a
    lease only while it runs, its calls do not fail, and it does not matter who comes to watch it.
    A lease that lasts until the next look is kept, so that the row's index stays as it is.
    """
    delay = decision.delay
    if (
        delay is None
        or delay >= lease
        or not _may_lease(decision.state, decision.attempts)
        or job.cancel_requested
        or decision.soon not in (None, delay)
    ):
        return delay
    left = job.due_at - now
    lasts = delay <= left <= lease * _LONGEST_DRAW and _may_lease(job.state, job.attempts)
    return left if lasts else lease


def needs_no_write(job: Leased, decision: Decision, now: float) -> bool:
    """Whether a look has found nothing new, and the next look falls within the job's lease.

    The task of such a look must have been delivered for the first time, and must bear no mark.
    """
    return (
        decision.delay is not None
        and now + decision.delay <= job.due_at
        and _may_lease(job.state, job.attempts)
        and decision.attempts == job.attempts
        and not (job.crashes or job.sweeps or job.cancel_requested)
        and decision.soon in (None, decision.delay)
        and not is_visible(job, decision)
    )


def resumed(job: Leased, options: Options, now: float) -> Decision:
    """A turn more for a job whose present task may not have been published; it stays as it is.

    A new turn makes that task stale, if there is one. The next look is when it would have been, or
    after an interval where only the end of the job's lease is known.
    """
    delay = max(0.0, job.due_at - now)
    soon = min(delay, options.interval)
    if (
        delay <= lease_of(options, 1.0)
        and _may_lease(job.state, job.attempts)
        and job.watched
        and not job.cancel_requested
    ):
        delay = soon
    watching_matters = options.unwatched is not None and job.state == State.RUNNING
    return unchanged(job)._replace(
        delay=delay, soon=soon if watching_matters else None, free=None, asked=False
    )


def _may_lease(state: str, attempts: int) -> bool:
    return state == State.RUNNING and not attempts
