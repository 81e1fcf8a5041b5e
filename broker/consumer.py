"""Consumes one poll queue, and hands each of its messages on."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage

from progrock.broker.connection import best_effort, translated
from progrock.broker.errors import BrokenMessage, BrokerUnavailable, PublishFailed
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, dead_headers, decode, deliveries_before, entered_queue

logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 10.0
STUCK = 3  # a queue that does not answer so many consumes in a row is more than slow
TROUBLES = {
    "slow": (logging.WARNING, "trying again"),
    "stuck": (
        logging.ERROR,
        "trying again; if RabbitMQ lost it in a crash, run `rabbitmqctl delete_queue` and"
        " `manage.py topology --declare`",
    ),
    "missing": (
        logging.ERROR,
        "trying again each second; `manage.py topology --declare` makes a queue that is missing",
    ),
}


@dataclass(slots=True, kw_only=True)
class Delivery:
    """One message of tasks, which RabbitMQ keeps until it is acked.

    Unacked messages are delivered again after the connection has ended.
    """

    queue: str
    backend: str
    shard: int
    tasks: list[Task]
    deliveries: int  # how often it was delivered before: 0 the first time
    _consumer: "Consumer"
    _channel: Channel
    _tag: int

    async def ack(self) -> None:
        """Say that it is handled. Does nothing once its connection is lost: then it comes again."""
        await self._consumer.ack(self._channel, self._tag)

    def redeliver(self, reason: str) -> None:
        """Have it delivered again, with all else that is unacked, by a new connection."""
        self._consumer.restart(reason)


@dataclass(slots=True, kw_only=True)
class Consumer:
    """The consumer of one queue. Broken messages go to the dead queue, the others to `deliver`.

    It has a channel of its own, because RabbitMQ closes the channel when the queue is missing.
    """

    queue: str
    backend: str
    shard: int
    name: str  # of the connection, for the log
    tag: str  # of the consumer, for the management UI
    prefetch: int
    publisher: Publisher
    deliver: Callable[[Delivery], None]
    restart: Callable[[str], None]  # starts the connection over
    clock: Callable[[], float]  # epoch seconds

    unacked: int = 0
    #: When something arrived or was acked, or the consumer began (monotonic clock).
    last: float = 0.0
    #: Tasks due before this (epoch seconds) should have arrived; None while nothing has.
    watermark: float | None = None
    #: The task that runs `open`, or ran it last.
    opening: asyncio.Task[None] | None = None

    _wrapper: AbstractChannel | None = field(default=None, init=False)  # aio-pika's, of _channel
    _channel: Channel | None = field(default=None, init=False)
    #: The channel of a basic.consume that timed out. RabbitMQ may still be working on it, so wait
    #: for the channel to close before trying again.
    _given_up: Channel | None = field(default=None, init=False)
    _unanswered: int = field(default=0, init=False)  # consumes in a row that timed out
    _trouble: str = field(default="", init=False)  # what was logged last: a key of TROUBLES

    @property
    def is_opening(self) -> bool:
        """Whether a consume is under way: ours, or one that we gave up and RabbitMQ has not."""
        under_way = self.opening is not None and not self.opening.done()
        return under_way or (self._given_up is not None and not self._given_up.is_closed)

    @property
    def alive(self) -> bool:
        """Whether the queue is being consumed."""
        # If RabbitMQ cancels the consumer, aiormq only forgets its tag.
        channel = self._channel
        return (
            channel is not None
            and not self.is_opening
            and not channel.is_closed
            and self.tag in channel.consumers
        )

    async def open(self, connection: AbstractConnection) -> None:
        """Start to consume. Raises BrokerUnavailable."""
        ended = self._wrapper is not None
        if self._wrapper is not None:
            logger.warning(
                "%s: RabbitMQ ended the consumer of %s; starting it again", self.name, self.queue
            )
            async with best_effort(OPEN_TIMEOUT):
                await self._wrapper.close()
        self.reset()
        try:
            async with translated(f"cannot consume {self.queue}"), asyncio.timeout(OPEN_TIMEOUT):
                wrapper = connection.channel(publisher_confirms=False)
                await wrapper.initialize()
                await wrapper.set_qos(self.prefetch)
                channel = cast(Channel, await wrapper.get_underlay_channel())
                self._wrapper, self._channel = wrapper, channel

                async def receive(message: DeliveredMessage) -> None:
                    await self._receive(channel, message)

                await channel.basic_consume(self.queue, receive, consumer_tag=self.tag)
                self.last = time.monotonic()
        except BrokerUnavailable as error:
            if _is_slow(error):
                self._given_up, self._unanswered = self._channel, self._unanswered + 1
            else:
                self._given_up, self._unanswered = None, 0
            self.reset()
            raise
        if ended or self._trouble:
            logger.info("%s: %s is consumed again", self.name, self.queue)
        self._trouble, self._unanswered = "", 0

    def complain(self, error: BrokerUnavailable) -> None:
        """Log why `open` failed, unless that was logged already."""
        slow = "slow" if self._unanswered < STUCK else "stuck"
        trouble = slow if _is_slow(error) else "missing"
        if self._trouble != trouble:
            level, hint = TROUBLES[trouble]
            logger.log(level, "%s: %s; %s", self.name, error, hint)
        self._trouble = trouble

    def reset(self) -> None:
        """Forget the channel. RabbitMQ delivers again what was not acked."""
        self._wrapper = self._channel = self.watermark = None
        self.unacked = 0

    def lost(self) -> None:
        """Forget everything about a connection that has ended."""
        self.opening = self._given_up = None
        self.reset()

    async def cancel(self) -> None:
        """Ask RabbitMQ for no more messages."""
        if self._channel is not None:
            await self._channel.basic_cancel(self.tag)

    async def ack(self, channel: Channel, tag: int) -> None:
        """Ack a delivery, unless its channel is gone."""
        if channel is not self._channel or channel.is_closed:
            return
        self.unacked -= 1
        self.last = time.monotonic()
        async with best_effort(OPEN_TIMEOUT):
            await channel.basic_ack(tag, wait=False)

    async def _receive(self, channel: Channel, message: DeliveredMessage) -> None:
        now = self.clock()
        if channel is not self._channel:
            return  # the channel was given up, and RabbitMQ will deliver this again
        self.unacked += 1
        self.last = time.monotonic()
        tag: int = message.delivery_tag or 0
        properties = message.header.properties
        headers = properties.headers or {}
        try:
            if reason := self.publisher.names.why_not_ours(headers):
                raise BrokenMessage(reason)
            tasks = decode(message.body)
        except BrokenMessage as error:
            about = dead_headers(self.queue, message.routing_key or "", headers)
            try:
                await self.publisher.dead_letter(message.body, str(error), about)
            except PublishFailed as failure:
                self.restart(str(failure))
            else:
                logger.warning(
                    "a message went to the dead queue: %s, queue=%s (see manage.py deadletters)",
                    error,
                    self.queue,
                )
                await self.ack(channel, tag)
            return
        # `due` alone is no watermark: a task with a long delay passes through this queue between
        # two lanes, long before it is due.
        self.watermark = min(tasks[-1].due, entered_queue(headers, properties.timestamp, now), now)
        self.deliver(
            Delivery(
                queue=self.queue,
                backend=self.backend,
                shard=self.shard,
                tasks=tasks,
                deliveries=deliveries_before(headers, bool(message.redelivered)),
                _consumer=self,
                _channel=channel,
                _tag=tag,
            )
        )


def _is_slow(error: BrokerUnavailable) -> bool:
    """Whether `open` timed out, because RabbitMQ is still bringing the queue up."""
    return isinstance(error.__cause__, TimeoutError)
