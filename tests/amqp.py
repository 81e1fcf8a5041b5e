"""What the broker's tests share: a running publisher and subscriber, and a line that can be cut."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aio_pika

from progrock.broker import blocking
from progrock.broker.channel_layer import ChannelLayer
from progrock.broker.connection import connect, shut
from progrock.broker.consumer import Delivery
from progrock.broker.names import NAMES
from progrock.broker.publisher import Publisher
from progrock.broker.subscriber import Subscriber
from progrock.broker.tasks import Task
from progrock.broker.topology import Topology, declare
from tests.services import PATIENCE

TOPOLOGY = Topology({"render": 2, "report": 1})
QUEUE = NAMES.poll_queue("render", 0)
HOUR = 3600.0
CLOSED = "amqp://guest:guest@127.0.0.1:1/"  # nobody listens there
NewLayer = Callable[..., ChannelLayer]


def tasks(count: int = 1, *, due: float | None = None) -> list[Task]:
    """Tasks of new jobs, due now or at `due`."""
    return [Task(str(uuid4()), 1, time.time() if due is None else due) for _ in range(count)]


def publish_tasks(
    url: str, backend: str, shard: int, tasks: list[Task], *, delay: float = 0.0
) -> None:
    """Publish tasks of one shard as Django's synchronous code does."""
    blocking.send(url, [(backend, shard, tasks, delay)], [])


class Receiver(Subscriber):
    """A subscriber that keeps what it receives, until `take`; `deliver` may be replaced."""

    def __init__(
        self, url: str, name: str, queues: Iterable[str], publisher: Publisher, **options: Any
    ) -> None:
        self.received: dict[str, deque[Delivery]] = defaultdict(deque)
        self.deliver: Callable[[Delivery], None] = self.keep
        super().__init__(url, name, queues, publisher, lambda each: self.deliver(each), **options)

    def keep(self, delivery: Delivery) -> None:
        self.received[delivery.queue].append(delivery)


@asynccontextmanager
async def running(
    url: str, queues: Iterable[str] = TOPOLOGY.poll_queues, *, declared: bool = True, **options: Any
) -> AsyncIterator[tuple[Publisher, Receiver]]:
    """A publisher and a subscriber that are connected."""
    if declared:
        await declare(url, TOPOLOGY)
    publisher = Publisher(url, "test")
    subscriber = Receiver(url, "test", queues := list(queues), publisher, **options)
    run = asyncio.create_task(subscriber.run())
    publisher.start()
    try:
        await until(lambda: subscriber.connected and publisher.connected)
        await until(lambda: all(map(subscriber.consumes, queues)))
        yield publisher, subscriber
    finally:
        await subscriber.close()
        await publisher.close()
        await run


async def until(true: Callable[[], Any], seconds: float = PATIENCE) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def take(
    subscriber: Receiver, queue: str = QUEUE, *, seconds: float = PATIENCE
) -> list[Delivery]:
    """Wait for a delivery, then take all that are here; raises TimeoutError."""
    await until(lambda: subscriber.received[queue], seconds)
    return list(subscriber.received.pop(queue))


async def dead_messages(url: str, count: int) -> list[aio_pika.abc.AbstractIncomingMessage]:
    """Take so many messages out of the dead queue."""
    connection = await connect(url, "test")
    found: list[aio_pika.abc.AbstractIncomingMessage] = []
    try:
        queue = await (await connection.channel()).get_queue(NAMES.dead)
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
    """Put any body into a queue."""
    connection = await connect(url, "test")
    try:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(body, headers=headers), queue)
    finally:
        await shut(connection)


class Line:
    """A proxy in front of RabbitMQ; `url` goes through it.

    It can be cut and mended, and nothing passes while `flows` is cleared. `accepted` counts its
    connections, and `held` how many of them have sent something that did not pass.
    """

    def __init__(self, url: str) -> None:
        self.target = urlsplit(url)
        self.server: asyncio.Server | None = None
        self.port = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.flows = asyncio.Event()
        self.flows.set()
        self.accepted, self.held = 0, 0

    @property
    def url(self) -> str:
        """RabbitMQ's address through this line."""
        login = self.target.netloc.rpartition("@")[0]
        return self.target._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    async def mend(self) -> None:
        """Accept connections, on the same port each time."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """End all connections and accept none."""
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
                    if not self.flows.is_set():
                        self.held += 1
                        await self.flows.wait()
                    to.write(data)
                    await to.drain()
            to.transport.abort()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        self.writers -= {writer, far_writer}


async def poll(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait in a thread until the management API says so, because its figures are seconds old."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):
            await asyncio.sleep(0.2)


async def up(layer: ChannelLayer) -> ChannelLayer:
    """Wait until a layer is connected, because a single push waits for that only a second."""
    async with asyncio.timeout(PATIENCE):
        while not await layer.group_send("up", {"type": "x"}):
            await asyncio.sleep(0.01)
    return layer
