"""The publisher without a RabbitMQ: what it sends, and what a lost connection leaves behind."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiormq
import pytest

from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.nowhere import Nowhere
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, decode
from tests.amqp import until


class Connection:
    """A connection with one channel and one exchange. `sent` has what was published.

    `confirmations` are aiormq's, which the test fills.
    """

    def __init__(self) -> None:
        self.close_callbacks: set[Any] = set()
        self.confirmations: dict[int, asyncio.Future[None]] = {}
        self.sent: list[bytes] = []

    def channel(self, **options: Any) -> "Connection":
        return self

    async def initialize(self) -> None:
        """It is open."""

    async def get_underlay_channel(self) -> Any:
        return SimpleNamespace(confirmations=self.confirmations)

    async def get_exchange(self, name: str, *, ensure: bool) -> "Connection":
        return self

    async def publish(self, message: Any, routing_key: str) -> None:
        self.sent.append(message.body)

    async def close(self) -> None:
        """It is closed."""


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Connection:
    """The connection that a publisher gets, once; from then on RabbitMQ is away."""
    connections = [made := Connection()]

    async def connect(*_: object) -> Connection:
        if not connections:
            raise BrokerUnavailable("away")
        return connections.pop()

    monkeypatch.setattr("progrock.broker.connection.connect", connect)
    return made


@pytest.fixture
async def publisher() -> AsyncIterator[Publisher]:
    publisher = Publisher("amqp://guest:guest@127.0.0.1:1/", "test", gather=0.0)
    yield publisher
    await publisher.close()


@pytest.mark.parametrize("order", ["before the publisher notices", "after it has noticed"])
async def test_asyncio_does_not_report_a_confirm_that_aiormq_forgot(
    publisher: Publisher, connection: Connection, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """aiormq (6.9.4) fails it with the connection, but does not await it during a write."""
    # A record of a lost connection would hold the future, and asyncio reports only what is gone.
    monkeypatch.setattr(logging.getLogger("progrock.broker.connection"), "disabled", True)
    reports: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    try:
        await publisher.ready()
        forgotten = connection.confirmations[1] = loop.create_future()
        if order.startswith("before"):
            forgotten.set_exception(aiormq.AMQPError("gone"))
        for callback in connection.close_callbacks:
            callback()
        await until(lambda: not publisher.connected)
        if order.startswith("after"):
            forgotten.set_exception(aiormq.AMQPError("gone"))
        await asyncio.sleep(0)
        del forgotten
        connection.confirmations.clear()
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    never = [each for each in reports if "never retrieved" in each["message"]]
    assert not never  # what other tests have left is not asked here


def test_aiormq_keeps_its_confirms_where_the_publisher_looks() -> None:
    """If a release moves them, asyncio's report comes back."""
    assert "confirmations" in aiormq.Channel.__annotations__


@pytest.mark.parametrize("spread", [0.0, 0.05])
async def test_a_mark_goes_with_its_task(
    publisher: Publisher, connection: Connection, spread: float
) -> None:
    """Also where all tasks of a message get one due time, and beside tasks without a mark."""
    jobs = [f"0191a6c0-5c1e-7000-8000-{n:012x}" for n in range(2)]
    tasks = [Task(jobs[0], 3, 1_800_000_000.0, True), Task(jobs[1], 3, 1_800_000_000.0)]
    await publisher.publish("render", 0, tasks, delay=1.0, spread=spread)
    [sent] = map(decode, connection.sent)
    assert [(task.job_id, task.turn, task.again) for task in sent] == [
        (jobs[0], 3, True),
        (jobs[1], 3, False),
    ]


async def test_ready_is_one_that_has_a_connection(
    publisher: Publisher, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publisher.ready()
    for callback in connection.close_callbacks:
        callback()
    await until(lambda: not publisher.connected)
    monkeypatch.setattr("progrock.broker.publisher.READY_TIMEOUT", 0.0)
    with pytest.raises(PublishFailed, match="not connected"):
        await publisher.ready()
    await Nowhere().ready()
