"""Consumes poll queues over one connection, which it keeps for a process's whole life."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from aio_pika.abc import AbstractConnection

from progrock.broker.connection import CLOSE_TIMEOUT, best_effort, connect, keep, shut
from progrock.broker.consumer import Consumer, Delivery
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.mark import claim
from progrock.broker.publisher import Publisher
from progrock.broker.topology import Topology, declare_on

logger = logging.getLogger(__name__)

CHECK = 1.0  # seconds between two checks that every consumer is still there
SILENCE = 3.0  # seconds without a delivery after which a queue counts as empty
SUSPENDED = 3 * CHECK  # a process that made no check for so many seconds was suspended


class Subscriber:
    """One connection with one consumer for each of `queues`. Each message goes to `deliver`.

    Broken messages go to the dead queue by `publisher`. `declare` is the topology to make at each
    start, or None if the user may not configure anything. At most `prefetch` messages of a queue
    are unacked at a time. Raises ValueError for a name that is no poll queue's.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._url, self._name, self._names = url, name, publisher.names
        self._deliver, self._topology = deliver, declare
        self._consumers: dict[str, Consumer] = {}
        role = name.partition(" ")[0]  # the connection's name may list all queues
        for queue in queues:
            if (parsed := self._names.parse_poll_queue(queue)) is None:
                raise ValueError(f"{queue!r} is not a poll queue")
            backend, shard = parsed
            self._consumers[queue] = Consumer(
                queue=queue,
                backend=backend,
                shard=shard,
                name=name,
                tag=self._names.label(f"{role} {backend}.{shard}"),
                prefetch=prefetch,
                publisher=publisher,
                deliver=self._pass_on,
                restart=self.restart,
                clock=clock,
            )
        self._lost = asyncio.Event()
        self._reason = ""
        self._stopping = False
        self._checked = 0.0  # when the consumers were checked last, by `clock`
        self._keeper: asyncio.Task[None] | None = None
        self._asked_whose = False
        self.connected = False

    async def run(self) -> None:
        """Consume until `close`; reconnects by itself."""
        self._keeper = asyncio.create_task(keep(self._url, self._name, self._session, self._names))
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
        """Seconds since something arrived or was acked; None if silence proves nothing.

        It proves nothing if there is no consumer, if a task is in work (then we are the slow ones),
        or if this process was suspended and has not yet read its socket.
        """
        consumer = self._consumers[queue]
        if not consumer.alive or consumer.unacked or self._clock() - self._checked > SUSPENDED:
            return None
        return time.monotonic() - consumer.last

    def watermark(self, queue: str) -> float | None:
        """Tasks due before this (epoch seconds) should have arrived; None while unknown."""
        idle = self.idle(queue)
        if idle is not None and idle >= SILENCE:
            return self._clock()
        return self._consumers[queue].watermark

    def restart(self, reason: str) -> None:
        """Start the connection over, so that everything unacked comes again; `reason` is logged."""
        self._reason = reason
        self._lost.set()

    async def stop_delivering(self) -> None:
        """Deliver no more (SIGTERM). Delivered messages can still be acked.

        RabbitMQ delivers what is not acked to another worker when the connection ends.
        """
        if self._stopping:
            return
        self._stopping = True
        cancels = []
        for consumer in self._consumers.values():
            if consumer.alive:
                cancels.append(consumer.cancel())
            if consumer.opening:
                consumer.opening.cancel()
        async with best_effort(CLOSE_TIMEOUT):
            await asyncio.gather(*cancels, return_exceptions=True)

    async def close(self) -> None:
        """End `run` and close the connection."""
        await self.stop_delivering()
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def _pass_on(self, delivery: Delivery) -> None:
        if not self._stopping:
            self._deliver(delivery)

    async def _session(self, connection: AbstractConnection, up: Callable[[], None]) -> None:
        """The life of one connection: check each second that every consumer is there."""
        self._lost.clear()
        self._reason = "the connection was lost"
        connection.close_callbacks.add(lambda *_: self._lost.set())
        consumers = self._consumers.values()
        asking = asyncio.create_task(self._ask_whose())
        try:
            while True:
                gone = [each for each in consumers if not each.alive and not each.is_opening]
                if gone and not self._stopping:
                    await self._open(connection, gone)
                if not self.connected:
                    self.connected = True
                    up()
                # by `clock`, because time.monotonic stands still while the machine is suspended
                if (now := self._clock()) - self._checked > SUSPENDED:
                    for consumer in consumers:
                        consumer.last = time.monotonic()
                self._checked = now
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK):
                        await self._lost.wait()
                    raise BrokerUnavailable(self._reason)
        finally:
            self.connected = False
            opening = [consumer.opening for consumer in consumers if consumer.opening]
            for task in (asking, *opening):
                task.cancel()
            await asyncio.gather(asking, *opening, return_exceptions=True)
            for consumer in consumers:
                consumer.lost()

    async def _ask_whose(self) -> None:
        """Log once if another installation uses the queues. They are consumed all the same.

        The other one's messages go to the dead queue, so nothing is lost. A developer's new
        database is a new installation too, and must work without a command first.
        """
        if self._asked_whose:
            return
        with suppress(BrokerUnavailable):  # the next connection asks again
            # On a connection of its own, because asking may publish. During an alarm RabbitMQ reads
            # nothing more from a connection that has published.
            connection = await connect(self._url, f"{self._name} mark", self._names)
            try:
                sentence = await claim(connection, self._names, declare=self._topology is not None)
                self._asked_whose = True
                if sentence:
                    logger.error("%s", sentence)
            finally:
                await shut(connection)

    async def _open(self, connection: AbstractConnection, gone: Sequence[Consumer]) -> None:
        """Open consumers concurrently, and stop waiting for them after a second.

        So a slow queue, which RabbitMQ is still bringing up, does not delay the others.
        """
        if self._topology:
            await declare_on(connection, self._topology)
        if self._stopping:
            return
        for consumer in gone:
            if consumer.opening:
                consumer.opening.result()  # raises what `_consume` does not expect
            consumer.opening = asyncio.create_task(self._consume(connection, consumer))
        opening = [consumer.opening for consumer in gone if consumer.opening]
        await asyncio.wait(opening, timeout=CHECK)
        if self._lost.is_set():
            raise BrokerUnavailable(self._reason)

    async def _consume(self, connection: AbstractConnection, consumer: Consumer) -> None:
        try:
            await consumer.open(connection)
        except BrokerUnavailable as error:
            if self._lost.is_set():
                self._reason = str(error)
            else:
                consumer.complain(error)
