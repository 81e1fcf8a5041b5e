"""What a task means for a job, what to do next, and what a decision does: by table."""

from typing import Any

import pytest

from progrock.backends import BackendError, Options, Status
from progrock.lifecycle import (
    MOST_CRASHES,
    Decision,
    Standing,
    Step,
    cancelled_in_line,
    intent,
    is_visible,
    knows_of_cancel,
    milestone,
    next_step,
    one_by_one,
    owes_cancel,
    put_back,
    standing,
    too_late_to_start,
)
from progrock.milestones import Milestone
from progrock.models import ACTIVE, ENDED
from tests.life import NOW, OPTIONS, Job, cancel, poll, start, waiting

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
