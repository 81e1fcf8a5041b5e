"""What the log tells of jobs and of their backends."""

import logging
from typing import Any

import pytest

from progrock import journal
from progrock.backends import BackendError, Options, Status
from progrock.consumers import backend_log
from progrock.consumers.backend_log import BackendLog
from progrock.consumers.calls import Calls
from progrock.ledger import Committed, Row
from progrock.milestones import Milestone
from tests.jobs import row
from tests.logs import own


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="progrock")


def step(milestone: Milestone | None = None, **changes: Any) -> Committed:
    """A job after a step."""
    return Committed(row(**changes), None, True, milestone)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines since the last look."""
    lines = [f"{each.levelname} {each.getMessage()}" for each in own(caplog)]
    caplog.clear()
    return lines


def test_a_start_and_an_end_are_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    started = step(Milestone.STARTED, state="running", handle="h1")
    failed = step(
        Milestone.ENDED, state="failed", error="the backend answered 400:\nno\n such film"
    )
    done = step(Milestone.ENDED, state="succeeded")
    journal.stepped([started, failed, done])
    assert said(caplog) == [
        f"INFO job started, job={started.row.id} backend=render",
        "INFO job ended: failed (the backend answered 400: no such film),"
        f" job={failed.row.id} backend=render",
        f"INFO job ended: succeeded, job={done.row.id} backend=render",
    ]


def test_progress_and_polls_without_news_are_no_line(caplog: pytest.LogCaptureFixture) -> None:
    journal.stepped([step(state="running", progress=5.0), step(state="starting")])
    assert said(caplog) == []


def test_a_retry_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    retried = step(Milestone.REFUSED, state="running", message="backend unreachable")
    journal.stepped([retried, step(state="running", attempts=2, message="backend unreachable")])
    assert said(caplog) == [
        f"INFO job is retried: backend unreachable, job={retried.row.id} backend=render"
    ]


def test_a_cancel_is_a_line_when_it_is_asked_for_and_when_the_backend_has_taken_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = row(state="running", cancel_requested=True)
    in_line = row(state="cancelled", cancel_requested=True)
    journal.asked(row())
    journal.asked(asked)
    journal.asked(in_line)
    taken = step(Milestone.CANCEL_TAKEN, state="running")
    journal.stepped([taken])
    assert said(caplog) == [
        f"INFO job's cancel was asked for, job={asked.id} backend=render",
        f"INFO job's cancel was asked for, job={in_line.id} backend=render",
        f"INFO job ended: cancelled, job={in_line.id} backend=render",
        f"INFO job's cancel was taken by the backend, job={taken.row.id} backend=render",
    ]


def test_an_outage_of_thousands_of_jobs_is_one_line_a_step(
    caplog: pytest.LogCaptureFixture,
) -> None:
    many = [step(Milestone.REFUSED, state="running", message="away") for _ in range(100)]
    journal.stepped(many)
    lines = said(caplog)
    assert [line for line in lines if line.startswith("INFO")] == [
        f"INFO 100 jobs are retried: away, the first: job={many[0].row.id} backend=render"
    ]
    assert len(lines) == 101


def test_a_backends_outage_is_told_when_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(backend_log.time, "monotonic", lambda: now)
    state, failure = BackendLog("render"), BackendError("the backend answered 503")
    state.note(None)
    for _ in range(50):
        state.note(failure)
        state.note(None)  # it fails now and then
        now += 1
    assert said(caplog) == [
        "WARNING calls fail and are retried: the backend answered 503, backend=render"
    ]
    now += backend_log.CALM
    state.note(None)
    state.note(None)
    assert said(caplog) == ["INFO the backend answers again, backend=render"]


@pytest.mark.parametrize(
    "no", [BackendError("the backend answered 400", final=True), BackendError("?", forgotten=True)]
)
def test_a_no_to_one_job_is_no_outage(no: BackendError, caplog: pytest.LogCaptureFixture) -> None:
    BackendLog("render").note(no)
    assert said(caplog) == []


class Backend:
    """Answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def poll(self, jobs: Any) -> Any:
        return {job.id: self.answer for job in jobs}

    async def start(self, job: Any) -> Any:
        raise self.answer


@pytest.mark.parametrize("call", ["poll", "start"])
async def test_each_kind_of_call_is_noted(call: str, caplog: pytest.LogCaptureFixture) -> None:
    backend: Any = Backend(BackendError("no connection"))
    calls = Calls(backend, Options(name="render"), lambda: 0.5)

    async def ask(about: Row) -> Any:
        if call == "poll":
            return await calls.poll([about])
        return await calls.start(about, repeated=False)

    await ask(row(state="running", handle="h"))
    await ask(row(state="running", handle="h"))
    assert said(caplog) == ["WARNING calls fail and are retried: no connection, backend=render"]
    backend.answer = Status(state="running")
    await calls.poll([row(state="running", handle="h")])
    assert said(caplog) == [], "not before it was calm for a while"
