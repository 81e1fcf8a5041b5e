"""The life of a job, which is pure: by table at its edges, and by Hypothesis where a law holds."""

import math
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, Handle, Options, Status
from progrock.broker.lanes import round_delay
from progrock.lease import due_in, lease_of, needs_no_write, resumed
from progrock.lifecycle import (
    FORGOTTEN,
    MOST_CRASHES,
    Decision,
    Moment,
    Standing,
    Step,
    after_cancel,
    after_poll,
    after_start,
    cancelled_in_line,
    intent,
    is_visible,
    knows_of_cancel,
    milestone,
    next_step,
    one_by_one,
    owes_cancel,
    paced,
    put_back,
    standing,
    too_late_to_start,
)
from progrock.milestones import Milestone
from progrock.models import ACTIVE, ENDED
from progrock.storable import Result

NOW = 1_800_000_000.0
OPTIONS = Options(name="render")


@dataclass(kw_only=True)
class Job:
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
    return Moment(NOW, draw, options)


def poll(outcome: Status | BackendError, job: Job | None = None, **about: Any) -> Decision:
    return after_poll(job or Job(), outcome, moment(**about))


def start(
    outcome: str | BackendError, job: Job | None = None, *, repeated: bool = False, **about: Any
) -> Decision:
    return after_start(job or waiting("starting"), outcome, moment(**about), repeated=repeated)


def cancel(outcome: Status | BackendError | None, job: Job | None = None) -> Decision:
    return after_cancel(job or Job(cancel_requested=True), outcome, moment())


# What a task means


@pytest.mark.parametrize(
    ("job", "behind", "again", "means"),
    [
        (None, 0, True, Standing.STALE),
        (Job(), 0, False, Standing.VALID),
        (Job(), 0, True, Standing.VALID),
        (Job(), 1, False, Standing.STALE),
        (Job(), 1, True, Standing.RESUME),
        (Job(), 2, True, Standing.STALE),
        (Job(), -1, True, Standing.STALE),
        (waiting("queued"), 1, True, Standing.RESUME),
        (waiting("starting"), 0, False, Standing.VALID),
        (waiting("starting"), 1, True, Standing.STALE),  # only a sweep brings back an intent
        (Job(state="succeeded", owed=True), 1, True, Standing.OWED),
        (Job(state="succeeded", owed=True), 1, False, Standing.STALE),
        (Job(state="succeeded", owed=True), 0, True, Standing.STALE),
        (Job(state="succeeded", owed=True), 2, True, Standing.STALE),
        (Job(state="succeeded"), 1, True, Standing.STALE),  # it was told
        (waiting("cancelled", owed=True), 1, False, Standing.OWED),  # cancelled in the line
        (waiting("cancelled"), 1, False, Standing.STALE),
        (Job(state="cancelled", owed=True), 1, False, Standing.STALE),  # a cancel's second task
        (Job(state="cancelled", owed=True), 1, True, Standing.OWED),
    ],
)
def test_what_a_task_means_follows_from_its_turn_and_whether_it_came_before(
    job: Job | None, behind: int, again: bool, means: Standing
) -> None:
    turn = 3 if job is None else job.turn - behind
    assert standing(job, turn, again=again) is means


def test_only_a_job_without_a_handle_was_cancelled_in_line() -> None:
    assert cancelled_in_line(waiting("cancelled"))
    assert not cancelled_in_line(Job(state="cancelled"))
    assert not cancelled_in_line(waiting("queued", cancel_requested=True))


def test_a_message_that_was_delivered_twice_before_is_worked_one_by_one() -> None:
    assert [one_by_one(deliveries) for deliveries in range(4)] == [False, False, True, True]


# What to do next

CANCELS = Options(name="render", cancels=True)
ONCE = Options(name="once", repeat=False)
GIVEN_UP = "given up: %d workers crashed while they handled this job"
UNCONFIRMED = "the deadline passed before the backend had confirmed the job"
UNKNOWN = "outcome unknown: the start may or may not have arrived"


@pytest.mark.parametrize(
    ("job", "options", "step"),
    [
        (Job(), OPTIONS, Step.POLL),
        (Job(deadline_at=NOW - 1), OPTIONS, Step.POLL),  # the backend's word may come late
        (Job(cancel_requested=True), CANCELS, Step.CANCEL),
        (waiting("queued"), OPTIONS, Step.START),
        (waiting("queued"), ONCE, Step.START),
        (waiting("starting"), OPTIONS, Step.START),
        (waiting("starting", sweeps=1), OPTIONS, Step.START),
        (waiting("starting", cancel_requested=True), OPTIONS, Step.START),  # for its handle
        (waiting("starting", sweeps=1, crashes=MOST_CRASHES - 2), OPTIONS, Step.START),
        (waiting("queued", sweeps=3, crashes=MOST_CRASHES - 1), OPTIONS, Step.START),
    ],
)
def test_what_the_backend_is_asked_for_next(job: Job, options: Options, step: Step) -> None:
    assert next_step(job, now=NOW, options=options) is step


@pytest.mark.parametrize(
    ("job", "options", "state", "error"),
    [
        (Job(crashes=5), OPTIONS, "failed", GIVEN_UP % 5),
        (Job(crashes=5, cancel_requested=True), CANCELS, "failed", GIVEN_UP % 5),
        (waiting("queued", crashes=6), OPTIONS, "failed", GIVEN_UP % 6),
        (waiting("starting", crashes=4, sweeps=1), OPTIONS, "failed", GIVEN_UP % 5),
        (Job(cancel_requested=True), OPTIONS, "cancelled", ""),  # the backend takes no cancel
        (waiting("queued", cancel_requested=True), CANCELS, "cancelled", ""),
        (waiting("queued", cancel_requested=True, deadline_at=NOW), CANCELS, "cancelled", ""),
        (waiting("queued", deadline_at=NOW), OPTIONS, "expired", UNCONFIRMED),
        (waiting("starting", deadline_at=NOW - 1), ONCE, "expired", UNCONFIRMED),
        (waiting("starting"), ONCE, "failed", UNKNOWN),
    ],
)  # fmt: skip
def test_which_jobs_end_without_asking_the_backend(
    job: Job, options: Options, state: str, error: str
) -> None:
    decision = next_step(job, now=NOW, options=options)
    assert isinstance(decision, Decision)
    assert (decision.state, decision.error, decision.delay) == (state, error, None)
    assert (decision.handle, decision.progress) == (job.handle, job.progress)


def test_an_intent_keeps_the_job_as_it_is_and_counts_the_crash_of_a_swept_one() -> None:
    job = waiting("queued", attempts=2, crashes=1, message="retrying")
    options = Options(name="render", timeout=7.0)
    assert intent(job, options=options) == Decision(
        state="starting", handle="", progress=None, message="retrying", attempts=2, crashes=1,
        delay=14.0, opens_intent=True,
    )  # fmt: skip
    assert intent(waiting("starting", sweeps=2, crashes=1), options=options).crashes == 2


def test_a_start_is_not_sent_later_than_its_timeout_after_the_intent() -> None:
    assert not too_late_to_start(5.0, Options(name="r", timeout=5.0))
    assert too_late_to_start(5.1, Options(name="r", timeout=5.0))


@pytest.mark.parametrize(("repeated", "state"), [(False, "queued"), (True, "starting")])
def test_a_start_that_was_not_sent_comes_again_at_once(repeated: bool, state: str) -> None:
    decision = put_back(waiting("starting", attempts=2), repeated=repeated)
    assert (decision.state, decision.delay, decision.attempts) == (state, 0.0, 2)


# What a decision does to a job


@pytest.mark.parametrize(
    ("changes", "visible"),
    [
        ({}, False),
        ({"attempts": 3, "crashes": 1}, False),
        ({"state": "starting"}, True),
        ({"handle": "h2"}, True),
        ({"progress": 41.0}, True),
        ({"progress": None}, True),
        ({"message": "Encoding"}, True),
        ({"delay": None}, True),
    ],
)
def test_only_what_a_browser_sees_is_visible(changes: dict[str, Any], visible: bool) -> None:
    decision = Decision(state="running", handle="h1", progress=40.0, message="Rendering", delay=1.0)
    assert is_visible(Job(), decision._replace(**changes)) is visible


@pytest.mark.parametrize(
    ("job", "decision", "found"),
    [
        (waiting("queued"), intent(waiting("queued"), options=OPTIONS), None),
        (waiting("starting"), start("h1"), Milestone.STARTED),
        (waiting("starting"), put_back(waiting("starting"), repeated=False), None),
        (waiting("starting"), start(BackendError("no connection", sent=False)), Milestone.REFUSED),
        (Job(), poll(Status(state="running", progress=41.0)), None),
        (Job(), poll(Status(state="running", progress=40.0, message="Rendering")), None),
        (Job(), poll(BackendError("the backend answered 503")), Milestone.REFUSED),
        (Job(attempts=1), poll(BackendError("no answer"), Job(attempts=1)), None),
        (Job(attempts=1), poll(BackendError("a pause", asked=False), Job(attempts=1)), None),
        (Job(), cancel(Status(state="running", cancelling=True)), Milestone.CANCEL_TAKEN),
        (Job(cancel_taken=True), poll(Status(state="running"), Job(cancel_taken=True)), None),
        (Job(), cancel(None), Milestone.ENDED),
        (Job(), poll(Status(state="succeeded")), Milestone.ENDED),
        (waiting("starting"), start(BackendError("no", final=True)), Milestone.ENDED),
    ],
)
def test_which_step_is_a_milestone(job: Job, decision: Decision, found: Milestone | None) -> None:
    assert milestone(job, decision) is found
    assert found is None or is_visible(job, decision)


@pytest.mark.parametrize(
    ("job", "knows"),
    [
        (Job(), False),  # a cancel that comes meanwhile makes the next step due now
        (Job(cancel_requested=True), True),
        (waiting("starting", cancel_requested=True), False),  # the handle has come: cancel now
    ],
)
def test_which_step_has_taken_account_of_a_cancel(job: Job, knows: bool) -> None:
    assert knows_of_cancel(job, poll(Status(state="running"), job)) is knows
    assert knows_of_cancel(job, intent(job, options=OPTIONS)), "the step after the start does"


def test_the_backend_of_an_expired_job_is_told_once_to_cancel_where_it_can() -> None:
    assert owes_cancel(Job(state="expired"), CANCELS)
    assert not owes_cancel(Job(state="expired"), OPTIONS)
    assert not owes_cancel(waiting("expired"), CANCELS)
    for state in {*ACTIVE, *ENDED} - {"expired"}:
        assert not owes_cancel(Job(state=state), CANCELS)


# What an answer means


def test_a_running_job_is_looked_at_again_after_the_interval() -> None:
    decision = poll(
        Status(state="running", progress=42.0, message="Placing lights"), Job(attempts=3)
    )
    assert decision == Decision(
        state="running", handle="h1", progress=42.0, message="Placing lights", attempts=0, delay=1.0
    )


RARELY = Options(name="render", interval=2.0, unwatched=30.0)


@pytest.mark.parametrize(
    ("about", "status", "delay", "soon", "free"),
    [
        ({"watched": True}, Status(state="running"), 2.0, 2.0, 0.0),
        ({"watched": False}, Status(state="running"), 30.0, 2.0, 0.0),
        ({"watched": False}, Status(state="running", retry_after=9.5), 30.0, 9.5, 9.5),
        ({"watched": False}, Status(state="running", retry_after=77.5), 77.5, 77.5, 77.5),
        ({"watched": False, "cancel_requested": True}, Status(state="running"), 2.0, 2.0, 0.0),
        ({"watched": False, "deadline_at": NOW + 20}, Status(state="running"), 20.0, 2.0, 0.0),
        ({"watched": False}, Status(state="succeeded"), None, None, 0.0),
    ],
)
def test_a_job_that_nobody_watches_is_looked_at_again_after_unwatched_seconds(
    about: dict[str, Any],
    status: Status,
    delay: float | None,
    soon: float | None,
    free: float,
) -> None:
    job = Job(**about)
    decision = paced(job, after_poll(job, status, moment(RARELY)), RARELY, NOW)
    assert (decision.delay, decision.soon, decision.free) == (delay, soon, free)


@given(st.integers(0, 40), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_backend_that_fails_is_not_asked_more_often_than_one_that_answers(
    attempts: int, draw: float, watched: bool
) -> None:
    job = Job(attempts=attempts, watched=watched)
    failed = after_poll(job, BackendError("no answer"), moment(RARELY, draw))
    decision = paced(job, failed, RARELY, NOW)
    assert decision.soon == failed.delay is not None
    assert decision.delay == (failed.delay if watched else max(30.0, failed.delay))


def test_a_look_that_could_not_be_made_is_not_put_off_for_want_of_people() -> None:
    job = Job(watched=False)
    full = BackendError("the backend's rate is used up", asked=False, retry_after=0.7)
    decision = paced(job, after_poll(job, full, moment(RARELY)), RARELY, NOW)
    assert (decision.delay, decision.soon, decision.free) == (0.7, 0.7, 0.7)


def test_who_watches_matters_to_a_resumed_job_as_it_did_before() -> None:
    job = Job(watched=False, due_at=NOW + 25)
    decision = resumed(job, RARELY, NOW)
    assert (decision.delay, decision.soon, decision.free) == (25.0, 2.0, None)
    assert paced(job, decision, RARELY, NOW) is decision
    queued = waiting("queued", due_at=NOW + 25)
    assert (resumed(queued, RARELY, NOW).soon, resumed(job, OPTIONS, NOW).soon) == (None, None)


@pytest.mark.parametrize(
    ("about", "delay"),
    [
        ({"due_at": NOW + 10}, 2.0),  # of a lease only the end is known
        ({"due_at": NOW + 0.5}, 0.5),
        ({"due_at": NOW - 3}, 0.0),
        ({"due_at": NOW + 19.1}, 2.0),  # the longest that a lease can be
        ({"due_at": NOW + 30}, 30.0),  # so this is a pause that the backend wants
        ({"due_at": NOW + 10, "attempts": 1}, 10.0),  # and so is this
        ({"due_at": NOW + 10, "watched": False}, 10.0),
        ({"due_at": NOW + 10, "cancel_requested": True}, 10.0),
        ({"due_at": NOW + 10, "state": "queued"}, 10.0),
    ],
)
def test_a_resumed_job_is_looked_at_when_it_would_have_been(
    about: dict[str, Any], delay: float
) -> None:
    job = Job(**about)
    options = Options(name="render", interval=2.0, lease=16.0)
    decision = resumed(job, options, NOW)
    assert decision.delay == pytest.approx(delay)
    assert not is_visible(job, decision)
    assert (decision.attempts, decision.crashes) == (job.attempts, job.crashes)


def test_a_resumed_job_without_a_lease_keeps_its_wait() -> None:
    options = Options(name="render", interval=2.0, lease=0.0)
    assert resumed(Job(due_at=NOW + 7), options, NOW).delay == 7.0


# The lease


def test_a_lease_is_drawn_around_its_mean() -> None:
    options = Options(name="render", lease=100.0)
    assert [lease_of(options, draw) for draw in (0.0, 0.5)] == [80.0, 100.0]
    assert lease_of(options, 1.0) == pytest.approx(120.0)
    assert lease_of(Options(name="render", lease=0.0), 0.9) == 0.0


def nothing_new(job: Job, **changes: Any) -> Decision:
    """A look that finds of the job what its row says."""
    values = {"state": job.state, "handle": job.handle, "progress": job.progress}
    return Decision(**values | {"message": job.message, "delay": 1.0} | changes)


@pytest.mark.parametrize(
    ("about", "changes", "due"),
    [
        ({}, {}, 16.0),
        ({"state": "starting"}, {"state": "running"}, 16.0),
        ({}, {"delay": None}, None),  # its end
        ({}, {"delay": 20.0}, 20.0),  # a pause that is longer than a lease
        ({}, {"delay": 16.0}, 16.0),
        ({}, {"attempts": 1}, 1.0),
        ({"attempts": 2}, {}, 16.0),  # it works again
        ({}, {"state": "queued"}, 1.0),
        ({}, {"state": "starting", "opens_intent": True}, 1.0),
        ({"cancel_requested": True}, {}, 1.0),
        ({}, {"soon": 1.0}, 16.0),  # somebody watches
        ({}, {"delay": 9.0, "soon": 1.0}, 9.0),  # nobody does
        ({"due_at": NOW + 5}, {}, 5.0),  # the lease that it has lasts until the next look
        ({"due_at": NOW + 1}, {}, 1.0),
        ({"due_at": NOW + 0.9}, {}, 16.0),  # and this one does not
        ({"due_at": NOW + 25}, {}, 16.0),  # this is no lease
        ({"due_at": NOW + 5, "attempts": 1}, {}, 16.0),
        ({"due_at": NOW + 5, "state": "starting"}, {"state": "running"}, 16.0),
    ],
)
def test_a_running_job_is_due_when_its_lease_ends(
    about: dict[str, Any], changes: dict[str, Any], due: float | None
) -> None:
    job = Job(**about)
    assert due_in(job, nothing_new(job, **changes), 16.0, NOW) == due


@given(st.floats(0, 100), st.floats(0, 100), st.floats(-50, 200))
def test_a_row_is_never_due_before_the_next_look(delay: float, length: float, left: float) -> None:
    job = Job(due_at=NOW + left)
    due = due_in(job, nothing_new(job, delay=delay), length, NOW)
    assert due is not None
    assert due >= delay - 1e-6


def test_without_a_lease_a_row_is_due_with_its_next_look() -> None:
    assert due_in(Job(), nothing_new(Job()), 0.0, NOW) == 1.0


@pytest.mark.parametrize(
    ("about", "changes", "free"),
    [
        ({}, {}, True),
        ({"due_at": NOW + 1}, {}, True),  # the next look is just within the lease
        ({"due_at": NOW + 0.999}, {}, False),
        ({"due_at": NOW - 5}, {}, False),
        ({}, {"delay": 20.0}, False),  # a long Retry-After
        ({}, {"delay": 5.0}, True),
        ({}, {"progress": 41.0}, False),
        ({}, {"progress": None}, False),
        ({}, {"message": "Placing lights"}, False),
        ({}, {"handle": "h2"}, False),
        ({}, {"missing_at": NOW}, False),
        ({"missing_at": NOW - 5}, {}, False),
        ({}, {"attempts": 1}, False),
        ({"attempts": 1}, {"attempts": 1}, False),
        ({"attempts": 1}, {}, False),
        ({"crashes": 1}, {}, False),
        ({"crashes": 1}, {"crashes": 1}, False),
        ({"sweeps": 1}, {}, False),
        ({"cancel_requested": True}, {}, False),
        ({"cancel_requested": True, "cancel_taken": True}, {"cancel_taken": True}, False),
        ({}, {"delay": None, "state": "succeeded"}, False),
        ({"state": "queued"}, {}, False),
        ({"state": "starting"}, {}, False),
        ({"state": "starting"}, {"state": "running"}, False),
        ({}, {"soon": 1.0}, True),
        ({}, {"delay": 9.0, "soon": 1.0}, False),  # nobody watches
    ],
)
def test_a_look_needs_no_write_only_where_nothing_is_new(
    about: dict[str, Any], changes: dict[str, Any], free: bool
) -> None:
    job = Job(**{"due_at": NOW + 10} | about)
    assert needs_no_write(job, nothing_new(job, **changes), NOW) is free


@given(st.floats(0, 100), st.floats(-100, 100))
def test_no_look_leads_behind_the_end_of_its_lease(delay: float, left: float) -> None:
    """Else its task would come after the row is due, and a sweep would take the job for lost."""
    job = Job(due_at=NOW + left)
    assert needs_no_write(job, nothing_new(job, delay=delay), NOW) is (NOW + delay <= NOW + left)


# Who watches


def test_a_start_and_the_first_look_after_it_wait_for_nobody() -> None:
    queued = waiting("queued", watched=False)
    opened = intent(queued, options=RARELY)
    assert paced(queued, opened, RARELY, NOW) == opened
    starting = waiting("starting", watched=False)
    begun = paced(starting, after_start(starting, "h1", moment(RARELY)), RARELY, NOW)
    assert (begun.delay, begun.soon) == (1.0, 1.0)


def test_without_the_key_nobody_is_missed() -> None:
    job = Job(watched=False)
    decision = after_poll(job, Status(state="running"), moment())
    assert paced(job, decision, OPTIONS, NOW) is decision


@pytest.mark.parametrize(
    ("interval", "retry_after", "delay"),
    [
        (1.0, None, 1.0),
        (1.0, 0.3, 1.0),
        (1.0, 17.3, 17.3),
        (1.7, None, 1.7),
        (1.0, 1e9, 3600.0),
        (1.0, math.nan, 1.0),
    ],
)
def test_retry_after_wins_when_it_is_longer_and_is_kept_exactly(
    interval: float, retry_after: float | None, delay: float
) -> None:
    options = Options(name="render", interval=interval)
    assert poll(Status(state="running", retry_after=retry_after), options=options).delay == delay


def test_the_last_look_is_at_the_deadline_and_after_it_the_job_expires() -> None:
    assert poll(Status(state="running"), Job(deadline_at=NOW + 0.4)).delay == pytest.approx(0.4)
    expired = poll(Status(state="running", progress=99), Job(deadline_at=NOW))
    assert (expired.state, expired.delay) == ("expired", None)
    assert expired.error == "the job did not end within 60 minutes"
    assert expired.progress == 40.0


def test_an_error_at_the_deadline_expires_the_job_and_says_what_was_last_wrong() -> None:
    expired = poll(BackendError("the backend answered 503"), Job(deadline_at=NOW - 1))
    assert expired.state == "expired"
    assert expired.error.endswith("; at last the backend answered 503")


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_the_backends_last_word_counts_even_when_it_comes_after_the_deadline(state: Any) -> None:
    decision = poll(Status(state=state), Job(deadline_at=NOW - 9))
    assert (decision.state, decision.delay) == (state, None)


def test_a_success_ends_at_100_with_its_result() -> None:
    decision = poll(Status(state="succeeded", progress=99.0, result={"file": "a.mp4"}))
    assert (decision.state, decision.progress, decision.error) == ("succeeded", 100.0, "")
    assert decision.result == Result({"file": "a.mp4"}, len(b'{"file":"a.mp4"}'))


@pytest.mark.parametrize("result", [0, False, "", [], None])
def test_an_empty_result_is_a_result(result: object) -> None:
    assert poll(Status(state="succeeded", result=result)).result.value == result


def test_a_failure_carries_the_backends_error_and_the_progress_known() -> None:
    assert poll(Status(state="failed", error="out of memory")).error == "out of memory"
    assert poll(Status(state="failed")).error == "the backend says that the job failed"
    assert poll(Status(state="failed")).progress == 40.0
    assert poll(Status(state="failed", progress=55)).progress == 55.0


def test_a_cancellation_that_nobody_asked_for_is_explained() -> None:
    assert poll(Status(state="cancelled")).error == "cancelled at the backend"
    assert poll(Status(state="cancelled"), Job(cancel_requested=True)).error == ""


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, None),
        (math.nan, None),
        (math.inf, None),
        (-3, 0.0),
        (250, 100.0),
        (12.5, 12.5),
        (True, None),
    ],
)
def test_progress_is_a_finite_number_from_0_to_100_or_unknown(
    progress: Any, shown: float | None
) -> None:
    assert poll(Status(state="running", progress=progress)).progress == shown


def test_progress_that_jumps_back_is_shown_as_the_backend_says() -> None:
    assert poll(Status(state="running", progress=10.0), Job(progress=80.0)).progress == 10.0


def test_an_error_keeps_the_job_running_and_says_so_at_once() -> None:
    decision = poll(BackendError("connection refused", sent=False))
    assert decision.message == "asking again: connection refused"
    assert (decision.state, decision.progress, decision.attempts, decision.delay) == (
        "running",
        40.0,
        1,
        1.0,
    )


def test_a_recovery_takes_the_backends_message_or_none() -> None:
    recovered = poll(Status(state="running"), Job(message="asking again: …", attempts=4))
    assert (recovered.message, recovered.attempts) == ("", 0)


def test_backoff_grows_with_the_attempts_up_to_a_minute() -> None:
    delays = [poll(BackendError("x"), Job(attempts=n), draw=0.999).delay for n in range(12)]
    assert delays[:4] == [
        2.0,
        4.0,
        10.0,
        20.0,
    ]  # 2, 4, 8 and 16 seconds, rounded up to what two lanes hold
    assert delays[-1] == 60.0
    slow = Options(name="slow", interval=300.0)
    assert poll(BackendError("x"), draw=0.999, options=slow).delay == 300.0


def test_retry_after_on_an_error_wins_when_it_is_longer() -> None:
    assert poll(BackendError("the backend answered 429", retry_after=33.3)).delay == 33.3
    assert poll(
        BackendError("the backend answered 429", retry_after=0.2), draw=0.9
    ).delay == round_delay(1.8)


@given(
    attempts=st.integers(0, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
    interval=st.floats(0.1, 600),
    left=st.floats(0.001, 1e6),
    wait=st.none() | st.floats(0, 1e7),
)
def test_no_delay_is_hasty_or_beyond_the_deadline(
    attempts: int, draw: float, interval: float, left: float, wait: float | None
) -> None:
    job, options = (
        Job(attempts=attempts, deadline_at=NOW + left),
        Options(name="render", interval=interval),
    )
    delay = poll(BackendError("x", retry_after=wait), job, draw=draw, options=options).delay
    left = job.deadline_at - NOW
    assert delay is not None
    assert min(left, max(0.1, wait or 0)) <= delay <= left
    assert delay in (left, wait) or delay == round_delay(delay)


GONE = BackendError("the backend answered 404", status=404, forgotten=True)
NO_LONGER = "the backend no longer knows this job"
LAGGING = Options(name="render", missing_for=30.0)


@pytest.mark.parametrize(
    ("missing", "state", "since", "within"),
    [
        (None, "running", NOW, 30.0),  # the first such answer
        (NOW, "running", NOW, 30.0),
        (NOW - 0.4, "running", NOW - 0.4, 29.6),
        (NOW - 29.0, "running", NOW - 29.0, 1.0),  # the last look is when the time is over
        (NOW - 29.99, "running", NOW - 29.99, 0.1),
        (NOW + 60, "running", NOW + 60, 90.0),  # the database's clock was set back
        (NOW - 30.0, "failed", None, None),
        (NOW - 9999, "failed", None, None),
    ],
)
def test_a_job_that_the_backend_does_not_know_fails_when_it_has_been_so_for_a_while(
    missing: float | None, state: str, since: float | None, within: float | None
) -> None:
    for attempts in (0, 3, 50):  # it is a span, and not a number of answers
        decision = poll(GONE, Job(missing_at=missing, attempts=attempts), options=LAGGING)
        assert (decision.state, decision.missing_at) == (state, since)
        if within is None:
            assert (decision.error, decision.delay) == (NO_LONGER, None)
        else:
            assert decision.delay is not None
            assert 0.1 <= decision.delay <= within + 1e-6
            assert (decision.message, decision.handle) == (FORGOTTEN, "h1")


def test_how_long_a_job_may_be_missing_is_the_tables_to_say() -> None:
    at_once = Options(name="render", missing_for=0.0)
    assert poll(GONE, options=at_once).state == "failed"
    patient = Options(name="render", missing_for=600.0)
    assert poll(GONE, Job(missing_at=NOW - 500), options=patient).state == "running"


@pytest.mark.parametrize(
    ("answer", "since"),
    [
        (Status(state="running"), None),
        (BackendError("the backend answered 503", status=503), None),
        (BackendError("the backend answered 404 with an HTML page", status=404), None),
        (BackendError("connection refused", sent=False), NOW - 20),  # no answer says nothing
        (BackendError("the backend did not answer within 5 s"), NOW - 20),
    ],
)
def test_another_answer_in_between_begins_the_time_anew(
    answer: Status | BackendError, since: float | None
) -> None:
    job = Job(missing_at=NOW - 20, message=FORGOTTEN)
    decision = poll(answer, job, options=LAGGING)
    assert (decision.state, decision.missing_at) == ("running", since)
    assert is_visible(job, decision)
    refused = cancel(Status(state="running"), Job(missing_at=NOW - 20, cancel_requested=True))
    assert refused.missing_at is None


def test_a_missing_job_waits_as_long_as_its_backend_asks_and_ends_at_its_deadline() -> None:
    busy = BackendError("the backend answered 404", status=404, forgotten=True, retry_after=50.0)
    assert poll(busy, Job(missing_at=NOW - 20), options=LAGGING).delay == 50.0
    assert poll(GONE, Job(missing_at=NOW - 20, deadline_at=NOW), options=LAGGING).state == "expired"


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize(("repeated", "again"), [(False, "queued"), (True, "starting")])
def test_a_start_that_is_refused_for_a_while_is_asked_again(
    status: int, repeated: bool, again: str
) -> None:
    no = BackendError(f"the backend answered {status}", status=status, final=True)
    first = start(no, repeated=repeated, options=LAGGING)
    assert (first.state, first.missing_at, first.attempts) == (again, NOW, 1)
    assert first.message == f"the start was refused, trying again (the backend answered {status})"
    assert first.delay is not None
    later = start(no, waiting("starting", missing_at=NOW - 29), options=LAGGING)
    assert (later.state, later.missing_at) == ("queued", NOW - 29)
    over = start(no, waiting("starting", missing_at=NOW - 30), options=LAGGING)
    assert (over.state, over.error) == ("failed", f"the backend answered {status}")
    once = Options(name="once", repeat=False)
    assert start(no, options=once).state == "queued", "a start that was refused did not happen"
    started = start("h1", waiting("starting", missing_at=NOW - 29))
    assert (started.state, started.missing_at) == ("running", None)


@pytest.mark.parametrize("status", [None, 400, 409, 410, 422])
def test_another_refusal_of_a_start_is_final(status: int | None) -> None:
    no = BackendError("no", status=status, final=True)
    assert start(no, options=LAGGING).state == "failed"


def test_an_intent_and_a_start_that_was_not_sent_keep_since_when_it_was_refused() -> None:
    job = waiting("queued", missing_at=NOW - 5)
    assert intent(job, options=OPTIONS).missing_at == NOW - 5
    assert put_back(waiting("starting", missing_at=NOW - 5), repeated=False).missing_at == NOW - 5


def test_a_final_error_fails_the_job_at_once() -> None:
    assert poll(BackendError("quota used up", final=True)).error == "quota used up"
    assert poll(BackendError("quota used up", final=True)).state == "failed"


def test_a_started_job_is_first_looked_at_after_a_second_at_most() -> None:
    assert start("h9") == Decision(state="running", handle="h9", progress=None, delay=1.0)
    assert start("h9", options=Options(name="r", interval=0.3)).delay == 0.3
    assert start("h9", options=Options(name="r", interval=30.0)).delay == 1.0
    assert start(Handle("h9", 12.5)).delay == 12.5
    assert type(start(Handle("h9", 12.5)).handle) is str


@pytest.mark.parametrize("handle", ["", ".", "..", "x" * 4097, "a\0b", "a\nb"])
def test_a_handle_that_cannot_be_used_is_no_start(handle: str) -> None:
    told = "asking again: the backend answered without a usable handle for the job"
    assert start(handle).message == told
    assert start(handle).state == "starting"
    assert start(handle, options=Options(name="r", repeat=False)).state == "failed"


@pytest.mark.parametrize(
    ("error", "repeat", "state", "text"),
    [
        (
            BackendError("the backend answered 503"),
            True,
            "starting",
            "asking again: the backend answered 503",
        ),
        (
            BackendError("connection refused", sent=False),
            False,
            "queued",
            "asking again: connection refused",
        ),
        (
            BackendError("the backend answered 503"),
            False,
            "failed",
            "outcome unknown: the backend answered 503",
        ),
        (
            BackendError("the backend answered 422: bad", final=True),
            True,
            "failed",
            "the backend answered 422: bad",
        ),
    ],
)
def test_a_failed_start_is_repeated_where_it_may_be_and_stays_open_where_it_may_have_arrived(
    error: BackendError, repeat: bool, state: str, text: str
) -> None:
    decision = start(error, options=Options(name="r", repeat=repeat))
    assert decision.state == state
    assert (decision.error if state == "failed" else decision.message).endswith(text)
    assert (decision.delay is None) == (state == "failed")


def test_a_repeated_start_stays_starting_since_the_earlier_one_may_have_arrived() -> None:
    refused = BackendError("connection refused", sent=False)
    assert start(refused).state == "queued"
    assert start(refused, repeated=True).state == "starting"
    final = BackendError("the backend answered 422", final=True)
    assert start(final, repeated=True).state == "failed"


def test_a_start_at_the_deadline_expires_but_keeps_its_handle() -> None:
    decision = start("h9", waiting("starting", deadline_at=NOW))
    assert (decision.state, decision.handle) == ("expired", "h9")
    assert start(BackendError("x"), waiting("starting", deadline_at=NOW)).state == "expired"


def test_a_cancelled_job_ends_and_keeps_its_progress() -> None:
    assert cancel(None) == Decision(state="cancelled", handle="h1", progress=40.0)


def test_a_cancel_that_did_not_get_through_is_tried_again() -> None:
    decision = cancel(BackendError("connection refused", sent=False))
    assert (decision.state, decision.attempts, decision.delay) == ("running", 1, 1.0)
    assert decision.message == "cancelling, asking again: connection refused"


def test_a_refused_cancel_shows_where_the_job_really_stands() -> None:
    assert cancel(Status(state="succeeded", result=7)).state == "succeeded"
    running = cancel(Status(state="running", progress=77.0))
    assert (running.state, running.progress, running.delay) == ("running", 77.0, 1.0)
    assert running.message == "trying again, because the backend refused to cancel the job"


def test_nothing_that_postgresql_refuses_gets_into_the_ledger() -> None:
    running = poll(Status(state="running", message="a\0b" + "c" * 1000))
    assert running.message == "ab" + "c" * 498
    assert len(poll(Status(state="failed", error="e" * 9000)).error) == 2000
    tricky = {"nul": "a\0\0b", "not nul": "a\\u0000b", "\0key": ["\\\0", "\\\\u0000"]}
    kept = {"nul": "ab", "not nul": "a\\u0000b", "key": ["\\", "\\\\u0000"]}
    assert poll(Status(state="succeeded", result=tricky)).result.value == kept
    assert "\0" not in poll(BackendError("a\0b")).message


@given(
    st.recursive(
        st.text("\0\\u0a\"'"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("\0\\u0"), inner),
    )
)
def test_any_result_loses_its_nuls_and_nothing_else(result: object) -> None:
    def without(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "")
        if isinstance(value, list):
            return [without(item) for item in value]
        return {without(key): without(item) for key, item in value.items()}

    kept = poll(Status(state="succeeded", result=result)).result
    assert kept == Result(without(result), len(orjson.dumps(without(result))))


def test_text_that_no_database_takes_is_mended() -> None:
    odd: Any = Status(state="running", message="half a pair: \ud800")
    assert poll(odd).message == "half a pair: ?"
    number: Any = Status(state="failed", error=7)
    assert poll(number).error == "7"


def test_whatever_depth_of_a_result_is_kept_the_ledger_can_write() -> None:
    for depth in range(200, 300):
        result: Any = 1
        for _ in range(depth):
            result = [result]
        decision = poll(Status(state="succeeded", result=result))
        assert decision.state in ("succeeded", "failed")
        orjson.dumps([[decision.result.value]])
    assert decision.state == "failed", "JSON has a limit that this reaches"


def test_a_result_that_json_cannot_hold_fails_the_job_rather_than_the_batch() -> None:
    decision = poll(Status(state="succeeded", result=object()))
    assert decision.state == "failed"
    assert "its result cannot be kept" in decision.error
    assert orjson.dumps(decision.error)
