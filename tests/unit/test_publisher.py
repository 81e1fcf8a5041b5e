"""What a lost connection leaves behind in the publisher."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any, cast

import aiormq
import pytest

from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.nowhere import Nowhere
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, decode


class Connection:
    """A connection that opens one channel, whose `confirmations` the test fills."""

    def __init__(self) -> None:
        self.close_callbacks: set[Any] = set()
        self.confirmations: dict[int, asyncio.Future[None]] = {}

    def channel(self, **options: Any) -> "Connection":
        return self

    async def initialize(self) -> None:
        pass

    async def get_underlay_channel(self) -> Any:
        return SimpleNamespace(confirmations=self.confirmations)


@pytest.mark.parametrize("order", ["before the publisher notices", "after it has noticed"])
async def test_asyncio_does_not_report_a_confirm_that_aiormq_forgot(order: str) -> None:
    """aiormq (6.9.4) fails it with the connection, but does not await it during a write."""
    reports: list[dict[str, Any]] = []
    loop, connection = asyncio.get_running_loop(), Connection()
    loop.set_exception_handler(lambda _, report: reports.append(report))
    try:
        publisher = Publisher("amqp://guest:guest@127.0.0.1:1/", "test")
        run = asyncio.create_task(publisher._run(cast(Any, connection), lambda: None))
        await asyncio.sleep(0)
        assert publisher.connected
        forgotten = connection.confirmations[1] = loop.create_future()
        if order.startswith("before"):
            forgotten.set_exception(aiormq.AMQPError("gone"))
        for callback in connection.close_callbacks:
            callback()
        with pytest.raises(BrokerUnavailable):
            await run
        if order.startswith("after"):
            forgotten.set_exception(aiormq.AMQPError("gone"))
        await asyncio.sleep(0)
        del forgotten, run  # the traceback of `run` holds the future, too
        connection.confirmations.clear()
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    forgotten = [each for each in reports if "never retrieved" in each["message"]]
    assert not forgotten  # what other tests have left is not asked here


def test_aiormq_keeps_its_confirms_where_the_publisher_looks() -> None:
    """If a release moves them, the report comes back: see `Publisher._run`."""
    assert "confirmations" in aiormq.Channel.__annotations__


@pytest.mark.parametrize("spread", [0.0, 0.05])
async def test_a_mark_goes_with_its_task(monkeypatch: pytest.MonkeyPatch, spread: float) -> None:
    """Also where all tasks of a message get one due time, and beside tasks without a mark."""
    bodies: list[bytes] = []

    async def send(exchange: str, routing_key: str, body: bytes, about: Any) -> None:
        bodies.append(body)

    publisher = Publisher("amqp://guest:guest@127.0.0.1:1/", "test", gather=0.0)
    monkeypatch.setattr(publisher, "start", lambda: None)
    monkeypatch.setattr(publisher, "_send", send)
    publisher._ready.set()
    jobs = [f"0191a6c0-5c1e-7000-8000-{n:012x}" for n in range(2)]
    tasks = [Task(jobs[0], 3, 1_800_000_000.0, True), Task(jobs[1], 3, 1_800_000_000.0)]
    await publisher.publish("render", 0, tasks, delay=1.0, spread=spread)
    [sent] = map(decode, bodies)
    assert [(task.job_id, task.turn, task.again) for task in sent] == [
        (jobs[0], 3, True),
        (jobs[1], 3, False),
    ]


async def test_ready_is_one_that_has_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = Publisher("amqp://guest:guest@127.0.0.1:1/", "test")
    monkeypatch.setattr(publisher, "start", lambda: None)
    monkeypatch.setattr("progrock.broker.publisher.READY_TIMEOUT", 0.0)
    with pytest.raises(PublishFailed, match="not connected"):
        await publisher.ready()
    publisher._ready.set()
    await publisher.ready()
    await Nowhere().ready()
