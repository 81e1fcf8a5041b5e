"""Decides what happens to a job: what a task means for it, what to do next, what an answer means.

Everything here is pure: the clock and the dice are arguments, and nothing is read or written.
`progrock.lease` adds which of these decisions need no write. Two ends are decided by the ledger
itself, in one statement each: that of a job which is cancelled in the line (`request_cancel`), and
that of a job whose backend is no longer configured (`end_orphans`).

This file is longer than others because it is the one place where a job's life is told.
"""

from enum import Enum
from types import NoneType
from typing import NamedTuple, Protocol

from progrock.backends.base import Handle, Options, Status, check_handle, percent
from progrock.backends.errors import BackendError, shortened
from progrock.broker.lanes import round_delay
from progrock.milestones import Milestone
from progrock.models import State
from progrock.storable import (
    LONGEST_ERROR,
    LONGEST_MESSAGE,
    NO_RESULT,
    Result,
    storable_result,
    storable_text,
)

#: So many workers may die of one job before it is given up.
MOST_CRASHES = 5
#: From this delivery on, the tasks of a message are worked one by one: it may kill workers.
POISONOUS = 2
LONGEST_BACKOFF = 60.0
#: Answers to a start that may pass by themselves: tokens are replaced, and services deployed.
NOT_YET = (401, 403, 404)
#: What a backend's progress is, unless its class answers with something else.
_PLAIN = (NoneType, float, int)
FORGOTTEN = "the backend does not know this job at the moment, asking again"


class Job(Protocol):
    """What is read of a job; a row of the ledger has it all. Times are seconds since the epoch."""

    state: str
    handle: str
    progress: float | None
    message: str
    error: str
    turn: int
    attempts: int
    crashes: int
    sweeps: int
    missing_at: float | None
    deadline_at: float
    cancel_requested: bool
    cancel_taken: bool
    owed: bool
    watched: bool

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""


class Moment(NamedTuple):
    """When and for which backend something is decided.

    `now` is in seconds since the epoch, `draw` is a random number in [0, 1) for the backoff.
    """

    now: float
    draw: float
    options: Options


class Standing(Enum):
    """What a poll task means for its job."""

    STALE = "stale"  # nothing: another task of this turn was first
    VALID = "valid"  # take the job's next step
    RESUME = "resume"  # a worker died after the commit, perhaps before it published the next task
    OWED = "owed"  # the job has ended, and its worker died before it told that


class Step(Enum):
    """What to ask the backend for."""

    START = "start"
    POLL = "poll"
    CANCEL = "cancel"


class Decision(NamedTuple):
    """What to write into the ledger.

    `delay` is how many seconds later the next step is due, None where the job has ended.
    `opens_intent`: a start is about to be sent. No task follows, so that only a sweep, after
    `delay`, can bring one. `missing_at` (seconds since the epoch) is since when the backend says
    that it does not know the job, or refuses to start it; None where it does not say so.
    `cancel_taken`: the backend has taken a cancel, and the job has not ended there. `asked` is
    false where the backend was not asked, because it wants a pause or its rate is used up, or
    because the job is only given its task again.

    `soon` and `free` are for backends that look less often at jobs which nobody watches (`paced`).
    If somebody has come to watch the job since its row was read, the next step is due in `soon`
    seconds in place of `delay`; with None it does not matter who comes. If somebody comes after
    this step, the job is looked at at once, but not within `free` seconds; None leaves the time
    that the row has.
    """

    state: str
    handle: str
    progress: float | None
    message: str = ""
    result: Result = NO_RESULT
    error: str = ""
    attempts: int = 0
    delay: float | None = None
    crashes: int = 0
    opens_intent: bool = False
    missing_at: float | None = None
    cancel_taken: bool = False
    soon: float | None = None
    free: float | None = 0.0
    asked: bool = True


def unchanged(job: Job) -> Decision:
    """The decision that leaves a job as it is, for others to replace what they change."""
    return Decision(
        state=job.state,
        handle=job.handle,
        progress=job.progress,
        message=job.message,
        error=job.error,
        attempts=job.attempts,
        crashes=job.crashes,
        missing_at=job.missing_at,
        cancel_taken=job.cancel_taken,
    )


# What a task means


def standing(job: Job | None, turn: int, *, again: bool) -> Standing:
    """What a task of this `turn` means; `again`: the task was delivered before.

    A task that is one turn behind was worked already. If it comes again, its worker died between
    the commit and the ack, so what follows the commit may not have been sent. An open intent is
    left alone all the same: only a sweep may bring a task to it.
    """
    if job is None:
        return Standing.STALE
    if job.active and turn == job.turn:
        return Standing.VALID
    if turn != job.turn - 1:
        return Standing.STALE
    if job.active:
        return Standing.RESUME if again and job.state != State.STARTING else Standing.STALE
    untold = job.owed and (again or cancelled_in_line(job))
    return Standing.OWED if untold else Standing.STALE


def cancelled_in_line(job: Job) -> bool:
    """Whether a cancel ended the job before its start; a worker then still owes `job_finished`."""
    return job.state == State.CANCELLED and not job.handle


def one_by_one(deliveries: int) -> bool:
    """Whether the tasks of a message that was delivered so often before are worked one by one."""
    return deliveries >= POISONOUS


# What to do next


def next_step(job: Job, *, now: float, options: Options) -> Step | Decision:
    """What to ask the backend for, or the job's end where there is nothing to ask."""
    if (crashes := _crashes(job)) >= MOST_CRASHES:
        return _ended(
            job,
            State.FAILED,
            f"given up: {crashes} workers crashed while they handled this job",
        )
    if job.state == State.RUNNING:
        if not job.cancel_requested or (job.cancel_taken and options.cancels):
            return Step.POLL
        return Step.CANCEL if options.cancels else _ended(job, State.CANCELLED)
    if job.state == State.QUEUED and job.cancel_requested:  # a start that failed was under way
        return _ended(job, State.CANCELLED)
    if now >= job.deadline_at:
        return _ended(
            job,
            State.EXPIRED,
            "the deadline passed before the backend had confirmed the job",
        )
    if job.state == State.STARTING and not options.repeat:
        return _ended(job, State.FAILED, "outcome unknown: the start may or may not have arrived")
    return Step.START


def intent(job: Job, *, options: Options) -> Decision:
    """What is written before a start is sent.

    A start is sent within `timeout` of its intent and takes `start_timeout`, so the intent is due
    after both. The sweep's grace, which comes on top, is at least as long again.
    """
    return unchanged(job)._replace(
        state=State.STARTING,
        delay=options.start_timeout + options.timeout,
        crashes=_crashes(job),
        opens_intent=True,
    )


def _crashes(job: Job) -> int:
    """A swept intent counts as a crash: its worker never came back from the start."""
    return job.crashes + (job.state == State.STARTING and job.sweeps > 0)


# What an answer means


def too_late_to_start(waited: float, options: Options) -> bool:
    """Whether a start must not be sent so many seconds after its intent.

    The process was frozen, or the ledger was away. A sweep may have given the job to somebody else.
    """
    return waited > options.timeout


def put_back(job: Job, *, repeated: bool) -> Decision:
    """The start was not sent. If a sweep has claimed the job meanwhile, this commit loses."""
    again = _ended(job, State.STARTING if repeated else State.QUEUED)
    return again._replace(delay=0.0, missing_at=job.missing_at)


def after_start(
    job: Job,
    outcome: str | Status | BackendError,
    at: Moment,
    *,
    repeated: bool = False,
) -> Decision:
    """After a start: the handle, the job's end, or what went wrong.

    `repeated`: an earlier try may have arrived.
    A start that surely never arrived goes back to the queue. One that may have arrived is repeated
    with the same key: the intent stays open, and a cancel waits for the handle. Where the backend
    takes no repeat, the outcome is unknown. A refusal of `NOT_YET` is final only when the backend
    has refused for `missing_for` seconds.
    """
    if isinstance(outcome, Status):
        if outcome.state == "running":
            raise ValueError(
                "a backend's class answered a start with a job that runs, but no handle"
            )
        return after_poll(job, outcome, at)
    if not isinstance(outcome, BackendError):
        try:
            handle = check_handle(str(outcome) if isinstance(outcome, str) else outcome)
        except BackendError as error:
            outcome = error
    if isinstance(outcome, BackendError):
        if not outcome.asked:
            put = put_back(job, repeated=repeated)
            return put._replace(delay=_until(job, outcome.retry_after or 0.0, at.now))
        if outcome.final and outcome.status in NOT_YET:
            state = State.STARTING if repeated else State.QUEUED
            message = f"the start was refused, trying again ({outcome.sentence})"
            return _missing(job, outcome, state, at, message=message, error=outcome.sentence)
        if outcome.final:
            return _ended(job, State.FAILED, outcome.sentence)
        if outcome.sent and not at.options.repeat:
            return _ended(job, State.FAILED, f"outcome unknown: {outcome.sentence}")
        state = State.STARTING if outcome.sent or repeated else State.QUEUED
        return _again(job, outcome, state, at)
    wait = outcome.retry_after if isinstance(outcome, Handle) else None
    if at.now >= job.deadline_at:
        return _expired(job, at.options)._replace(handle=handle)
    delay = max(min(at.options.interval, 1.0), wait or 0.0)
    return Decision(
        state=State.RUNNING, handle=handle, progress=None, delay=_until(job, delay, at.now)
    )


def after_poll(job: Job, outcome: Status | BackendError, at: Moment) -> Decision:
    """After a poll: where the job stands, or why nobody knows.

    The backend's word counts even when it comes after the deadline.
    """
    if isinstance(outcome, BackendError):
        if not outcome.asked:
            return _as_it_was(job, outcome, at)
        if outcome.final:
            return _ended(job, State.FAILED, outcome.sentence)
        if outcome.forgotten:
            error = "the backend no longer knows this job"
            return _missing(job, outcome, State.RUNNING, at, message=FORGOTTEN, error=error)
        return _again(job, outcome, State.RUNNING, at)
    progress = percent(outcome.progress)
    message = storable_text(outcome.message, LONGEST_MESSAGE)
    if outcome.state == "running":
        if at.now >= job.deadline_at:
            return _expired(job, at.options)
        moved = outcome.handle is not None and outcome.handle != job.handle
        interval = min(at.options.interval, 1.0) if moved else at.options.interval
        delay = _until(job, max(interval, outcome.retry_after or 0.0), at.now)
        return Decision(
            state=State.RUNNING,
            handle=_handle(job, outcome),
            progress=progress,
            message=message,
            delay=delay,
            cancel_taken=job.cancel_taken,
        )
    if outcome.state == "succeeded":
        try:
            result = storable_result(outcome.result)
        except TypeError as error:
            sentence = f"the job succeeded, but its result cannot be kept: {error}"
            return _ended(job, State.FAILED, sentence, message=message)
        return Decision(
            state=State.SUCCEEDED,
            handle=job.handle,
            progress=100.0,
            message=message,
            result=result,
        )
    error_text = storable_text(outcome.error, LONGEST_ERROR)
    if outcome.state not in ("failed", "cancelled"):
        raise ValueError(f"a backend's class answered with the state {outcome.state!r}")
    if outcome.state == "failed":
        error_text = error_text or "the backend says that the job failed"
    elif not job.cancel_requested:
        error_text = error_text or "cancelled at the backend"
    return _ended(job, State(outcome.state), error_text, message=message, progress=progress)


def says_the_same(job: Job, answer: object, at: Moment) -> bool:
    """Whether a poll's answer says of a running job what its row says, and nothing else.

    Most answers do. Then `same` is what `after_poll` would decide, only faster.
    """
    return (
        type(answer) is Status
        and answer.state == "running"
        and type(answer.progress) in _PLAIN
        and answer.progress == job.progress
        and (answer.message or "") == job.message
        and answer.handle in (None, job.handle)
        and answer.retry_after is None
        and not (job.attempts or job.missing_at or job.cancel_taken)
        and at.now + at.options.interval <= job.deadline_at
    )


def same(job: Job, options: Options) -> Decision:
    """What is decided where `says_the_same`: the job stays, the next look is after an interval."""
    return Decision(
        State.RUNNING, job.handle, job.progress, job.message, NO_RESULT, "", 0, options.interval
    )


def after_cancel(job: Job, outcome: Status | BackendError | None, at: Moment) -> Decision:
    """After a cancel: None is done, a Status is where a job stands that was not cancelled."""
    if outcome is None:
        return _ended(job, State.CANCELLED)
    if isinstance(outcome, BackendError):
        if not outcome.asked:
            return _as_it_was(job, outcome, at)
        return _again(
            job,
            outcome,
            State.RUNNING,
            at,
            doing="cancelling, ",
        )
    if outcome.state != "running":
        return after_poll(job, outcome, at)
    if outcome.cancelling:
        if at.now >= job.deadline_at:
            return _expired(job, at.options)
        wait = max(min(at.options.interval, 1.0), outcome.retry_after or 0.0)
        message = storable_text(outcome.message, LONGEST_MESSAGE) or job.message
        return _as_it_was(job, None, at)._replace(
            handle=_handle(job, outcome),
            message=message,
            delay=_until(job, wait, at.now),
            attempts=0,
            cancel_taken=True,
        )
    reason = f": {outcome.error}" if outcome.error else ""
    refused = BackendError(
        f"the backend refused to cancel the job{reason}", retry_after=outcome.retry_after
    )
    again = _again(job, refused, State.RUNNING, at)
    if again.delay is None:
        return again
    message = storable_text(f"trying again, because {refused.sentence}", LONGEST_MESSAGE)
    progress = percent(outcome.progress)
    return again._replace(
        handle=_handle(job, outcome), progress=progress, message=message, missing_at=None
    )


def unwritable(job: Job, sentence: str) -> Decision:
    """The end of a job whose step the database cannot hold: its result is dropped."""
    return _ended(job, State.FAILED, sentence)


def paced(job: Job, decision: Decision, options: Options, now: float) -> Decision:
    """The decision, with the next look as late as the backend's table wants it for this job.

    While nobody watches a job that runs, its next look comes after `unwatched` seconds, or later
    where the backend or a failure wants that. A start, the first look after it, and a cancel do
    not wait for people, nor does a look that was due and could not be made. A wait above
    `interval` is not cut short by people.
    """
    if options.unwatched is None or decision.state != State.RUNNING or decision.delay is None:
        return decision
    if decision.soon is not None:
        return decision  # of a job that is resumed
    delay = decision.delay
    if not decision.asked:
        return decision._replace(soon=delay, free=delay)
    if job.state == State.RUNNING and not (job.watched or job.cancel_requested):
        delay = max(delay, _until(job, options.unwatched, now))
    free = decision.delay if decision.delay > options.interval else 0.0
    return decision._replace(delay=delay, soon=decision.delay, free=free)


# What a decision does to a job


def is_visible(job: Job, decision: Decision) -> bool:
    """Whether a browser sees a difference."""
    return decision.delay is None or (
        decision.state != job.state
        or decision.progress != job.progress
        or decision.message != job.message
        or decision.handle != job.handle
        or decision.missing_at != job.missing_at
        or decision.cancel_taken != job.cancel_taken
    )


def milestone(job: Job, decision: Decision) -> Milestone | None:
    """Which milestone of the job the step is; None for mere progress and the like."""
    if decision.delay is None:
        return Milestone.ENDED
    if decision.state == State.RUNNING and job.state != State.RUNNING:
        return Milestone.STARTED
    if decision.attempts == 1 and not job.attempts:
        return Milestone.REFUSED
    if decision.cancel_taken and not job.cancel_taken:
        return Milestone.CANCEL_TAKEN
    return None


def knows_of_cancel(job: Job, decision: Decision) -> bool:
    """Whether the step has taken account of a cancel, so that the next one need not hurry.

    An intent leaves a cancel to the step after the start, which has a handle to cancel.
    """
    return decision.opens_intent or (job.cancel_requested and job.state == State.RUNNING)


def owes_cancel(job: Job, options: Options) -> bool:
    """Whether the backend is asked once to cancel: the job has expired, and may still run there."""
    return job.state == State.EXPIRED and bool(job.handle) and options.cancels


def _missing(
    job: Job, answer: BackendError, state: str, at: Moment, *, message: str, error: str
) -> Decision:
    """The backend does not know the job, or refuses to start it; perhaps only for a while.

    The job has failed with `error` when this has been so for `missing_for` seconds. A call without
    any answer in between changes nothing about that, another answer begins the time anew.
    """
    since = at.now if job.missing_at is None else job.missing_at
    left = since + at.options.missing_for - at.now
    if left <= 0:
        return _ended(job, State.FAILED, error)
    again = _again(job, answer, state, at)
    if again.delay is None:
        return again
    longest = max(left, 0.1, answer.retry_after or 0.0)  # the last look is when the time is over
    return again._replace(
        message=storable_text(message, LONGEST_MESSAGE),
        delay=min(again.delay, longest),
        missing_at=since,
    )


def _again(
    job: Job,
    error: BackendError,
    state: str,
    at: Moment,
    doing: str = "",
) -> Decision:
    """Retry after an exponential backoff with full jitter, or after Retry-After.

    Retry-After is kept exactly. The backoff is rounded up to what two lanes hold, because each
    further lane costs a message.
    """
    if at.now >= job.deadline_at:
        return _expired(job, at.options, f"; at last {error.sentence}")
    attempts = job.attempts + 1
    ceiling = min(
        max(LONGEST_BACKOFF, at.options.interval), at.options.interval * 2.0 ** min(attempts, 30)
    )
    delay = round_delay(max(0.1, at.options.interval / 10, at.draw * ceiling))
    if error.retry_after is not None and error.retry_after > delay:
        delay = error.retry_after
    message = shortened(f"{doing}asking again: {error.sentence}", LONGEST_MESSAGE)
    return Decision(
        state=state,
        handle=job.handle,
        progress=job.progress,
        message=storable_text(message, LONGEST_MESSAGE),
        attempts=attempts,
        delay=_until(job, delay, at.now),
        missing_at=job.missing_at if error.status is None else None,
        cancel_taken=job.cancel_taken,
    )


def _handle(job: Job, status: Status) -> str:
    """The job's handle from now on. Raises BackendError for one that cannot be used."""
    return job.handle if status.handle is None else check_handle(status.handle)


def _as_it_was(job: Job, error: BackendError | None, at: Moment) -> Decision:
    """The job as it was. `error` is why the backend was not asked; it says when to try again."""
    delay = _until(job, (error.retry_after or 0.0) if error else 0.0, at.now)
    return unchanged(job)._replace(delay=delay, crashes=0, asked=error is None)


def _until(job: Job, delay: float, now: float) -> float:
    """The delay, cut so that the last poll is at the deadline."""
    return max(0.0, min(delay, job.deadline_at - now))


def _ended(
    job: Job, state: str, error: str = "", *, message: str = "", progress: float | None = None
) -> Decision:
    return Decision(
        state=state,
        handle=job.handle,
        progress=job.progress if progress is None else progress,
        message=message,
        error=storable_text(error, LONGEST_ERROR),
        attempts=job.attempts,
    )


def _expired(job: Job, options: Options, more: str = "") -> Decision:
    sentence = f"the job did not end within {_duration(options.deadline)}{more}"
    return _ended(job, State.EXPIRED, sentence)


def _duration(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit and seconds % unit == 0:
            return f"{seconds / unit:g} {name}"
    return f"{seconds:g} seconds"
