"""Messages on their way through a real RabbitMQ: never early, and confirmed or refused."""

import asyncio
import gc
import logging
import random
import time
from typing import Any
from uuid import uuid4

import pytest
from pika.adapters.blocking_connection import BlockingChannel

from progrock.broker import blocking
from progrock.broker.address import vhost_of
from progrock.broker.connection import connect
from progrock.broker.due import DueTasks
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.names import NAMES
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, encode
from progrock.broker.topology import declare
from tests.amqp import (
    CLOSED,
    HOUR,
    QUEUE,
    TOPOLOGY,
    Line,
    dead_messages,
    publish_tasks,
    raw_publish,
    running,
    take,
    tasks,
    until,
)
from tests.services import PATIENCE, Broker

# aiormq (6.9) leaves the socket of a connection that was lost to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.usefixtures("unhurried"),
]


# Lanes


async def test_any_delay_is_never_early_and_nobody_waits_behind_a_longer_one(
    vhost_url: str,
) -> None:
    """Mixed delays all at once, sent as a worker sends them: `DueTasks` gives each when it is due.

    A task that stood behind the first one would not come at all. How late they are is what the
    benchmark measures.
    """
    delays = [0.0, 0.05, 0.1, 0.3, 1.7, 2.5, *(random.uniform(0.0, 3.0) for _ in range(200))]
    random.shuffle(delays)
    late: list[float] = []
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        due = DueTasks(publisher)
        subscriber.deliver = due.add
        await publisher.publish("render", 0, tasks(due=time.time() + HOUR), delay=HOUR)
        some = [tasks(due=time.time() + delay) for delay in delays]
        sent = [
            publisher.publish("render", 0, one, delay=delay)
            for one, delay in zip(some, delays, strict=True)
        ]
        sending = asyncio.gather(*sent)
        async with asyncio.timeout(PATIENCE):
            while len(late) < len(delays):
                for part in await due.take(QUEUE):
                    late += [time.time() - task.due for task in part.tasks]
                    await part.ack()
        await sending
    assert min(late) >= 0


async def test_a_message_waits_as_long_as_its_lane_says_whatever_else_waits(vhost_url: str) -> None:
    """Long delays go first: in one queue for all, everybody would wait for the longest."""
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        await publisher.publish("render", 0, tasks(due=time.time() + HOUR), delay=HOUR)
        dues: dict[str, float] = {}
        for delay in [5.0, 2.0, 1.0, 0.5, 0.2, 0.1] * 5:
            task = Task(str(uuid4()), 1, time.time() + delay)
            dues[task.job_id] = task.due
            await publisher.publish("render", 0, [task], delay=delay)
        while dues:
            for delivery in await take(subscriber):
                now = time.time()
                for task in delivery.tasks:
                    due = dues.pop(task.job_id)
                    assert task.due == pytest.approx(due, abs=1e-6)
                    assert now > due - 0.0015, (
                        "early: the expiration is cut to whole milliseconds, so less than 1.5 ms"
                    )
                await delivery.ack()


async def test_a_hundred_tasks_started_together_travel_in_one_message(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        due = time.time() + 0.5
        await asyncio.gather(
            *(publisher.publish("render", 0, tasks(due=due), delay=0.5) for _ in range(100))
        )
        [delivery] = await take(subscriber)
        assert len(delivery.tasks) == 100
        assert (delivery.backend, delivery.shard, delivery.queue, delivery.deliveries) == (
            "render",
            0,
            QUEUE,
            0,
        )
        await delivery.ack()
        await publisher.publish("render", 0, tasks(450, due=due), delay=0)
        sizes: list[int] = []
        while sum(sizes) < 450:
            for delivery in await take(subscriber):
                sizes.append(len(delivery.tasks))
                await delivery.ack()
        assert sorted(sizes) == [50, 200, 200]


async def test_a_round_takes_all_waiting_messages_up_to_the_cap(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        for _ in range(5):
            await publisher.publish("render", 0, tasks(60), delay=0)
        await until(lambda: len(subscriber.received[QUEUE]) == 5)
        due = DueTasks(publisher)
        for delivery in await take(subscriber):
            due.add(delivery)
        assert [len(each.tasks) for each in await due.take(QUEUE)] == [60, 60, 60]
        assert [len(each.tasks) for each in await due.take(QUEUE, cap=10)] == [60]


# Confirms, returns, and the dead queue


async def test_a_missing_lane_is_a_failed_publish_and_says_so(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, _):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/progrock.delay.04-1s")
        with pytest.raises(PublishFailed, match=r"progrock\.delay has no queue for 1s\.render\.0"):
            await publisher.publish("render", 0, tasks(), delay=1.0)
        await publisher.publish("render", 0, tasks(), delay=0.5)  # the other lanes live on
        with pytest.raises(PublishFailed, match=r"no queue for 1s\.render\.0"):
            await asyncio.to_thread(publish_tasks, vhost_url, "render", 0, tasks(), delay=1.0)


async def test_a_failed_publish_reaches_everybody_whose_tasks_were_gathered(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, _):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/progrock.delay.04-1s")
        calls = (publisher.publish("render", 0, tasks(3), delay=1.0) for _ in range(3))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [PublishFailed] * 3


async def test_a_cancelled_caller_takes_nobody_else_with_it(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        first = asyncio.create_task(publisher.publish("render", 0, tasks(), delay=0))
        second = asyncio.create_task(publisher.publish("render", 0, tasks(), delay=0))
        await asyncio.sleep(0)
        first.cancel()
        await second
        [delivery] = await take(subscriber)
        assert len(delivery.tasks) == 2


async def test_a_task_without_a_queue_reaches_the_dead_queue(vhost_url: str) -> None:
    await declare(vhost_url, TOPOLOGY)
    publisher = Publisher(vhost_url, "test")
    lost = tasks(2)
    await publisher.publish("gone", 3, lost, delay=0)
    await publisher.publish("gone", 3, lost, delay=0.1)
    await publisher.close()
    found = await dead_messages(vhost_url, 2)
    assert sorted(message.routing_key or "" for message in found) == ["100ms.gone.3", "now.gone.3"]
    assert all(message.body == encode(lost) for message in found)
    assert found[0].headers["jobs"] == [task.job_id for task in lost]


async def test_a_broken_body_goes_to_the_dead_queue_with_its_reason_and_the_rest_lives(
    vhost_url: str,
) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        await raw_publish(vhost_url, QUEUE, b"\x00 not ours")
        await raw_publish(vhost_url, QUEUE, b'{"v": 9, "tasks": []}')
        await publisher.publish("render", 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()
        reasons = {message.body: message.headers for message in await dead_messages(vhost_url, 2)}
        assert "not JSON" in str(reasons[b"\x00 not ours"]["reason"])
        assert (
            reasons[b'{"v": 9, "tasks": []}']["reason"] == "unknown version 9: this worker reads 1"
        )
        assert reasons[b"\x00 not ours"]["queue"] == QUEUE
        assert subscriber.connected
        await until(lambda: subscriber.idle(QUEUE) is not None)


async def test_what_goes_wrong_unforeseen_while_sending_is_a_failed_publish(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        never = tasks(due=1e12)  # later than any date can say
        calls = [
            publisher.publish("render", 0, some, delay=0) for some in (tasks(), never, tasks())
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(each) for each in results] == [PublishFailed] * 3
        assert str(results[0]).startswith("ValueError: year ")
        with pytest.raises(PublishFailed, match="OverflowError"):
            await publisher.publish("render", 0, tasks(due=float("inf")), delay=0, spread=0.1)
        await publisher.publish("render", 0, some := tasks(), delay=0)
        [delivery] = await take(subscriber)
        assert [task.job_id for task in delivery.tasks] == [task.job_id for task in some]


async def test_a_message_whose_line_is_cut_while_it_is_written_is_one_failed_publish_and_no_noise(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """aiormq then fails a future that it awaits nowhere, and asyncio would report that."""
    # A record of a lost connection would hold the future, and asyncio reports only what is gone.
    monkeypatch.setattr(logging.getLogger("progrock.broker.connection"), "disabled", True)
    await declare(line.url, TOPOLOGY)
    publisher = Publisher(line.url, "test")
    publisher.start()
    await until(lambda: publisher.connected)
    line.flows.clear()
    held = line.held
    long = asyncio.create_task(publisher.dead_letter(b"x" * 30_000_000, "a test", {}))
    await until(lambda: line.held > held)
    await line.cut()
    with pytest.raises(PublishFailed):
        await long
    await publisher.close()
    del long  # as would its traceback
    gc.collect()
    assert not [each for each in caplog.records if "never retrieved" in each.getMessage()]


async def test_publishing_without_a_connection_fails_soon(caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(CLOSED, "test")
    start = time.monotonic()
    with pytest.raises(PublishFailed, match="not connected"):
        await publisher.publish("render", 0, tasks(), delay=0)
    assert 1.5 < time.monotonic() - start < PATIENCE
    assert not publisher.connected
    await publisher.close()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1, "one line an outage"
    assert "127.0.0.1:1" in said[0].getMessage()
    assert "guest:guest" not in caplog.text


# The synchronous edge


async def test_the_synchronous_edge_publishes_now_and_into_lanes(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (_, subscriber):
        many = tasks(130)
        await asyncio.to_thread(publish_tasks, vhost_url, "render", 0, many)
        got: list[Task] = []
        while len(got) < 130:
            for delivery in await take(subscriber):
                got += delivery.tasks
                await delivery.ack()
        assert {task.job_id for task in got} == {task.job_id for task in many}
        due = time.time() + 0.5
        await asyncio.to_thread(publish_tasks, vhost_url, "render", 0, tasks(due=due), delay=0.5)
        [delivery] = await take(subscriber)
        assert time.time() > due - 0.0015
        await delivery.ack()


@pytest.mark.parametrize(
    "url", ["localhost:5672", "http://localhost/", "amqp://localhost:here/", ""]
)
async def test_a_wrong_address_says_what_was_wanted(url: str) -> None:
    for call in (
        lambda: connect(url, "test"),
        lambda: asyncio.to_thread(publish_tasks, url, "render", 0, tasks()),
    ):
        with pytest.raises(BrokerUnavailable, match="wanted amqp://"):
            await call()


def test_the_synchronous_edge_says_when_rabbitmq_is_away() -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"cannot connect to RabbitMQ at 127\.0\.0\.1:1"):
        publish_tasks(CLOSED, "render", 0, tasks())
    with pytest.raises(BrokerUnavailable):
        blocking.group_send(CLOSED, "feed", {"type": "x"})
    assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("frozen", ["at the tasks", "at the event"])
async def test_the_synchronous_edge_gives_up_when_rabbitmq_answers_no_more(
    line: Line, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    """A confirm that never comes, from a RabbitMQ whose TCP connection lives on."""
    await declare(line.url, TOPOLOGY)
    loop = asyncio.get_running_loop()
    publish = BlockingChannel.basic_publish

    def freeze(channel: Any, exchange: str, *args: Any, **options: Any) -> None:
        if frozen == "at the tasks" or exchange == NAMES.groups:
            loop.call_soon_threadsafe(line.flows.clear)
        publish(channel, exchange, *args, **options)

    monkeypatch.setattr(BlockingChannel, "basic_publish", freeze)
    connection = blocking.pika.BlockingConnection

    def patient(parameters: Any) -> Any:
        parameters.socket_timeout = parameters.stack_timeout = PATIENCE
        return connection(parameters)

    # The connection is patient, so that it is the confirm that does not come.
    monkeypatch.setattr(blocking.pika, "BlockingConnection", patient)
    monkeypatch.setattr(blocking, "TIMEOUT", 1.0)
    about = (line.url, [("render", 0, tasks(), 0.0)], [("feed", {"type": "x"})])
    with pytest.raises(BrokerUnavailable, match="no answer in time"):
        await asyncio.wait_for(asyncio.to_thread(blocking.send, *about), PATIENCE)


# Names


def test_the_names_are_those_of_the_design() -> None:
    assert (NAMES.delay, NAMES.poll, NAMES.dead) == (
        "progrock.delay",
        "progrock.poll",
        "progrock.dead",
    )
