"""Rounds by themselves, with a ledger in which every commit wins.

What may die together, and who is told of an end.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from progrock import clock, ledger, lifecycle
from progrock.backends import JobView, Options
from progrock.broker.errors import PublishFailed
from progrock.broker.tasks import Task
from progrock.consumers import calls
from progrock.consumers.receivers import Receivers
from progrock.consumers.rounds import Rounds
from progrock.ledger import Committed, Row
from progrock.lifecycle import MOST_CRASHES, Decision
from tests.jobs import row
from tests.services import PATIENCE


class Database:
    """Rows in memory; every commit wins."""

    def __init__(self, *rows: Row) -> None:
        self.rows = {each.id: each for each in rows}
        self.steps: list[list[tuple[str, str]]] = []  # per commit: job, state
        self.settled: list[str] = []

    async def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if function in (ledger.load, ledger.load_for_looks):
            return {job_id: self.rows[job_id] for job_id in args[0] if job_id in self.rows}
        if function is ledger.settle:
            return self.settled.extend(args[0])
        raise AssertionError(function)

    async def commit(
        self, decided: Sequence[tuple[Row, Decision]], now: float, lease: float
    ) -> list[Committed]:
        self.steps.append([(job.id, decision.state) for job, decision in decided])
        won = []
        for job, decision in decided:
            visible = lifecycle.is_visible(job, decision)
            job.turn, job.state, job.handle = job.turn + 1, decision.state, decision.handle
            job.message, job.error = decision.message, decision.error
            delay = None if decision.opens_intent else decision.delay
            won.append(Committed(job, delay, visible))
        return won


class Backend:
    """Notes which starts are under way together."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.together: list[set[str]] = []
        self.under_way: set[str] = set()

    async def start(self, job: JobView) -> str:
        self.under_way.add(job.id)
        await asyncio.sleep(0)
        self.together.append(set(self.under_way))
        await asyncio.sleep(0)
        self.under_way.discard(job.id)
        return "h1"

    async def poll(self, jobs: Any) -> Any:
        raise NotImplementedError

    async def cancel(self, job: JobView) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Wire:
    """Publisher and channel layer: what is sent."""

    def __init__(self) -> None:
        self.published: list[Task] = []
        self.pushed: list[list[Any]] = []

    async def publish(
        self, backend: str, shard: int, tasks: list[Task], *, delay: float, spread: float = 0.0
    ) -> None:
        self.published += tasks

    async def group_send(self, group: str, message: dict[str, Any]) -> bool:
        self.pushed += message["changes"]
        return True


def part(*rows: Row, behind: int = 0, deliveries: int = 0) -> Any:
    """Due tasks of these jobs, so many turns behind."""
    return SimpleNamespace(
        tasks=[Task(row.id, row.turn - behind, row.due_at) for row in rows], deliveries=deliveries
    )


def rounds(*rows: Row) -> tuple[Rounds, Database, Backend, Wire]:
    options = Options(name="render")
    book, backend, wire = Database(*rows), Backend(options), Wire()
    made: Any = Rounds(
        backend,  # type: ignore[arg-type]
        options,
        database=book,  # type: ignore[arg-type]
        publisher=wire,  # type: ignore[arg-type]
        layer=wire,
        receivers=Receivers(),
        draw=lambda: 0.5,
    )
    return made, book, backend, wire


async def test_a_start_that_may_have_killed_a_worker_is_tried_again_by_itself() -> None:
    suspects = [row(state="starting", sweeps=1, crashes=1) for _ in range(3)]
    swept = [row(state="starting", sweeps=1) for _ in range(3)]
    fresh = [row() for _ in range(3)]
    every = [*suspects, *swept, *fresh]
    made, book, backend, wire = rounds(*every)
    await made.work([part(*every)])
    assert {each.id for each in every} == set().union(*backend.together)
    for suspect in suspects:
        assert [at_once for at_once in backend.together if suspect.id in at_once] == [{suspect.id}]
        assert [step for step in book.steps if suspect.id in dict(step)] == [
            [(suspect.id, "starting")],
            [(suspect.id, "running")],
        ]
    assert max(map(len, backend.together)) == 6, "the others go together"
    assert {task.job_id for task in wire.published} == {each.id for each in every}


async def test_a_start_that_killed_five_workers_is_given_up() -> None:
    deadly = row(state="starting", sweeps=1, crashes=MOST_CRASHES - 1)
    made, book, backend, _ = rounds(deadly)
    await made.work([part(deadly)])
    assert book.steps == [[(deadly.id, "failed")]]
    assert deadly.error == "given up: 5 workers crashed while they handled this job"
    assert backend.together == []


@pytest.mark.parametrize(
    ("state", "handle", "owed", "deliveries", "behind", "told"),
    [
        ("succeeded", "h1", True, 1, 1, True),  # the worker died after the commit
        ("succeeded", "h1", True, 0, 1, False),
        ("succeeded", "h1", False, 1, 1, False),
        ("succeeded", "h1", True, 1, 2, False),
        ("cancelled", "", True, 0, 1, True),  # cancelled in the line, by a web process
        ("cancelled", "h1", True, 0, 1, False),  # the second task of a cancel
    ],
)
async def test_an_end_is_told_again_where_it_may_not_have_been(
    state: str, handle: str, owed: bool, deliveries: int, behind: int, told: bool
) -> None:
    ended = row(state=state, handle=handle, owed=owed)
    made, book, _, wire = rounds(ended)
    await made.work([part(ended, behind=behind, deliveries=deliveries)])
    await made.commits.drain(PATIENCE)
    assert [change[1] for change in wire.pushed] == [ended.id] * told
    assert book.settled == [ended.id] * told
    assert book.steps == []
    assert wire.published == []


async def test_a_publish_that_fails_breaks_off_no_start() -> None:
    polled, fresh = row(state="running", handle="h1"), row()
    made, book, backend, wire = rounds(polled, fresh)
    failed = asyncio.Event()

    async def publish(*args: Any, **options: Any) -> None:
        failed.set()
        raise PublishFailed("RabbitMQ is away")

    async def start(job: JobView) -> str:
        await failed.wait()
        return "h2"

    wire.publish, backend.start = publish, start  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup) as raised:
        await made.work([part(polled, fresh)])
    assert raised.group_contains(PublishFailed)
    assert [(fresh.id, "running")] in book.steps, "the handle is kept"


async def test_a_cancel_that_was_first_is_told_of_by_the_worker_that_lost() -> None:
    late = row(deadline_at=time.time() - 1)
    made, book, _, wire = rounds(late)

    async def lose(decided: Any, now: float, lease: float) -> list[Committed]:
        # a web process has cancelled it meanwhile
        book.rows[late.id] = row(id=late.id, state="cancelled", turn=late.turn + 1, owed=True)
        return []

    book.commit = lose  # type: ignore[method-assign]
    await made.work([part(late)])
    await made.commits.drain(PATIENCE)
    assert [change[1] for change in wire.pushed] == [late.id]


async def test_a_cancel_between_the_two_reads_of_a_start_is_told_as_well() -> None:
    waiting = row()
    made, book, backend, wire = rounds(waiting)
    read = book.__call__

    async def cancelled_meanwhile(function: Any, *args: Any, **options: Any) -> Any:
        answer = await read(function, *args, **options)
        if function is ledger.load_for_looks:
            turn = waiting.turn + 1
            book.rows[waiting.id] = row(id=waiting.id, state="cancelled", turn=turn, owed=True)
        return answer

    made.database = made.commits.database = cancelled_meanwhile  # type: ignore[assignment]
    await made.work([part(waiting)])
    await made.commits.drain(PATIENCE)
    assert backend.together == []
    assert [change[1] for change in wire.pushed] == [waiting.id]
    assert book.settled == [waiting.id]


async def test_a_class_that_fails_at_each_poll_is_one_traceback_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls, "SAY_AGAIN", 3600.0)
    polled = row(state="running", handle="h1")
    made, book, _, _ = rounds(polled)  # this backend has no poll
    for tracebacks in (1, 2):
        for _ in range(5):
            await made.work([part(polled)])
        told = [each for each in caplog.records if each.name == calls.__name__]
        assert [bool(record.exc_info) for record in told] == [True] * tracebacks
        later = SimpleNamespace(now=clock.now, elapsed=lambda: clock.elapsed() + calls.SAY_AGAIN)
        monkeypatch.setattr(calls, "clock", later)
    assert polled.message == "asking again: the backend's class failed: NotImplementedError"
    assert book.steps == [[(polled.id, "running")]] * 10
