"""Takes poll tasks out of their queues, and holds each message until it is acked."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import cast

from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel as Wire
from aiormq.abc import DeliveredMessage

from progrock.broker.connection import CLOSE_TIMEOUT, keep, label, translated, tried
from progrock.broker.errors import BrokenMessage, BrokerUnavailable, PublishFailed
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import MAX_TASKS, Task, decode, deliveries_before, entered_queue
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
    _inbox: "_Inbox"
    _wire: Wire
    _tag: int

    async def ack(self) -> None:
        """Handled. Does nothing when its connection is gone: then the message has gone back already."""
        await self._inbox.ack(self._wire, self._tag)


@dataclass(slots=True)
class _Inbox:
    """One queue's consumer and what it has brought."""

    queue: str
    tag: str
    backend: str
    shard: int
    waiting: deque[Delivery] = field(default_factory=deque)
    arrival: asyncio.Event = field(default_factory=asyncio.Event)
    channel: AbstractChannel | None = None
    wire: Wire | None = None
    unacked: int = 0
    last: float = 0.0  # monotonic: when something arrived or was acked, or the consumer began
    mark: float | None = None
    opening: asyncio.Task[None] | None = None
    given_up: Wire | None = (
        None  # its consume was not answered in time: RabbitMQ is at it until it closes this channel
    )
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
        wire = self.wire
        return (
            wire is not None
            and not self.is_opening
            and not wire.is_closed
            and self.tag in wire.consumers
        )

    def reset(self) -> None:
        """What was not acked is RabbitMQ's again."""
        self.waiting.clear()
        self.channel = self.wire = self.mark = None
        self.unacked = 0

    async def ack(self, wire: Wire, tag: int) -> None:
        if wire is not self.wire or wire.is_closed:
            return
        self.unacked -= 1
        self.last = time.monotonic()
        async with tried(OPEN_TIMEOUT):
            await wire.basic_ack(tag, wait=False)


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
        *,
        prefetch: int = 32,
        declare: Topology | None = None,
    ) -> None:
        self._url, self._name, self._publisher = url, name, publisher
        self._prefetch, self._topology = prefetch, declare
        self._inboxes: dict[str, _Inbox] = {}
        role = name.partition(" ")[
            0
        ]  # the connection may tell all the queues, a consumer tells its own
        for queue in queues:
            if (parsed := parse_poll_queue(queue)) is None:
                raise ValueError(f"{queue!r} is not a poll queue")
            self._inboxes[queue] = _Inbox(queue, label(f"{role} {parsed[0]}.{parsed[1]}"), *parsed)
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

    async def take(self, queue: str, cap: int = MAX_TASKS) -> list[Delivery]:
        """Waits for a delivery, then gives all that wait in this queue, up to `cap` tasks in sum (one at least).

        Gives none once `stop_taking` was called.
        """
        inbox = self._inboxes[queue]
        while not inbox.waiting:
            if self._stopping:
                return []
            inbox.arrival.clear()
            await inbox.arrival.wait()
        taken = [inbox.waiting.popleft()]
        room = cap - len(taken[0].tasks)
        while inbox.waiting and (room := room - len(inbox.waiting[0].tasks)) >= 0:
            taken.append(inbox.waiting.popleft())
        return taken

    def idle(self, queue: str) -> float | None:
        """Seconds since something arrived or was acked; None while that says nothing.

        That is: without a consumer, while something is being worked on (it is this process itself that is late then),
        and after a sleep of the whole process, until it has seen what waits.
        """
        inbox, now = self._inboxes[queue], time.monotonic()
        if not inbox.alive or inbox.unacked or now - self._looked > OVERSLEPT:
            return None
        return now - inbox.last

    def watermark(self, queue: str) -> float | None:
        """Tasks due before this (epoch seconds) should have arrived; None while unknown."""
        idle = self.idle(queue)
        return time.time() if idle is not None and idle >= SILENCE else self._inboxes[queue].mark

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
        for inbox in self._inboxes.values():
            inbox.waiting.clear()
            inbox.arrival.set()
            if inbox.wire is not None and inbox.alive:
                cancels.append(inbox.wire.basic_cancel(inbox.tag))
            if inbox.opening:
                inbox.opening.cancel()
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
                    for each in self._inboxes.values()
                    if not each.alive and not each.is_opening
                ]
                if gone and not self._stopping:
                    await self._open(connection, gone)
                if not self.connected:
                    self.connected = True
                    up()
                if (now := time.monotonic()) - self._looked > OVERSLEPT:
                    for inbox in self._inboxes.values():
                        inbox.last = now
                self._looked = now
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK):
                        await self._lost.wait()
                    raise BrokerUnavailable(self._reason)
        finally:
            self.connected = False
            opening = [inbox.opening for inbox in self._inboxes.values() if inbox.opening]
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            for inbox in self._inboxes.values():
                inbox.opening = inbox.given_up = None
                inbox.reset()

    async def _open(self, connection: AbstractConnection, gone: Sequence[_Inbox]) -> None:
        """Side by side, and beside all else after a while: a queue that RabbitMQ is still bringing up holds nothing up."""
        if self._topology:
            await declare_on(connection, self._topology)
        if self._stopping:
            return
        for inbox in gone:
            if inbox.opening:
                inbox.opening.result()  # raises a mistake of ours
            inbox.opening = asyncio.create_task(self._consume(connection, inbox))
        await asyncio.wait([inbox.opening for inbox in gone if inbox.opening], timeout=LOOK)
        if self._lost.is_set():
            raise BrokerUnavailable(self._reason)

    async def _consume(self, connection: AbstractConnection, inbox: _Inbox) -> None:
        """A channel of its own for each queue: one that is missing does not stop the others."""
        if inbox.channel is not None:
            logger.warning(
                "%s: RabbitMQ ended the consumer of %s; starting it again", self._name, inbox.queue
            )
            async with tried(OPEN_TIMEOUT):
                await inbox.channel.close()
        inbox.reset()
        try:
            async with translated(f"cannot consume {inbox.queue}"), asyncio.timeout(OPEN_TIMEOUT):
                channel = connection.channel(publisher_confirms=False)
                await channel.initialize()
                await channel.set_qos(self._prefetch)
                wire = cast(Wire, await channel.get_underlay_channel())
                inbox.channel, inbox.wire = channel, wire

                async def receive(message: DeliveredMessage) -> None:
                    await self._receive(inbox, wire, message)

                await wire.basic_consume(inbox.queue, receive, consumer_tag=inbox.tag)
                inbox.last = time.monotonic()
        except BrokerUnavailable as error:
            slow = isinstance(
                error.__cause__, TimeoutError
            )  # RabbitMQ is still bringing the queue up
            inbox.given_up, inbox.vain = (inbox.wire, inbox.vain + 1) if slow else (None, 0)
            inbox.reset()
            if self._lost.is_set():
                self._reason = str(error)
                return
            trouble = "missing" if not slow else "slow" if inbox.vain < STUCK else "stuck"
            if inbox.trouble != trouble:
                level, hint = TROUBLES[trouble]
                logger.log(level, "%s: %s; %s", self._name, error, hint)
            inbox.trouble = trouble
        else:
            inbox.trouble, inbox.vain = "", 0

    async def _receive(self, inbox: _Inbox, wire: Wire, message: DeliveredMessage) -> None:
        now = time.time()
        if wire is not inbox.wire:
            return  # a late one of a channel that was given up: it has gone back
        inbox.unacked += 1
        inbox.last = time.monotonic()
        tag: int = message.delivery_tag or 0
        try:
            tasks = decode(message.body)
        except BrokenMessage as error:
            try:
                await self._publisher.dead_letter(
                    message.body, str(error), {"queue": inbox.queue, "key": message.routing_key}
                )
            except PublishFailed as failure:
                self.restart(str(failure))
            else:
                await inbox.ack(wire, tag)
            return
        about = message.header.properties
        headers = about.headers or {}
        # `due` alone is no watermark: a task with a long delay passes through this queue between
        # two lanes, long before it is due.
        inbox.mark = min(tasks[-1].due, entered_queue(headers, about.timestamp, now), now)
        delivery = Delivery(
            queue=inbox.queue,
            backend=inbox.backend,
            shard=inbox.shard,
            tasks=tasks,
            deliveries=deliveries_before(headers, bool(message.redelivered)),
            _inbox=inbox,
            _wire=wire,
            _tag=tag,
        )
        if not self._stopping:
            inbox.waiting.append(delivery)
            inbox.arrival.set()
