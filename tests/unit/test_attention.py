"""What a web process tells the workers of its audiences, on a database that notes its calls."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from django.db import OperationalError

from progrock import attention, conf
from progrock.backends import Options
from progrock.consumers import attention as module
from progrock.consumers.attention import Attention
from progrock.dispatch import Outbound
from progrock.ledger import Committed
from tests.amqp import until
from tests.jobs import row
from tests.services import PATIENCE

RARELY = {"render": Options(name="render", unwatched=30.0)}


class Database:
    """Notes which audiences were written, call by call; `down`: how many calls fail.

    A call that writes waits until `answers` is set; `asked` is how many have begun.
    """

    def __init__(self) -> None:
        self.written: list[list[str]] = []
        self.hastened: list[Committed] = []
        self.forgotten, self.down, self.asked = 0, 0, 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def __call__(self, function: Callable[..., Any], *args: Sequence[str]) -> Any:
        if self.down:
            self.down -= 1
            raise OperationalError("away")
        if function is attention.forget:
            self.forgotten += 1
            return None
        assert function is attention.watch
        self.asked += 1
        await asyncio.sleep(0)
        await self.answers.wait()
        self.written.append(list(args[0]))
        hastened, self.hastened = self.hastened, []
        return hastened


class Process:
    """The duty of a web process, with the audiences of its open sockets."""

    def __init__(self) -> None:
        self.database = Database()
        self.open: set[str] = set()
        self.sent: list[Outbound] = []
        self.duty = Attention(self.open, self.sent.append)

    def socket(self, *audiences: str) -> None:
        """A socket opens."""
        self.open.update(audiences)
        self.duty.watch(audiences)


@asynccontextmanager
async def begun(patch: pytest.MonkeyPatch, renew: float = 3600.0) -> AsyncIterator[Process]:
    """A web process whose regular writing comes each hour, or after so many seconds."""
    patch.setattr(conf, "backends", lambda: RARELY)
    patch.setattr(module, "RENEW", renew)
    patch.setattr(attention, "GOOD_FOR", 5400.0)
    patch.setattr(module, "RETRY", 0.01)
    process = Process()
    patch.setattr(module, "database", process.database)
    run = asyncio.create_task(process.duty.run())
    await asyncio.sleep(0)
    yield process
    run.cancel()
    await asyncio.wait([run])


@pytest.fixture
async def process(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    async with begun(monkeypatch) as process:
        yield process


async def test_all_audiences_of_a_socket_are_written_and_a_second_socket_writes_nothing(
    process: Process,
) -> None:
    process.socket("user:1", "visitor:a", "team:blue")
    await until(lambda: process.database.written)
    process.socket("user:1")
    process.socket("team:blue", "user:2")
    await until(lambda: len(process.database.written) == 2)
    first, second = process.database.written
    assert sorted(first) == ["team:blue", "user:1", "visitor:a"]
    assert second == ["user:2"]


async def test_ten_thousand_browsers_that_come_back_at_once_are_a_few_statements(
    process: Process,
) -> None:
    for n in range(10_000):
        process.socket(f"user:{n % 4_000}")
    await until(lambda: sum(map(len, process.database.written)) >= 4_000)
    assert sum(map(len, process.database.written)) == 4_000
    assert len(process.database.written) == 4_000 / module.AT_ONCE


async def test_who_comes_while_others_are_written_is_written_as_well(process: Process) -> None:
    process.database.answers.clear()
    process.socket("user:1")
    await until(lambda: process.database.asked)
    process.socket("user:2")
    process.database.answers.set()
    await until(lambda: process.database.written == [["user:1"], ["user:2"]])


async def test_jobs_that_are_due_because_somebody_came_get_their_tasks(process: Process) -> None:
    job = row(state="running", handle="h1")
    process.database.hastened = [Committed(job, 0.0, visible=False)]
    process.socket("user:1")
    await until(lambda: process.sent)
    [outbound] = process.sent
    [message] = outbound.messages
    assert [(task.job_id, task.turn) for task in message.tasks] == [(job.id, job.turn)]
    assert message.delay == 0.0
    assert outbound.feeds == {}


async def test_open_audiences_are_written_again_and_those_that_closed_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with begun(monkeypatch, renew=0.1) as process:
        process.socket("user:1", "user:2")
        await until(lambda: process.database.written)
        process.open.discard("user:2")
        before, forgotten = len(process.database.written), process.database.forgotten
        await until(lambda: process.database.forgotten >= forgotten + 3)
        # The first of these may have begun before the other one closed.
        again = process.database.written[before + 1 :]
        assert again
        assert {*map(tuple, again)} == {("user:1",)}


async def test_an_audience_that_came_back_is_written_where_it_would_lapse_before_the_next_time(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.socket("user:1")
    await until(lambda: process.database.written)
    monkeypatch.setattr(attention, "GOOD_FOR", 3000.0)  # less than until the next regular writing
    process.socket("user:2")
    await until(lambda: len(process.database.written) == 2)
    process.socket("user:1")
    process.socket("user:2")
    await until(lambda: len(process.database.written) == 3)
    assert process.database.written[2] == ["user:2"]


async def test_what_could_not_be_written_is_written_when_the_database_is_back(
    process: Process,
) -> None:
    process.database.down = 3
    process.socket("user:1")
    await until(lambda: process.database.written)
    assert process.database.written == [["user:1"]]


async def test_where_no_backend_asks_for_it_nothing_is_written(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf, "backends", lambda: {"render": Options(name="render")})
    other = Process()
    monkeypatch.setattr(module, "database", other.database)
    async with asyncio.timeout(PATIENCE):
        await other.duty.run()  # it ends at once
    other.duty.watch(map(pytest.fail, ["they are not even read, so none is kept"]))
    assert other.database.written == []
