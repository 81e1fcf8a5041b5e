"""`broker/` against a real RabbitMQ: lanes, confirms, the dead queue, acks, restarts, the channel layer, operators' words."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import aio_pika
import carehare
import pamqp.commands as spec
import pytest

from progrock.broker import blocking, channel_layer
from progrock.broker import publisher as publisher_module
from progrock.broker import subscriber as subscriber_module
from progrock.broker.channel_layer import ChannelLayer
from progrock.broker.connection import connect, shut, vhost_of
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.holding import Holding
from progrock.broker.management import depths, prune, verify
from progrock.broker.publisher import Publisher
from progrock.broker.subscriber import Delivery, Subscriber
from progrock.broker.tasks import Task, encode, shard_of
from progrock.broker.topology import DEAD, DELAY, POLL, Topology, declare, definitions, poll_queue
from tests.services import PATIENCE, Broker

# aiormq (6.9) leaves the socket of a connection that was lost to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
TOPOLOGY = Topology({"render": 2, "report": 1})
QUEUE = poll_queue("render", 0)
HOUR = 3600.0
NewLayer = Callable[..., ChannelLayer]
CLOSED = "amqp://guest:guest@127.0.0.1:1/"  # nobody listens there


def tasks(count: int = 1, *, due: float | None = None) -> list[Task]:
    return [Task(str(uuid4()), 1, time.time() if due is None else due) for _ in range(count)]


@asynccontextmanager
async def running(
    url: str, queues: Iterable[str] = TOPOLOGY.poll_queues, *, declared: bool = True, **options: Any
) -> AsyncIterator[tuple[Publisher, Subscriber]]:
    """A publisher and a subscriber that are connected."""
    if declared:
        await declare(url, TOPOLOGY)
    publisher = Publisher(url, "test")
    subscriber = Subscriber(url, "test", queues, publisher, **options)
    run = asyncio.create_task(subscriber.run())
    publisher.start()
    try:
        await until(lambda: subscriber.connected and publisher.connected)
        await until(lambda: all(each.alive for each in subscriber._inboxes.values()))
        yield publisher, subscriber
    finally:
        await subscriber.close()
        await publisher.close()
        await run


async def until(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def take(
    subscriber: Subscriber, queue: str = QUEUE, *, seconds: float = PATIENCE, cap: int = 100
) -> list[Delivery]:
    async with asyncio.timeout(seconds):
        return await subscriber.take(queue, cap)


async def dead_messages(url: str, count: int) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """So many messages out of the dead queue."""
    connection = await connect(url, "test")
    found: list[aio_pika.abc.AbstractIncomingMessage] = []
    try:
        queue = await (await connection.channel()).get_queue(DEAD)
        async with asyncio.timeout(PATIENCE):
            while len(found) < count:
                if message := await queue.get(fail=False, timeout=PATIENCE):
                    await message.ack()
                    found.append(message)
                else:
                    await asyncio.sleep(0.02)
        return found
    finally:
        await shut(connection)


async def raw_publish(
    url: str, queue: str, body: bytes, headers: dict[str, Any] | None = None
) -> None:
    connection = await connect(url, "test")
    try:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(body, headers=headers), queue)
    finally:
        await shut(connection)


class Line:
    """A line to RabbitMQ that can be cut and mended, and on which nothing comes through while `flows` is cleared: `url` goes through it."""

    def __init__(self, url: str) -> None:
        self.target = urlsplit(url)
        self.server: asyncio.Server | None = None
        self.port = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.flows = asyncio.Event()
        self.flows.set()
        self.accepted = 0

    @property
    def url(self) -> str:
        login = self.target.netloc.rpartition("@")[0]
        return self.target._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    async def mend(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self.server:
            self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()
        self.flows.set()
        await until(lambda: not self.writers)
        self.server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        far_reader, far_writer = await asyncio.open_connection(
            self.target.hostname, self.target.port
        )
        self.writers |= {writer, far_writer}

        async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65536):
                    await self.flows.wait()
                    to.write(data)
                    await to.drain()
            to.transport.abort()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self.writers -= {writer, far_writer}


@pytest.fixture
async def line(vhost_url: str) -> AsyncIterator[Line]:
    line = Line(vhost_url)
    await line.mend()
    yield line
    await line.cut()


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine, or its disk, may stand still for longer than the product waits; tests of a wait set their own."""
    for module, name in (
        (blocking, "TIMEOUT"),
        (channel_layer, "CONFIRM_TIMEOUT"),
        (publisher_module, "CONFIRM_TIMEOUT"),
        (subscriber_module, "OPEN_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, PATIENCE / 2)


@pytest.fixture
async def new_layer(vhost_url: str) -> AsyncIterator[NewLayer]:
    """Makes channel layers; each is closed at the end, however the test ends."""
    layers: list[ChannelLayer] = []

    def make(url: str = vhost_url, **options: Any) -> ChannelLayer:
        layers.append(ChannelLayer(host=url, **options))
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


# Lanes


async def test_any_delay_is_never_early_and_nobody_waits_behind_a_longer_one(
    vhost_url: str,
) -> None:
    """Mixed delays all at once, on the way that a worker sends them: `Holding` gives each when it is due.

    What stood behind the first one would not come at all. How late they are is the benchmark's question.
    """
    delays = [0.0, 0.05, 0.1, 0.3, 1.7, 2.5, *(random.uniform(0.0, 3.0) for _ in range(200))]
    random.shuffle(delays)
    late: list[float] = []
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        holding = Holding(subscriber, publisher)
        hold = asyncio.create_task(holding.hold(QUEUE))
        await publisher.publish("render", 0, tasks(due=time.time() + HOUR), delay=HOUR)
        some = [tasks(due=time.time() + delay) for delay in delays]
        sent = [
            publisher.publish("render", 0, one, delay=delay)
            for one, delay in zip(some, delays, strict=True)
        ]
        sending = asyncio.gather(*sent)
        async with asyncio.timeout(PATIENCE):
            while len(late) < len(delays):
                for part in await holding.take(QUEUE):
                    late += [time.time() - task.due for task in part.tasks]
                    await part.ack()
        await sending
        await subscriber.stop_taking()
        await hold
    assert min(late) >= 0


async def test_a_message_waits_as_long_as_its_lane_says_whatever_else_waits(vhost_url: str) -> None:
    """Long ones first: with one queue for all, everybody would wait for the longest."""
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
        await publisher.publish("render", 0, tasks(250, due=due), delay=0)
        sizes: list[int] = []
        while sum(sizes) < 250:
            for delivery in await take(subscriber):
                sizes.append(len(delivery.tasks))
                await delivery.ack()
        assert sorted(sizes) == [50, 100, 100]


async def test_a_round_takes_all_waiting_messages_up_to_the_cap(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        for _ in range(5):
            await publisher.publish("render", 0, tasks(30), delay=0)
        await until(lambda: len(subscriber._inboxes[QUEUE].waiting) == 5)
        assert [len(each.tasks) for each in await take(subscriber)] == [30, 30, 30]
        assert [len(each.tasks) for each in await take(subscriber, cap=10)] == [30]


# Confirms, returns, and the dead queue


async def test_a_missing_lane_is_a_failed_publish_and_says_so(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, _):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/progrock.delay.04-1s")
        with pytest.raises(PublishFailed, match=r"progrock\.delay has no queue for 1s\.render\.0"):
            await publisher.publish("render", 0, tasks(), delay=1.0)
        await publisher.publish("render", 0, tasks(), delay=0.5)  # the others live on
        with pytest.raises(PublishFailed, match=r"no queue for 1s\.render\.0"):
            await asyncio.to_thread(
                blocking.publish_tasks, vhost_url, "render", 0, tasks(), delay=1.0
            )


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
        await until(lambda: subscriber._inboxes[QUEUE].unacked == 0)


async def test_what_goes_wrong_unforeseen_while_sending_is_a_failed_publish(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        never = tasks(due=1e12)  # after the last year that a date knows
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


# Subscribing


async def test_each_shard_has_its_queue(vhost_url: str) -> None:
    async with running(vhost_url) as (publisher, subscriber):
        for backend, shard in (("render", 0), ("render", 1), ("report", 0)):
            await publisher.publish(backend, shard, tasks(), delay=0.1)
        for backend, shard in (("report", 0), ("render", 1), ("render", 0)):
            [delivery] = await take(subscriber, poll_queue(backend, shard))
            assert (delivery.backend, delivery.shard) == (backend, shard)
            await delivery.ack()


async def heard(subscriber: Subscriber) -> None:
    """Until RabbitMQ has read the acks: a connection that is closed at once may take them along, and they come again."""
    wire = subscriber._inboxes[QUEUE].wire
    assert wire
    await wire.basic_qos(prefetch_count=32)  # answered after what was sent before it


async def test_what_was_acked_is_gone_and_the_rest_comes_back(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        kept, done = tasks(2), tasks()
        await publisher.publish("render", 0, kept, delay=0)
        await publisher.publish("render", 0, done, delay=0)
        await until(lambda: len(subscriber._inboxes[QUEUE].waiting) == 2)
        first, second = await take(subscriber)
        await second.ack()
        await heard(subscriber)
        subscriber.restart("a test wants it")
        [again] = await take(subscriber)
        assert [task.job_id for task in again.tasks] == [task.job_id for task in kept]
        assert again.deliveries == 1
        await first.ack()  # of the old connection: does nothing
        await again.ack()
        await heard(subscriber)
        assert not subscriber._inboxes[QUEUE].waiting
        subscriber.restart("once more")
        await until(lambda: not subscriber.connected)
        await until(lambda: subscriber.connected)
        with pytest.raises(TimeoutError):
            await take(subscriber, seconds=0.5)


async def test_stop_taking_leaves_the_rest_to_others_and_still_acks(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        for _ in range(3):
            await publisher.publish("render", 0, tasks(), delay=0)
        await until(lambda: len(subscriber._inboxes[QUEUE].waiting) == 3)
        [taken] = await take(subscriber, cap=1)
        await subscriber.stop_taking()
        assert await take(subscriber) == []
        await taken.ack()
        await heard(subscriber)
        await publisher.publish("render", 0, tasks(), delay=0)
        assert await take(subscriber) == []
    async with running(vhost_url, [QUEUE]) as (_, other):
        rest: list[Delivery] = []
        while len(rest) < 3:
            rest += await take(other)
        assert taken.tasks[0].job_id not in {delivery.tasks[0].job_id for delivery in rest}


async def test_the_watermark_follows_what_arrives_and_a_silent_queue_is_empty(
    vhost_url: str,
) -> None:
    async with running(vhost_url, [QUEUE], prefetch=2) as (publisher, subscriber):
        assert subscriber.watermark(QUEUE) is None
        old = time.time() - 100
        await publisher.publish("render", 0, tasks(due=old), delay=0)
        [first] = await take(subscriber)
        assert subscriber.watermark(QUEUE) == pytest.approx(old, abs=1e-5)
        begun = int(time.time())
        await publisher.publish(
            "render", 0, tasks(due=time.time() + 50), delay=0
        )  # on a long way: not due yet
        [second] = await take(subscriber)
        mark = subscriber.watermark(QUEUE)
        assert mark is not None
        assert begun <= mark <= time.time()
        await second.ack()
        await first.ack()
        await until(lambda: (subscriber.idle(QUEUE) or 0) > 3)
        now = time.time()
        assert now <= (subscriber.watermark(QUEUE) or 0) <= time.time()


async def test_a_cancelled_consumer_is_noticed_and_renewed(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE, poll_queue("report", 0)], declare=TOPOLOGY) as (
        publisher,
        subscriber,
    ):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: not subscriber._inboxes[QUEUE].alive)
        await until(lambda: subscriber._inboxes[QUEUE].alive)
        await publisher.publish("render", 0, tasks(), delay=0.2)
        [delivery] = await take(subscriber)
        await delivery.ack()


async def test_channels_that_rabbitmq_closes_are_opened_again(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE], declare=TOPOLOGY) as (publisher, subscriber):
        some = tasks()
        await publisher.publish("render", 0, some, delay=0)
        await take(subscriber)
        wire = subscriber._inboxes[QUEUE].wire
        assert wire
        await wire.basic_ack(999)  # no such delivery
        [again] = await take(subscriber)
        assert (again.tasks[0].job_id, again.deliveries) == (some[0].job, 1)
        await again.ack()
        rabbitmq.api("DELETE", f"exchanges/{vhost_of(vhost_url)}/progrock.delay")
        with pytest.raises(PublishFailed):
            await publisher.publish("render", 0, tasks(), delay=0.1)
        subscriber.restart("a publish failed")  # as a round does then
        await until(lambda: not subscriber.connected)
        await until(lambda: subscriber.connected and publisher.connected)
        await publisher.publish("render", 0, tasks(), delay=0.1)
        assert len(await take(subscriber)) == 1


async def test_a_missing_queue_does_not_stop_the_others(
    rabbitmq: Broker, vhost_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the user may not declare anything, it waits until somebody does."""
    report = poll_queue("report", 0)
    async with running(vhost_url, [QUEUE, report]) as (publisher, subscriber):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: complaints(caplog) == ["ERROR"])
        await publisher.publish("report", 0, tasks(), delay=0)
        [delivery] = await take(subscriber, report)
        await delivery.ack()
        await asyncio.sleep(2.2)
        assert complaints(caplog) == ["ERROR"]
        await declare(vhost_url, TOPOLOGY)
        await publisher.publish("render", 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()


@asynccontextmanager
async def slow_consumes(line: Line, subscriber: Subscriber) -> AsyncIterator[Callable[[], int]]:
    """RabbitMQ answers no consume in time, as while it is still bringing a queue up; tells how many it did not answer."""
    attempts, consume = 0, subscriber_module.Wire.basic_consume

    async def late(*args: Any, **options: Any) -> Any:
        nonlocal attempts
        line.flows.clear()
        try:
            return await consume(*args, **options)
        finally:
            line.flows.set()
            attempts += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subscriber_module, "OPEN_TIMEOUT", 0.5)
        patch.setattr(subscriber_module.Wire, "basic_consume", late)
        subscriber.restart("a test wants it")
        yield lambda: attempts


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        each.levelname
        for each in caplog.records
        if each.name == "progrock.broker.subscriber" and "cannot consume" in each.getMessage()
    ]


async def test_a_queue_that_answers_no_consume_in_time_is_warned_of_once_and_served_when_it_does(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Consumes that are answered too late hold nothing back."""
    monkeypatch.setattr(subscriber_module, "STUCK", 1000)
    monkeypatch.setattr(subscriber_module, "LOOK", 0.1)
    async with running(line.url, [QUEUE]) as (publisher, subscriber):
        await publisher.publish("render", 0, some := tasks(), delay=0)
        async with slow_consumes(line, subscriber) as attempts:
            await until(lambda: attempts() >= 3)
        [delivery] = await take(subscriber)
        assert [task.job_id for task in delivery.tasks] == [task.job_id for task in some]
        await delivery.ack()
    assert complaints(caplog) == ["WARNING"]
    assert "cannot consume progrock.poll.render.0: timed out" in caplog.text


async def test_a_slow_queue_that_turns_out_to_be_missing_is_an_error(
    rabbitmq: Broker,
    vhost_url: str,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(subscriber_module, "LOOK", 0.1)
    monkeypatch.setattr(subscriber_module, "STUCK", 1000)
    async with running(line.url, [QUEUE]) as (publisher, subscriber):
        async with slow_consumes(line, subscriber) as attempts:
            await until(lambda: attempts() >= 1)
            rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: complaints(caplog) == ["WARNING", "ERROR"])
        await declare(vhost_url, TOPOLOGY)
        await publisher.publish("render", 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()
    assert complaints(caplog) == ["WARNING", "ERROR"], "each is said once"


async def test_a_queue_that_does_not_come_up_for_long_is_an_error(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ 3.10 loses one that was declared within the second before a crash: it stays, and answers nobody."""
    monkeypatch.setattr(subscriber_module, "LOOK", 0.1)
    async with (
        running(line.url, [QUEUE]) as (_, subscriber),
        slow_consumes(line, subscriber) as attempts,
    ):
        await until(lambda: complaints(caplog) == ["WARNING", "ERROR"])
        seen = attempts()
        await until(lambda: attempts() > seen + 2)
    assert complaints(caplog) == ["WARNING", "ERROR"]
    assert "rabbitmqctl delete_queue" in caplog.text
    assert not [each for each in caplog.records if each.name.startswith("aiormq")]


async def test_a_queue_that_is_still_brought_up_holds_no_other_one_back(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, is_up = poll_queue("report", 0), asyncio.Event()
    async with running(vhost_url, [slow, QUEUE]) as (publisher, subscriber):
        consume = subscriber._consume

        async def wait(connection: Any, inbox: Any) -> None:
            if inbox.queue == slow:
                await is_up.wait()
            await consume(connection, inbox)

        monkeypatch.setattr(subscriber, "_consume", wait)
        subscriber.restart("a test wants it")
        await until(lambda: not subscriber.connected)
        for backend in ("report", "render"):
            await publisher.publish(backend, 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()
        assert not subscriber._inboxes[slow].alive
        await until(
            lambda: (subscriber.idle(QUEUE) or 0) > subscriber_module.SILENCE
        )  # its lost tasks can be swept
        assert subscriber.idle(slow) is None
        subscriber.restart("once more")
        await until(lambda: not subscriber.connected)
        await until(lambda: subscriber.connected)
        is_up.set()
        [delivery] = await take(subscriber, slow)
        await delivery.ack()


async def test_a_cut_line_is_mended_by_itself(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(line.url, [QUEUE]) as (publisher, subscriber):
        await publisher.publish("render", 0, tasks(), delay=0)
        [before] = await take(subscriber)
        await line.cut()
        await until(lambda: not subscriber.connected and not publisher.connected)
        with pytest.raises(PublishFailed):
            await publisher.publish("render", 0, tasks(), delay=0)
        await asyncio.sleep(2)
        await line.mend()
        await until(lambda: subscriber.connected and publisher.connected)
        await before.ack()
        [again] = await take(subscriber)
        assert again.tasks == before.tasks
        assert again.deliveries == 1
        await publisher.publish("render", 0, tasks(), delay=0.1)
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 2, "one line for the publisher, one for the subscriber"


async def test_rabbitmq_restarts_with_a_power_cut_and_nothing_is_missing(
    rabbitmq: Broker, vhost_url: str, new_layer: NewLayer
) -> None:
    if rabbitmq.node is None:
        pytest.skip("this RabbitMQ is not ours to restart")
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        await asyncio.sleep(
            2
        )  # RabbitMQ 3.10 loses a queue that was declared within the second before a crash
        layer = new_layer()
        channel = await layer.new_channel()
        await layer.group_add("feed", channel)
        waiting = tasks(150, due=time.time() + 2)
        await publisher.publish("render", 0, waiting, delay=2.0)
        await asyncio.to_thread(rabbitmq.node.kill)
        await until(lambda: not (subscriber.connected or publisher.connected or layer.connected))
        await asyncio.to_thread(rabbitmq.node.start)
        found: set[str] = set()
        while len(found) < 150:
            for delivery in await take(subscriber):
                assert time.time() > delivery.tasks[0].due - 0.0015
                found |= {task.job_id for task in delivery.tasks}
                await delivery.ack()
        assert found == {task.job_id for task in waiting}
        await until(lambda: publisher.connected and layer.connected)
        await publisher.publish("render", 0, tasks(), delay=0)
        assert len(await take(subscriber)) == 1
        assert layer.epoch >= 2
        assert await layer.group_send("feed", {"type": "job.changed"})
        assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "job.changed"}


async def test_connections_and_consumers_bear_names(
    rabbitmq: Broker, vhost_url: str, new_layer: NewLayer
) -> None:
    async with running(vhost_url, [QUEUE]):
        await new_layer().group_send("feed", {"type": "x"})

        def names() -> set[str]:
            found = rabbitmq.api("GET", f"vhosts/{vhost_of(vhost_url)}/connections")
            told = [each.get("client_properties", {}).get("connection_name", "") for each in found]
            return {name.partition(" @")[0] for name in told}

        def tags() -> list[str]:
            found = rabbitmq.api("GET", f"consumers/{vhost_of(vhost_url)}")
            return [each["consumer_tag"].partition(" @")[0] for each in found]

        await poll(
            lambda: (
                names() == {"progrock test", "progrock test publisher", "progrock channel layer"}
            )
        )
        await poll(lambda: tags() == ["progrock test render.0"])


async def poll(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """The management API tells things some seconds later; asked in a thread."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.2)


async def test_forged_headers_are_taken_for_none(vhost_url: str) -> None:
    """They may neither stop the consumer nor stay unacked; RabbitMQ 4 drops a client's x-death, 3.x lets it through."""
    forged: list[dict[str, Any]] = [
        {"x-death": "abc"},
        {"x-death": ["abc"]},
        {"x-death": [{"time": "now"}]},
        {"x-delivery-count": "many"},
        {"x-delivery-count": datetime.now(UTC)},
    ]
    async with running(vhost_url, [QUEUE]) as (_, subscriber):
        for headers in forged:
            await raw_publish(vhost_url, QUEUE, encode(tasks()), headers)
        count = 0
        while count < len(forged):
            for delivery in await take(subscriber):
                assert delivery.deliveries == 0
                await delivery.ack()
                count += 1
        assert subscriber._inboxes[QUEUE].unacked == 0


async def test_a_frozen_rabbitmq_holds_the_end_up_once_and_not_once_a_queue(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []
    monkeypatch.setattr(subscriber_module, "CLOSE_TIMEOUT", 0.5)
    async with running(line.url) as (_, subscriber):
        for inbox in subscriber._inboxes.values():
            assert inbox.wire

            async def cancel(tag: str) -> None:
                cancelled.append(tag)
                await asyncio.Event().wait()

            monkeypatch.setattr(inbox.wire, "basic_cancel", cancel)
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                await subscriber.stop_taking()
        assert sorted(cancelled) == sorted(inbox.tag for inbox in subscriber._inboxes.values()), (
            "each once"
        )


async def test_silence_says_nothing_while_something_is_worked_on_or_after_a_sleep(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        old = time.time() - 100
        await publisher.publish("render", 0, tasks(due=old), delay=0)
        [slow] = await take(subscriber)
        inbox = subscriber._inboxes[QUEUE]
        inbox.last -= 60  # a round that takes a minute
        assert subscriber.watermark(QUEUE) == pytest.approx(old, abs=1e-5)
        await slow.ack()
        assert subscriber.watermark(QUEUE) == pytest.approx(old, abs=1e-5), (
            "the silence begins with the ack"
        )
        inbox.last -= 60
        now = time.time()
        assert now <= (subscriber.watermark(QUEUE) or 0) <= time.time(), (
            "silent, and nothing under way"
        )
        time.sleep(subscriber_module.OVERSLEPT + 0.5)  # the whole process stands still
        assert subscriber.watermark(QUEUE) == pytest.approx(old, abs=1e-5)
        await until(lambda: subscriber.idle(QUEUE) is not None)
        assert subscriber.watermark(QUEUE) == pytest.approx(old, abs=1e-5), "from now on"


# The synchronous edge


async def test_the_synchronous_edge_publishes_now_and_into_lanes(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (_, subscriber):
        many = tasks(130)
        await asyncio.to_thread(blocking.publish_tasks, vhost_url, "render", 0, many)
        got: list[Task] = []
        while len(got) < 130:
            for delivery in await take(subscriber):
                got += delivery.tasks
                await delivery.ack()
        assert {task.job_id for task in got} == {task.job_id for task in many}
        due = time.time() + 0.5
        await asyncio.to_thread(
            blocking.publish_tasks, vhost_url, "render", 0, tasks(due=due), delay=0.5
        )
        [delivery] = await take(subscriber)
        assert time.time() > due - 0.0015
        await delivery.ack()


@pytest.mark.parametrize(
    "url", ["localhost:5672", "http://localhost/", "amqp://localhost:here/", ""]
)
async def test_a_wrong_address_says_what_was_wanted(url: str) -> None:
    for call in (
        lambda: connect(url, "test"),
        lambda: asyncio.to_thread(blocking.publish_tasks, url, "render", 0, tasks()),
    ):
        with pytest.raises(BrokerUnavailable, match="wanted amqp://"):
            await call()


def test_the_synchronous_edge_says_when_rabbitmq_is_away() -> None:
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"cannot connect to RabbitMQ at 127\.0\.0\.1:1"):
        blocking.publish_tasks(CLOSED, "render", 0, tasks())
    with pytest.raises(BrokerUnavailable):
        blocking.group_send(CLOSED, "feed", {"type": "x"})
    assert time.monotonic() - start < PATIENCE


@pytest.mark.parametrize("frozen", ["_publish", "_send"])
async def test_the_synchronous_edge_gives_up_when_rabbitmq_answers_no_more(
    line: Line, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    """A confirm that never comes, from a RabbitMQ whose TCP connection lives on."""
    await declare(line.url, TOPOLOGY)
    loop = asyncio.get_running_loop()
    original = getattr(blocking, frozen)

    def freeze(*args: Any) -> None:
        loop.call_soon_threadsafe(line.flows.clear)
        original(*args)

    monkeypatch.setattr(blocking, frozen, freeze)
    connection = blocking.pika.BlockingConnection

    def patient(parameters: Any) -> Any:
        parameters.socket_timeout = parameters.stack_timeout = PATIENCE
        return connection(parameters)

    monkeypatch.setattr(
        blocking.pika, "BlockingConnection", patient
    )  # it is the confirm that does not come
    monkeypatch.setattr(blocking, "TIMEOUT", 1.0)
    about = (line.url, [("render", 0, tasks(), 0.0)], [("feed", {"type": "x"})])
    with pytest.raises(BrokerUnavailable, match="no answer in time"):
        await asyncio.wait_for(asyncio.to_thread(blocking.send, *about), PATIENCE)


async def test_a_task_and_its_push_take_one_connection(
    vhost_url: str, line: Line, layer: ChannelLayer
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    async with running(vhost_url, [QUEUE]) as (_, subscriber):
        before, some = line.accepted, tasks(3)
        about = (line.url, [("render", 0, some, 0.0)], [("feed", {"type": "x"})])
        await asyncio.to_thread(blocking.send, *about)
        assert line.accepted == before + 1
        [delivery] = await take(subscriber)
        assert [task.job_id for task in delivery.tasks] == [task.job_id for task in some]
        assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "x"}


# The channel layer


@pytest.fixture
async def layer(line: Line, new_layer: NewLayer) -> ChannelLayer:
    return new_layer(line.url)


async def up(layer: ChannelLayer) -> ChannelLayer:
    """Connected: a first push waits a second for that, and no longer."""
    await asyncio.wait_for(asyncio.shield(layer.carehare_connection), PATIENCE)
    return layer


async def test_the_synchronous_edge_reaches_groups(vhost_url: str, layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    assert channel.startswith("progrock.web.")
    await layer.group_add("progrock.feed.0", channel)
    message = {"type": "job.changed", "changes": [{"job": "1", "progress": 42.5, "ended": None}]}
    await asyncio.to_thread(blocking.group_send, vhost_url, "progrock.feed.0", message)
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == message
    await asyncio.to_thread(
        blocking.group_send, vhost_url, "progrock.feed.1", message
    )  # nobody there: fine


async def test_a_push_may_be_larger_than_a_frame(vhost_url: str, layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    for size in (131_000, 131_064, 131_072, 400_000):
        assert await layer.group_send("feed", {"type": "x", "text": "x" * size})
        assert len((await asyncio.wait_for(layer.receive(channel), PATIENCE))["text"]) == size
    assert layer.epoch == 1


async def test_groups_of_one_process_reach_another(
    layer: ChannelLayer, new_layer: NewLayer
) -> None:
    sender = await up(new_layer())
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert await sender.group_send("feed", {"type": "one"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "one"}
    await layer.group_discard("feed", channel)
    assert await sender.group_send("feed", {"type": "two"})
    await layer.group_add("feed", channel)
    assert await sender.group_send("feed", {"type": "three"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "three"}


async def test_a_push_to_a_process_that_is_full_is_dropped_and_harms_nobody(
    layer: ChannelLayer, new_layer: NewLayer
) -> None:
    full = new_layer(local_capacity=1, remote_capacity=1, local_expiry=600.0, expiry=600)
    idle, channel = await full.new_channel(), await layer.new_channel()
    await full.group_add("feed", idle)
    sender = await up(new_layer())
    sent = [
        await sender.group_send("feed", {"type": "x", "n": n}) for n in range(8)
    ]  # nobody receives them
    assert (sent[0], sent[-1]) == (True, False)
    assert not sender.stalled
    await layer.group_add("other", channel)
    assert await sender.group_send("other", {"type": "y"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "y"}
    for n in range(sum(sent)):
        assert (await asyncio.wait_for(full.receive(idle), PATIENCE))["n"] == n
    assert await sender.group_send("feed", {"type": "z"})
    assert (await asyncio.wait_for(full.receive(idle), PATIENCE))["type"] == "z"


async def test_a_process_that_only_sends_has_no_queue_until_it_receives(
    rabbitmq: Broker, vhost_url: str, layer: ChannelLayer
) -> None:
    assert await (await up(layer)).group_send("feed", {"type": "one"})
    assert rabbitmq.queues(vhost_url) == {}
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    [name] = rabbitmq.queues(vhost_url)
    assert name == channel.partition("!")[0]
    assert await layer.group_send("feed", {"type": "two"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "two"}


async def test_a_caller_cancelled_in_an_outage_does_not_kill_the_layer(
    line: Line, layer: ChannelLayer
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert layer.epoch == 1
    await line.cut()
    await until(lambda: not layer.connected)
    calls: list[Awaitable[Any]] = [
        layer.group_add("other", channel),
        layer.group_discard("feed", channel),
    ]
    waiting = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0.1)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    start = time.monotonic()
    assert not await layer.group_send("feed", {"type": "lost"})
    assert 0.5 < time.monotonic() - start < PATIENCE
    await line.mend()
    await until(lambda: layer.connected)
    assert layer.epoch == 2
    assert await layer.group_send("feed", {"type": "found"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "found"}


async def test_callers_cancelled_while_rabbitmq_answers_do_not_end_the_connection(
    layer: ChannelLayer,
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    for number in range(20):
        joining = asyncio.create_task(layer.group_add(f"group-{number}", channel))
        sending = asyncio.create_task(layer.group_send("feed", {"type": "x"}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        joining.cancel()
        sending.cancel()
    assert await layer.group_send("feed", {"type": "last"})
    assert layer.epoch == 1


async def test_an_outage_of_the_layer_is_one_line(
    line: Line, layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await up(layer)
    await line.cut()
    for _ in range(3):
        assert not await layer.group_send("feed", {"type": "lost"})
    await line.mend()
    await until(lambda: layer.connected)
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING", "INFO"]
    assert "Traceback" not in caplog.text


async def test_a_deleted_queue_is_noticed_and_made_again(layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    protocol = layer._carehare_connection.result()._protocol
    with suppress(carehare.ConnectionClosed):  # it may end before the deletion is answered
        await protocol.rpc(spec.Queue.Delete(queue=channel.partition("!")[0], nowait=True))
    await until(lambda: layer.epoch == 2)
    assert await layer.group_send("feed", {"type": "x"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "x"}


async def test_a_deleted_exchange_is_made_again(
    rabbitmq: Broker, vhost_url: str, layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert await layer.group_send("feed", {"type": "x"})
    await layer.receive(channel)
    rabbitmq.api("DELETE", f"exchanges/{vhost_of(vhost_url)}/progrock.groups")
    assert not await layer.group_send("feed", {"type": "lost"})
    await until(lambda: layer.epoch == 2)
    assert await layer.group_send("feed", {"type": "found"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "found"}
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no exchange 'progrock.groups'" in said


async def test_a_push_never_raises(layer: ChannelLayer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await (await up(layer)).group_send("feed", {"type": "x"})

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            "unable to perform operation on <TCPTransport>; the handler is closed"
        )  # uvloop's

    monkeypatch.setattr(layer._carehare_connection.result()._protocol, "publish", fail)
    assert not await layer.group_send("feed", {"type": "x"})


async def test_while_rabbitmq_confirms_nothing_pushes_do_not_pile_up(
    line: Line,
    layer: ChannelLayer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert await (await up(layer)).group_send("feed", {"type": "x"})
    assert not layer.stalled
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 0.2)
    line.flows.clear()
    for _ in range(5):
        assert not await layer.group_send("feed", {"type": "x"})
    assert layer.stalled
    assert layer.connected
    [exchange] = layer._carehare_connection.result()._protocol._exchange_channels.values()
    assert len(exchange._delivering) == 1, "one was tried, the others were not written"
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 20)
    monkeypatch.setattr(channel_layer, "CALM", 0)
    line.flows.set()
    await until(lambda: not layer.stalled)
    assert await layer.group_send("feed", {"type": "x"})
    ours = [
        record.levelname for record in caplog.records if record.name.startswith("progrock.broker.")
    ]
    assert ours == ["INFO", "WARNING", "INFO"]
    assert layer.epoch == 1


@pytest.fixture
async def full(layer: ChannelLayer, new_layer: NewLayer) -> ChannelLayer:
    """A process that receives nothing of the group "feed", which `layer` has filled up."""
    full = new_layer(local_capacity=1, remote_capacity=1, local_expiry=600.0, expiry=600)
    for each, group in ((full, "feed"), (layer, "other")):
        await each.group_add(group, await each.new_channel())
    while await layer.group_send("feed", {"type": "x"}):
        pass
    return full


async def test_a_no_is_an_answer_as_well_and_ends_the_stall(
    line: Line, layer: ChannelLayer, full: ChannelLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not layer.stalled
    [exchange] = layer._carehare_connection.result()._protocol._exchange_channels.values()
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 0.2)
    line.flows.clear()
    assert not await layer.group_send("feed", {"type": "x"})
    assert layer.stalled
    [pushed] = exchange._delivering.values()
    line.flows.set()
    await until(lambda: not layer.stalled)
    assert isinstance(pushed.exception(), carehare.ServerSentNack)
    assert layer.epoch == 1


async def test_a_layer_closes_also_while_it_is_not_connected() -> None:
    layer = ChannelLayer(host=CLOSED)
    assert not await layer.group_send("feed", {"type": "x"})
    async with asyncio.timeout(PATIENCE):
        await layer.close()
    assert not layer.connected
    assert not await layer.group_send("feed", {"type": "x"})


# The topology, for operators


async def test_verify_says_found_wanted_and_left_over(rabbitmq: Broker, vhost_url: str) -> None:
    vhost, api = vhost_of(vhost_url), rabbitmq.management_url
    before = await verify(api, vhost, TOPOLOGY)
    assert "queue progrock.poll.render.0: wanted, not found" in before
    assert "exchange progrock.poll: wanted, not found" in before
    await declare(vhost_url, TOPOLOGY)
    assert await verify(api, vhost, TOPOLOGY) == []
    await declare(vhost_url, TOPOLOGY)  # again: nothing to do
    rabbitmq.api("DELETE", f"queues/{vhost}/{QUEUE}")
    wrong = {
        "durable": True,
        "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-max-length": 9},
    }
    rabbitmq.api("PUT", f"queues/{vhost}/{QUEUE}", wrong)
    found = await verify(api, vhost, Topology({"render": 2}))
    assert f"queue {QUEUE}: found x-delivery-limit 5, wanted 1000" in found
    assert f"queue {QUEUE}: found x-max-length 9, wanted (not set)" in found
    assert f"queue {QUEUE}: found x-dead-letter-exchange (not set), wanted progrock.dead" in found
    assert f"binding progrock.poll --*.render.0--> {QUEUE}: wanted, not found" in found
    assert [line for line in found if "left over" in line] == [
        "queue progrock.poll.report.0: left over, no backend of yours uses it (--prune drains it first)"
    ]
    with pytest.raises(BrokerUnavailable, match="verify"):
        await declare(vhost_url, TOPOLOGY)


async def test_prune_moves_tasks_to_where_they_belong_now(rabbitmq: Broker, vhost_url: str) -> None:
    await declare(vhost_url, Topology({"render": 4, "old": 1}))
    publisher = Publisher(vhost_url, "test")
    some = tasks(60)
    for task in some:
        await publisher.publish("render", shard_of(task.job_id, 4), [task], delay=0)
    await publisher.publish("old", 0, tasks(3), delay=0)
    await raw_publish(vhost_url, poll_queue("render", 3), b"broken")
    await publisher.close()
    now = Topology({"render": 2})
    done = await prune(vhost_url, rabbitmq.management_url, now)
    assert len(done) == 3
    assert all("removed" in each for each in done)
    assert await verify(rabbitmq.management_url, vhost_of(vhost_url), now) == []
    assert len(await dead_messages(vhost_url, 2)) == 2
    async with running(vhost_url, now.poll_queues, declared=False) as (_, subscriber):
        for shard in range(2):
            belongs = {task.job_id for task in some if shard_of(task.job_id, 2) == shard}
            while belongs:
                for delivery in await take(subscriber, poll_queue("render", shard)):
                    belongs -= {task.job_id for task in delivery.tasks}
                    assert {shard_of(task.job_id, 2) for task in delivery.tasks} == {shard}
                    await delivery.ack()


async def test_prune_keeps_what_somebody_consumes(rabbitmq: Broker, vhost_url: str) -> None:
    async with running(vhost_url, [poll_queue("report", 0)]):
        [kept] = await prune(vhost_url, rabbitmq.management_url, Topology({"render": 2}))
        assert kept.startswith("queue progrock.poll.report.0: kept, as it has 1 consumers")


async def test_depths_name_every_queue(rabbitmq: Broker, vhost_url: str) -> None:
    await declare(vhost_url, TOPOLOGY)
    found = await depths(rabbitmq.management_url, vhost_of(vhost_url))
    assert set(found) == {queue.name for queue in TOPOLOGY.queues}


async def test_the_management_api_says_what_is_wrong(rabbitmq: Broker) -> None:
    with pytest.raises(BrokerUnavailable, match="knows no virtual host 'nowhere'"):
        await verify(rabbitmq.management_url, "nowhere", TOPOLOGY)
    with pytest.raises(BrokerUnavailable, match="refused the login"):
        await verify(rabbitmq.management_url.replace("guest:guest", "guest:wrong"), "/", TOPOLOGY)
    with pytest.raises(BrokerUnavailable, match="management API at 127"):
        await verify("http://guest:guest@127.0.0.1:1", "/", TOPOLOGY)


async def test_web_and_worker_work_with_the_rights_of_the_definitions(
    rabbitmq: Broker, vhost_url: str, new_layer: NewLayer
) -> None:
    """The generated file itself, imported: everything works, and nothing more is allowed."""
    vhost = vhost_of(vhost_url)
    made = definitions(TOPOLOGY, {"web": "w p:/@", "worker": "b"}, vhost=vhost)
    names = {user: f"{user}-{vhost}" for user in ("web", "worker")}
    for each in (*made["users"], *made["permissions"]):
        key = "name" if "name" in each else "user"
        each[key] = names[each[key]]
    rabbitmq.api("POST", "definitions", made)
    try:
        assert await verify(rabbitmq.management_url, vhost, TOPOLOGY) == []
        parts = urlsplit(vhost_url)

        def as_user(user: str, password: str) -> str:
            place = parts.netloc.rpartition("@")[2]
            return parts._replace(
                netloc=f"{quote(names[user])}:{quote(password, safe='')}@{place}"
            ).geturl()

        web_url, worker_url = as_user("web", "w p:/@"), as_user("worker", "b")
        web, worker = await up(new_layer(web_url)), await up(new_layer(worker_url))
        channel = await web.new_channel()
        await web.group_add("feed", channel)
        assert await worker.group_send("feed", {"type": "x"})
        assert await asyncio.wait_for(web.receive(channel), PATIENCE) == {"type": "x"}
        await asyncio.to_thread(blocking.publish_tasks, web_url, "render", 0, tasks())
        async with running(worker_url, declared=False) as (publisher, subscriber):
            await (await take(subscriber))[0].ack()
            await publisher.publish("render", 1, tasks(), delay=0.1)
            await (await take(subscriber, poll_queue("render", 1)))[0].ack()
            await publisher.dead_letter(b"x", "a test", {})
        for url in (web_url, worker_url):
            with pytest.raises(BrokerUnavailable, match="declare"):
                await declare(url, Topology({"more": 1}))
        with pytest.raises(PublishFailed):
            await asyncio.to_thread(
                blocking.publish_tasks, web_url, "render", 0, tasks(), delay=1.0
            )
    finally:
        for name in names.values():
            rabbitmq.api("DELETE", f"users/{quote(name)}")


def test_the_names_are_those_of_the_design() -> None:
    assert (DELAY, POLL, DEAD) == ("progrock.delay", "progrock.poll", "progrock.dead")
