"""A worker's patience with its database: migrations, read-only servers, and steps that it refuses.

The sweeper is at work on it as well.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast

import pytest
from django.core.management import call_command
from django.db import connection, connections

from progrock import ledger
from progrock.backends import Options
from progrock.broker.tasks import Task
from progrock.consumers import sweeper as module
from progrock.consumers.sweeper import Sweeper
from progrock.consumers.worker_database import WorkerDatabase
from progrock.models import Job
from tests.ledgers import at, make, step
from tests.services import PATIENCE


@pytest.fixture(autouse=True)
def empty(database: str) -> None:
    """No job is left of the test before."""
    Job.objects.all().delete()


@pytest.fixture
async def worker(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerDatabase]:
    """It has a thread and a connection of its own."""
    monkeypatch.setitem(connections.settings, "default", connections.settings["ledger"])
    worker = WorkerDatabase()
    yield worker
    await worker(connections.close_all)


@pytest.mark.parametrize(("older", "missing"), [("zero", "progrock_job"), ("0001", "due_slot")])
async def test_a_worker_waits_for_a_migration(
    worker: WorkerDatabase, older: str, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its table, and with the table of the release before."""
    migrate, tries = partial(call_command, "migrate", "progrock", verbosity=0), 0

    def sweep() -> list[tuple[str, int]]:
        nonlocal tries
        tries += 1
        return ledger.sweep("render", 0, 1, before=time.time(), grace=10, now=time.time())

    await worker(migrate, older)
    try:
        waiting = asyncio.create_task(worker(sweep))
        async with asyncio.timeout(PATIENCE):
            while tries < 2 and not waiting.done():
                await asyncio.sleep(0.01)
    finally:
        await worker(migrate)
    async with asyncio.timeout(PATIENCE):
        assert await waiting == []
    away, back = [
        record.getMessage()
        for record in caplog.records
        if record.name == "progrock.consumers.outages"
    ]
    assert away.startswith("the ledger is away, rounds wait for it: ")
    assert missing in away
    assert "\n" not in away
    assert back == "the ledger is back"


class Swept:
    """RabbitMQ as a sweeper of one queue sees it; `ids` gets the jobs that are published."""

    def __init__(self, worker: WorkerDatabase) -> None:
        self.worker = worker
        self.ids: asyncio.Queue[str] = asyncio.Queue()
        self.failures: list[Exception] = []

    def watermark(self, queue: str) -> float:
        if self.failures:
            raise self.failures.pop()
        return time.time()

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float, spread: float
    ) -> None:
        for task in tasks:
            self.ids.put_nowait(task.job_id)

    async def tell_ended(self, job_ids: list[str]) -> None:
        raise AssertionError(job_ids)

    async def sweeps(self) -> None:
        """A job that is overdue from now on is swept."""
        lost = await self.worker(make, due_at=at(30))
        async with asyncio.timeout(PATIENCE):
            while await self.ids.get() != lost.id:
                pass


@pytest.fixture
async def swept(worker: WorkerDatabase, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Swept]:
    """A sweeper at work on the real ledger."""
    monkeypatch.setattr(module, "SWEEP", 0.05)
    swept = Swept(worker)
    sweeper = Sweeper(
        [("render", 0)],
        {"render": Options(name="render", shards=1)},
        database=worker,
        publisher=cast(Any, swept),
        watermark=swept.watermark,
        tell_ended=swept.tell_ended,
    )
    sweeping = asyncio.create_task(sweeper.run())
    yield swept
    sweeping.cancel()
    await asyncio.wait([sweeping])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The sweeper's errors."""
    return [
        record.getMessage()
        for record in caplog.records
        if (record.name, record.levelname) == (module.__name__, "ERROR")
    ]


async def test_a_sweep_that_fails_is_said_and_the_next_one_is_made(
    swept: Swept, caplog: pytest.LogCaptureFixture
) -> None:
    swept.failures.append(ValueError("a mistake"))
    await swept.sweeps()
    assert said(caplog) == ["a sweep failed, and the next one tries again"]
    assert "ValueError: a mistake" in caplog.text


async def test_a_worker_leaves_a_connection_on_which_nothing_can_be_written(
    database: str, worker: WorkerDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a failover, where the old primary comes back as a standby."""
    row = await worker(make)

    def read_only() -> None:
        with connection.cursor() as cursor:
            if database == "postgresql":
                cursor.execute("SET default_transaction_read_only = on")
            else:
                cursor.execute("PRAGMA query_only = ON")

    await worker(read_only)
    async with asyncio.timeout(PATIENCE):
        [won] = await worker.commit([step(row)], time.time())
    assert (won.row.turn, worker.away) == (row.turn + 1, False)
    told = [each.getMessage() for each in caplog.records]
    assert [line.partition(":")[0] for line in told if "ledger is" in line] == [
        "the ledger is away, rounds wait for it",
        "the ledger is back",
    ]


async def test_a_step_that_the_database_cannot_hold_fails_its_own_job_alone(
    worker: WorkerDatabase,
) -> None:
    good, bad = [await worker(make) for _ in range(2)]
    refused = step(bad, message=None)  # as a value that no check of ours has foreseen
    won = await worker.commit([step(good), refused], time.time())
    rows = await worker(ledger.load, [good.id, bad.id])
    assert len(won) == 2
    assert (rows[good.id].state, rows[bad.id].state) == ("running", "failed")
    assert rows[bad.id].error.startswith("the database cannot hold what came of this job: ")
