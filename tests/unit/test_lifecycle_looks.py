"""When a running job is looked at next, and which looks need no write.

By table at the edges, and by Hypothesis where a law holds.
"""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, Options, Status
from progrock.lease import due_in, lease_of, needs_no_write, resumed
from progrock.lifecycle import (
    Decision,
    after_poll,
    after_start,
    intent,
    is_visible,
    paced,
)
from tests.life import NOW, OPTIONS, Job, moment, poll, waiting


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
def test_no_look_leads_beyond_the_end_of_its_lease(delay: float, left: float) -> None:
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
