"""The subscriber against a real RabbitMQ: what it takes, what comes back, what it lives through."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from progrock.broker import consumer as consumer_module
from progrock.broker import subscriber as subscriber_module
from progrock.broker.address import vhost_of
from progrock.broker.consumer import Delivery
from progrock.broker.errors import PublishFailed
from progrock.broker.names import NAMES
from progrock.broker.tasks import encode
from progrock.broker.topology import declare
from tests.amqp import (
    QUEUE,
    TOPOLOGY,
    Line,
    NewLayer,
    Receiver,
    poll,
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


async def test_each_shard_has_its_queue(vhost_url: str) -> None:
    async with running(vhost_url) as (publisher, subscriber):
        for backend, shard in (("render", 0), ("render", 1), ("report", 0)):
            await publisher.publish(backend, shard, tasks(), delay=0.1)
        for backend, shard in (("report", 0), ("render", 1), ("render", 0)):
            [delivery] = await take(subscriber, NAMES.poll_queue(backend, shard))
            assert (delivery.backend, delivery.shard) == (backend, shard)
            await delivery.ack()


def jobs(deliveries: Iterable[Delivery]) -> list[list[str]]:
    """The jobs of each delivery."""
    return [[task.job_id for task in delivery.tasks] for delivery in deliveries]


async def test_what_was_acked_is_gone_and_the_rest_comes_back(vhost_url: str) -> None:
    """With two unacked messages, the next one comes only after RabbitMQ has read an ack."""
    async with running(vhost_url, [QUEUE], prefetch=2) as (publisher, subscriber):

        async def publish(count: int) -> list[str]:
            some = tasks(count)
            await publisher.publish("render", 0, some, delay=0)
            return [task.job_id for task in some]

        async def both() -> list[Delivery]:
            await until(lambda: len(subscriber.received[QUEUE]) == 2)
            return await take(subscriber)

        kept, done, next_one = [await publish(count) for count in (2, 1, 1)]
        first, second = await both()
        assert jobs([first, second]) == [kept, done]
        await second.ack()
        assert jobs(await take(subscriber)) == [next_one]
        subscriber.restart("a test wants it")
        again = await both()
        assert jobs(again) == [kept, next_one]
        assert [each.deliveries for each in again] == [1, 1]
        await first.ack()  # of the old connection: does nothing
        for each in again:
            await each.ack()
        last = [await publish(1), await publish(1)]
        assert jobs(await both()) == last
        subscriber.restart("once more")
        assert jobs(await both()) == last


async def test_stop_delivering_leaves_the_rest_to_others_and_still_acks(vhost_url: str) -> None:
    async with running(vhost_url, [QUEUE]) as (publisher, subscriber):
        for _ in range(3):
            await publisher.publish("render", 0, tasks(), delay=0)
        await until(lambda: len(subscriber.received[QUEUE]) == 3)
        taken, *held = await take(subscriber)
        await subscriber.stop_delivering()
        await taken.ack()
        async with running(vhost_url, [QUEUE], declared=False) as (_, other):
            await publisher.publish("render", 0, new := tasks(), delay=0)
            assert jobs(await take(other)) == [[new[0].job_id]]
            await subscriber.close()
            rest: list[Delivery] = []
            while len(rest) < 2:
                rest += await take(other)
            assert jobs(rest) == jobs(held)
        assert not subscriber.received[QUEUE]


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
        # This one passes through on a long way and is not due yet.
        await publisher.publish("render", 0, tasks(due=time.time() + 50), delay=0)
        [second] = await take(subscriber)
        watermark = subscriber.watermark(QUEUE)
        assert watermark is not None
        assert begun <= watermark <= time.time()
        await second.ack()
        await first.ack()
        await until(lambda: (subscriber.idle(QUEUE) or 0) > 3)
        now = time.time()
        assert now <= (subscriber.watermark(QUEUE) or 0) <= time.time()


async def test_a_cancelled_consumer_is_noticed_and_renewed(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE, NAMES.poll_queue("report", 0)], declare=TOPOLOGY) as (
        publisher,
        subscriber,
    ):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: not subscriber.consumes(QUEUE))
        await until(lambda: subscriber.consumes(QUEUE))
        await publisher.publish("render", 0, tasks(), delay=0.2)
        [delivery] = await take(subscriber)
        await delivery.ack()


async def test_channels_that_rabbitmq_closes_are_opened_again(
    rabbitmq: Broker, vhost_url: str
) -> None:
    async with running(vhost_url, [QUEUE], declare=TOPOLOGY) as (publisher, subscriber):
        for _ in range(2):
            await publisher.publish("render", 0, tasks(), delay=0)
        await until(lambda: len(subscriber.received[QUEUE]) == 2)
        acked, kept = await take(subscriber)
        await acked.ack()
        await acked.ack()  # RabbitMQ closes the channel, because it knows this delivery no more
        [again] = await take(subscriber)
        assert (again.tasks, again.deliveries) == (kept.tasks, 1)
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
    rabbitmq: Broker,
    vhost_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker that may not declare anything waits until somebody does."""
    tries, consume = 0, consumer_module.Channel.basic_consume

    async def counted(*args: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        return await consume(*args, **options)

    monkeypatch.setattr(consumer_module.Channel, "basic_consume", counted)
    monkeypatch.setattr(subscriber_module, "CHECK", 0.1)
    report = NAMES.poll_queue("report", 0)
    async with running(vhost_url, [QUEUE, report]) as (publisher, subscriber):
        rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: complaints(caplog) == ["ERROR"])
        await publisher.publish("report", 0, tasks(), delay=0)
        [delivery] = await take(subscriber, report)
        await delivery.ack()
        seen = tries
        await until(lambda: tries > seen + 2)
        assert complaints(caplog) == ["ERROR"]
        await declare(vhost_url, TOPOLOGY)
        await publisher.publish("render", 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()


@asynccontextmanager
async def slow_consumes(line: Line, subscriber: Receiver) -> AsyncIterator[Callable[[], int]]:
    """RabbitMQ answers no consume in time, as while it still brings a queue up.

    Gives a function that tells how many consumes it did not answer.
    """
    attempts, consume = 0, consumer_module.Channel.basic_consume

    async def late(*args: Any, **options: Any) -> Any:
        nonlocal attempts
        line.flows.clear()
        try:
            return await consume(*args, **options)
        finally:
            line.flows.set()
            attempts += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(consumer_module, "OPEN_TIMEOUT", 0.5)
        patch.setattr(consumer_module.Channel, "basic_consume", late)
        subscriber.restart("a test wants it")
        yield lambda: attempts


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The levels of what was said of queues that could not be consumed; INFO: one is again."""
    return [
        each.levelname
        for each in caplog.records
        if each.name == "progrock.broker.consumer"
        and ("cannot consume" in each.getMessage() or "is consumed again" in each.getMessage())
    ]


async def test_a_queue_that_answers_no_consume_in_time_is_warned_of_once_and_served_when_it_does(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Consumes that are answered too late hold nothing back."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(consumer_module, "STUCK", 1000)
    monkeypatch.setattr(subscriber_module, "CHECK", 0.1)
    async with running(line.url, [QUEUE]) as (publisher, subscriber):
        await publisher.publish("render", 0, some := tasks(), delay=0)
        async with slow_consumes(line, subscriber) as attempts:
            await until(lambda: attempts() >= 3)
            subscriber.received.clear()  # what came before
        [delivery] = await take(subscriber)
        assert [task.job_id for task in delivery.tasks] == [task.job_id for task in some]
        await delivery.ack()
        await until(lambda: subscriber.consumes(QUEUE))
    assert complaints(caplog) == ["WARNING", "INFO"], "each is said once"
    assert "cannot consume progrock.poll.render.0: timed out" in caplog.text


async def test_a_slow_queue_that_turns_out_to_be_missing_is_an_error(
    rabbitmq: Broker,
    vhost_url: str,
    line: Line,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(subscriber_module, "CHECK", 0.1)
    monkeypatch.setattr(consumer_module, "STUCK", 1000)
    async with running(line.url, [QUEUE]) as (publisher, subscriber):
        async with slow_consumes(line, subscriber) as attempts:
            await until(lambda: attempts() >= 1)
            rabbitmq.api("DELETE", f"queues/{vhost_of(vhost_url)}/{QUEUE}")
        await until(lambda: complaints(caplog) == ["WARNING", "ERROR"])
        await declare(vhost_url, TOPOLOGY)
        await publisher.publish("render", 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()
        await until(lambda: subscriber.consumes(QUEUE))
    assert complaints(caplog) == ["WARNING", "ERROR", "INFO"], "each is said once"


async def test_a_queue_that_does_not_come_up_for_long_is_an_error(
    line: Line, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """RabbitMQ 3.10 loses a queue declared in the last second before a crash.

    The queue stays in the list and answers nobody.
    """
    monkeypatch.setattr(subscriber_module, "CHECK", 0.1)
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
    slow, is_up = NAMES.poll_queue("report", 0), asyncio.Event()
    async with running(vhost_url, [slow, QUEUE]) as (publisher, subscriber):
        begin = consumer_module.Consumer.open

        async def wait(consumer: consumer_module.Consumer, connection: Any) -> None:
            if consumer.queue == slow:
                await is_up.wait()
            await begin(consumer, connection)

        monkeypatch.setattr(consumer_module.Consumer, "open", wait)
        subscriber.restart("a test wants it")
        await until(lambda: not subscriber.connected)
        for backend in ("report", "render"):
            await publisher.publish(backend, 0, tasks(), delay=0)
        [delivery] = await take(subscriber)
        await delivery.ack()
        assert not subscriber.consumes(slow)
        # The silence is proof, so that lost tasks of this queue can be swept.
        await until(lambda: (subscriber.idle(QUEUE) or 0) > subscriber_module.SILENCE)
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
        # RabbitMQ 3.10 loses a queue that was declared in the last second before a crash.
        await asyncio.sleep(2)
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


async def test_forged_headers_are_taken_for_none(vhost_url: str) -> None:
    """They may neither stop the consumer nor stay unacked.

    RabbitMQ 4 drops a client's x-death, 3.x lets it through.
    """
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
        assert subscriber.idle(QUEUE) is not None


async def test_a_frozen_rabbitmq_holds_the_end_up_once_and_not_once_a_queue(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []
    monkeypatch.setattr(subscriber_module, "CLOSE_TIMEOUT", 0.5)
    async with running(line.url) as (_, subscriber):

        async def cancel(channel: Any, tag: str) -> None:
            cancelled.append(tag)
            await asyncio.Event().wait()

        monkeypatch.setattr(consumer_module.Channel, "basic_cancel", cancel)
        for _ in range(2):
            async with asyncio.timeout(PATIENCE):
                await subscriber.stop_delivering()
        names = ["render.0", "render.1", "report.0"]
        assert sorted(cancelled) == [NAMES.label(f"test {name}") for name in names], "each once"


async def test_silence_says_nothing_while_something_is_worked_on_or_after_a_sleep(
    vhost_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    awake, asleep = 0.0, 0.0  # seconds that have passed besides, for this process and without it
    clocks = SimpleNamespace(
        monotonic=lambda: time.monotonic() + awake, time=lambda: time.time() + asleep
    )
    for module in (consumer_module, subscriber_module):
        monkeypatch.setattr(module, "time", clocks)
    monkeypatch.setattr(subscriber_module, "SUSPENDED", 30.0)  # a busy machine is none that sleeps
    async with running(vhost_url, [QUEUE], clock=clocks.time) as (publisher, subscriber):
        await publisher.publish("render", 0, tasks(due=time.time() - 100), delay=0)
        [slow] = await take(subscriber)
        old = pytest.approx(slow.tasks[0].due, abs=1e-5)
        awake += 60  # a round that takes a minute
        assert subscriber.watermark(QUEUE) == old
        await slow.ack()
        assert subscriber.watermark(QUEUE) == old, "the silence begins with the ack"
        awake += 60
        now = clocks.time()
        assert now <= (subscriber.watermark(QUEUE) or 0) <= clocks.time(), (
            "silent, and nothing under way"
        )
        asleep += 60  # the whole machine is suspended
        assert subscriber.watermark(QUEUE) == old
        await until(lambda: subscriber.idle(QUEUE) is not None)
        assert subscriber.watermark(QUEUE) == old, "from now on"
