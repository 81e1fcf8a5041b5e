"""Takes poll tasks out of their queues, and holds each message until it is acked."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage

from progrock.broker.connection import CLOSE_TIMEOUT, keep, label, translated, tried
from progrock.broker.errors import BrokenMessage, BrokerUnavailable, PublishFailed
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, decode, deliveries_before, entered_queue
from progrock.broker.topology import Topology, declare_on, parse_poll_queue

logger = logging.getLogger(__name__)

LOOK = 1.0  # seconds between two looks at whether every consumer is still there
SILENCE = 3.0  # seconds without a delivery after which a queue counts as empty
OVERSLEPT = 3 * LOOK  # seconds without a look: the whole process stood still
OPEN_TIMEOUT = 10.0
STUCK = 3  # consumes in a row without an answer after which a queue is more than slow
TROUBLES = {
    "slow": (logging.WARNING, "trying again"),
    "stuck": (
        logging.ERROR,
        "was it lost in a crash? then: rabbitmqctl delete_queue, manage.py topology --declare",
    ),
    "missing": (logging.ERROR, "looking again every second (manage.py topology --declare?)"),
}


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One message of due tasks. It stays RabbitMQ's until `ack`; unacked ones come back when the connection ends."""

    queue: str
    backend: str
    shard: int
    tasks: list[Task]
    deliveries: int  # how often it was delivered before: 0 the first time
    _consumer: "_Consumer"
    _channel: Channel
    _tag: int

    async def ack(self) -> None:
        """Say that it is handled. Does nothing after its connection was lost: it comes again."""
        await self._consumer.ack(self._channel, self._tag)

    def redeliver(self, reason: str) -> None:
        """Have it delivered again, with all else that is unacked, by starting the connection over."""
        self._consumer.restart(reason)


@dataclass(slots=True)
class _Consumer:
    """The consumer of one queue."""

    queue: str
    tag: str
    backend: str
    shard: int
    restart: Callable[[str], None]
    wrapper: AbstractChannel | None = None  # aio-pika's, of the channel below
    channel: Channel | None = None
    unacked: int = 0
    last: float = 0.0  # monotonic: when something arrived or was acked, or the consumer began
    watermark: float | None = None
    opening: asyncio.Task[None] | None = None
    #: The channel of a basic.consume that timed out. RabbitMQ may still be working on it, so wait
    #: for the channel to close before trying again.
    given_up: Channel | None = None
    vain: int = 0  # consumes in a row that were not answered in time
    trouble: str = ""  # why it cannot be consumed, as said last: a key of TROUBLES

    @property
    def is_opening(self) -> bool:
        """A consume is under way: ours, or one that we gave up and RabbitMQ has not."""
        under_way = self.opening is not None and not self.opening.done()
        return under_way or (self.given_up is not None and not self.given_up.is_closed)

    @property
    def alive(self) -> bool:
        # aiormq forgets the tag of a consumer that the broker cancelled, and says nothing.
        channel = self.channel
        return (
            channel is not None
            and not self.is_opening
            and not channel.is_closed
            and self.tag in channel.consumers
        )

    def reset(self) -> None:
        """What was not acked is RabbitMQ's again."""
        self.wrapper = self.channel = self.watermark = None
        self.unacked = 0

    async def ack(self, channel: Channel, tag: int) -> None:
        if channel is not self.channel or channel.is_closed:
            return
        self.unacked -= 1
        self.last = time.monotonic()
        async with tried(OPEN_TIMEOUT):
            await channel.basic_ack(tag, wait=False)


class Subscriber:
    """One connection with one consumer for each of `queues`; broken messages go to the dead queue by `publisher`.

    `declare`: the topology to make at each start; None where the user may not configure anything.
    """

    def __init__(
        self,
        url: str,
        name: str,
        queues: Iterable[str],
        publisher: Publisher,
        deliver: Callable[[Delivery], None],
        *,
        prefetch: int = 32,
        declare: Topology | None = None,
    ) -> None:
        self._url, self._name, self._publisher, self._deliver = url, name, publisher, deliver
        self._prefetch, self._topology = prefetch, declare
        self._consumers: dict[str, _Consumer] = {}
        role = name.partition(" ")[
            0
        ]  # the connection may tell all the queues, a consumer tells its own
        for queue in queues:
            if (parsed := parse_poll_queue(queue)) is None:
                raise ValueError(f"{queue!r} is not a poll queue")
            tag = label(f"{role} {parsed[0]}.{parsed[1]}")
            self._consumers[queue] = _Consumer(queue, tag, *parsed, self.restart)
        self._lost = asyncio.Event()
        self._reason = ""
        self._stopping = False
        self._looked = 0.0  # monotonic
        self._keeper: asyncio.Task[None] | None = None
        self.connected = False

    async def run(self) -> None:
        """Consumes until `close`; reconnects by itself."""
        self._keeper = asyncio.create_task(keep(self._url, self._name, self._session))
        try:
            await asyncio.wait([self._keeper])
        finally:
            self._keeper.cancel()
        if not self._keeper.cancelled():
            self._keeper.result()

    def consumes(self, queue: str) -> bool:
        """Whether the queue is being consumed right now."""
        return self._consumers[queue].alive

    def idle(self, queue: str) -> float | None:
        """Seconds since something arrived or was acked; None while that says nothing.

        That is: without a consumer, while something is being worked on (it is this process itself that is late then),
        and after a sleep of the whole process, until it has seen what waits.
        """
        consumer, now = self._consumers[queue], time.monotonic()
        if not consumer.alive or consumer.unacked or now - self._looked > OVERSLEPT:
            return None
        return now - consumer.last

    def watermark(self, queue: str) -> float | None:
        """Tasks due before this (epoch seconds) should have arrived; None while unknown."""
        idle = self.idle(queue)
        return (
            time.time()
            if idle is not None and idle >= SILENCE
            else self._consumers[queue].watermark
        )

    def restart(self, reason: str) -> None:
        """Starts the connection over: everything unacked comes back."""
        self._reason = reason
        self._lost.set()

    async def stop_taking(self) -> None:
        """No more deliveries (SIGTERM); those taken can still be acked, the others go back at the end."""
        if self._stopping:
            return
        self._stopping = True
        cancels = []
        for consumer in self._consumers.values():
            if consumer.channel is not None and consumer.alive:
                cancels.append(consumer.channel.basic_cancel(consumer.tag))
            if consumer.opening:
                consumer.opening.cancel()
        async with tried(CLOSE_TIMEOUT):
            await asyncio.gather(*cancels, return_exceptions=True)

    async def close(self) -> None:
        """Ends `run` and closes the connection."""
        await self.stop_taking()
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    async def _session(self, connection: AbstractConnection, up: Callable[[], None]) -> None:
        self._lost.clear()
        self._reason = "the connection was lost"
        connection.close_callbacks.add(lambda *_: self._lost.set())
        try:
            while True:
                gone = [
                    each
                    for each in self._consumers.values()
                    if not each.alive and not each.is_opening
                ]
                if gone and not self._stopping:
                    await self._open(connection, gone)
                if not self.connected:
                    self.connected = True
                    up()
                if (now := time.monotonic()) - self._looked > OVERSLEPT:
                    for consumer in self._consumers.values():
                        consumer.last = now
                self._looked = now
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._lost.wait()
                    raise BrokerUnavailable(self._reason)
        finally:
            self.connected = False
            opening = [
                consumer.opening for consumer in self._consumers.values() if consumer.opening
            ]
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            for consumer in self._consumers.values():
                consumer.opening = consumer.given_up = None
                consumer.reset()

    async def _open(self, connection: AbstractConnection, gone: Sequence[_Consumer]) -> None:
        """Side by side, and beside all else after a while: a queue that RabbitMQ is still bringing up holds nothing up."""
        if self._topology:
            await declare_on(connection, self._topology)
        if self._stopping:
            return
        for consumer in gone:
            if consumer.opening:
                consumer.opening.result()  # raises a mistake of ours
            consumer.opening = asyncio.create_task(self._consume(connection, consumer))
        await asyncio.wait(
            [consumer.opening for consumer in gone if consumer.opening], timeout=LOOK
        )
        if self._lost.is_set():
            raise BrokerUnavailable(self._reason)

    async def _consume(self, connection: AbstractConnection, consumer: _Consumer) -> None:
        """A channel of its own for each queue: one that is missing does not stop the others."""
        if consumer.wrapper is not None:
            logger.warning(
                "%s: RabbitMQ ended the consumer of %s; starting it again",
                self._name,
                consumer.queue,
            )
            async with tried(OPEN_TIMEOUT):
                await consumer.wrapper.close()
        consumer.reset()
        try:
            async with (
                translated(f"cannot consume {consumer.queue}"),
                asyncio.timeout(OPEN_TIMEOUT),
            ):
                wrapper = connection.channel(publisher_confirms=False)
                await wrapper.initialize()
                await wrapper.set_qos(self._prefetch)
                channel = cast(Channel, await wrapper.get_underlay_channel())
                consumer.wrapper, consumer.channel = wrapper, channel

                async def receive(message: DeliveredMessage) -> None:
                    await self._receive(consumer, channel, message)

                await channel.basic_consume(consumer.queue, receive, consumer_tag=consumer.tag)
                consumer.last = time.monotonic()
        except BrokerUnavailable as error:
            slow = isinstance(
                error.__cause__, TimeoutError
            )  # RabbitMQ is still bringing the queue up
            consumer.given_up, consumer.vain = (
                (consumer.channel, consumer.vain + 1) if slow else (None, 0)
            )
            consumer.reset()
            if self._lost.is_set():
                self._reason = str(error)
                return
            trouble = "missing" if not slow else "slow" if consumer.vain < STUCK else "stuck"
            if consumer.trouble != trouble:
                level, hint = TROUBLES[trouble]
                logger.log(level, "%s: %s; %s", self._name, error, hint)
            consumer.trouble = trouble
        else:
            consumer.trouble, consumer.vain = "", 0

    async def _receive(
        self, consumer: _Consumer, channel: Channel, message: DeliveredMessage
    ) -> None:
        now = time.time()
        if channel is not consumer.channel:
            return  # a late one of a channel that was given up: it has gone back
        consumer.unacked += 1
        consumer.last = time.monotonic()
        tag: int = message.delivery_tag or 0
        try:
            tasks = decode(message.body)
        except BrokenMessage as error:
            try:
                await self._publisher.dead_letter(
                    message.body, str(error), {"queue": consumer.queue, "key": message.routing_key}
                )
            except PublishFailed as failure:
                self.restart(str(failure))
            else:
                await consumer.ack(channel, tag)
            return
        about = message.header.properties
        headers = about.headers or {}
        # `due` alone is no watermark: a task with a long delay passes through this queue between
        # two lanes, long before it is due.
        consumer.watermark = min(tasks[-1].due, entered_queue(headers, about.timestamp, now), now)
        if not self._stopping:
            self._deliver(
                Delivery(
                    queue=consumer.queue,
                    backend=consumer.backend,
                    shard=consumer.shard,
                    tasks=tasks,
                    deliveries=deliveries_before(headers, bool(message.redelivered)),
                    _consumer=consumer,
                    _channel=channel,
                    _tag=tag,
                )
            )
