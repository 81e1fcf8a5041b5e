"""Publishes poll tasks: gathers them into messages, and waits until RabbitMQ has confirmed them."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import DeliveryError, PublishError

from progrock.broker.connection import keep, translated
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.lanes import Lane, lane_for, on_grid
from progrock.broker.names import NAMES, Names
from progrock.broker.tasks import MAX_TASKS, Task, encode, properties
from progrock.broker.topology import route

READY_TIMEOUT = 2.0
CONFIRM_TIMEOUT = 10.0
NOT_CONNECTED = "not connected to RabbitMQ"

_Key = tuple[Lane | None, str, int, float]


class _Batch:
    """The tasks that are gathered for one message. Each call that added some waits for `done`."""

    __slots__ = ("delay", "done", "tasks", "timer")

    def __init__(
        self, delay: float, done: asyncio.Future[None], timer: asyncio.TimerHandle
    ) -> None:
        self.tasks: list[Task] = []
        self.delay, self.done, self.timer = delay, done, timer


class Publisher:
    """One connection, opened at the first use and kept.

    A task waits up to `gather` seconds for others that can travel in the same message. `clock`
    gives the time (epoch seconds) by which tasks are due.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        gather: float = 0.005,
        names: Names = NAMES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.names, self._clock = names, clock
        self._url, self._name, self._gather = url, f"{name} publisher", gather
        self._batches: dict[_Key, _Batch] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._channel: AbstractChannel | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection right now."""
        return self._ready.is_set()

    async def ready(self) -> None:
        """Wait for the connection. Raises PublishFailed if there is none within two seconds."""
        self.start()
        if not self.connected:
            await self._wait()
        if not self.connected:
            raise PublishFailed(NOT_CONNECTED)

    def start(self) -> None:
        """Begin to connect. The first publish does so as well."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(keep(self._url, self._name, self._run, self.names))

    async def close(self) -> None:
        """Send what was gathered, wait for the confirms, and close the connection."""
        for key in list(self._batches):
            self._flush(key)
        if self._sending:
            await asyncio.wait(self._sending)
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float, spread: float = 0.0
    ) -> None:
        """Send tasks of one shard; return when RabbitMQ has confirmed them.

        `delay` (seconds) is what was decided for all of them, and chooses the lane. `spread`
        (seconds) is for regular polls. All tasks of the message then get one due time: the latest
        of theirs, plus a random 0 to `spread`, rounded up to the grid. This keeps a message
        together, lets messages merge, and stops all of them from falling due at once.

        Raises PublishFailed if a message was returned (no such queue), refused or lost, or if there
        is no connection within two seconds. Some tasks may have been sent all the same.
        """
        self.start()
        key = (lane_for(delay), backend, shard, spread)
        waiting, taken = [], 0
        while taken < len(tasks):
            batch = self._batches.get(key) or self._open(key, delay)
            room = tasks[taken : taken + MAX_TASKS - len(batch.tasks)]
            batch.tasks.extend(room)
            taken += len(room)
            waiting.append(batch.done)
            if len(batch.tasks) >= MAX_TASKS:
                self._flush(key)
        for done in waiting:
            await asyncio.shield(done)  # others may wait for it as well

    async def dead_letter(self, body: bytes, reason: str, headers: Mapping[str, Any]) -> None:
        """Send a body that could not be handled to the dead queue. Raises PublishFailed.

        `reason` is a sentence for operators. It is added to the `headers`, cut to 1000 characters.
        """
        self.start()
        await self._wait()
        about = {
            "app_id": "progrock",
            "type": "progrock.dead",
            "timestamp": int(self._clock()),
            "delivery_mode": 2,
        }
        await self._send(
            self.names.dead,
            "dead",
            body,
            {**about, "headers": {**headers, "reason": reason[:1000]}},
        )

    def _open(self, key: _Key, delay: float) -> _Batch:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        done.add_done_callback(_seen)  # because perhaps nobody waits any more
        batch = self._batches[key] = _Batch(
            delay, done, loop.call_later(self._gather, self._flush, key)
        )
        return batch

    def _flush(self, key: _Key) -> None:
        batch = self._batches.pop(key)
        batch.timer.cancel()
        sending = asyncio.create_task(self._send_batch(key, batch))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_batch(self, key: _Key, batch: _Batch) -> None:
        _, backend, shard, spread = key
        try:
            if spread:
                due = on_grid(
                    max(task.due for task in batch.tasks) + random.uniform(0.0, spread), shard
                )
                batch.tasks = [
                    Task(job_id, turn, due, again) for job_id, turn, _, again in batch.tasks
                ]
            await self._wait()
            now = self._clock()
            left = min(task.due for task in batch.tasks) - now
            exchange, routing_key, expiration = route(self.names, backend, shard, batch.delay, left)
            about = properties(batch.tasks, now, self.names.installation()) | {
                "expiration": expiration
            }
            await self._send(exchange, routing_key, encode(batch.tasks), about)
        except PublishFailed as error:
            batch.done.set_exception(error)
        except Exception as error:  # whatever it is, nobody may take these tasks for published
            batch.done.set_exception(PublishFailed(f"{type(error).__name__}: {error}"))
        else:
            batch.done.set_result(None)
        finally:
            batch.done.cancel()  # does nothing, unless this task itself was cancelled

    async def _wait(self) -> None:
        """Wait for the connection, but not for long."""
        if not self._ready.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(READY_TIMEOUT):
                    await self._ready.wait()

    async def _send(
        self, exchange: str, routing_key: str, body: bytes, about: dict[str, Any]
    ) -> None:
        if self._channel is None:
            raise PublishFailed(NOT_CONNECTED)
        try:
            async with translated("publish"), asyncio.timeout(CONFIRM_TIMEOUT):
                try:
                    to = await self._channel.get_exchange(exchange, ensure=False)
                    # Mandatory, and confirmed: both are aio-pika's defaults.
                    await to.publish(aio_pika.Message(body, **about), routing_key)
                except PublishError as error:
                    raise PublishFailed(
                        f"{exchange} has no queue for {routing_key}: {error.args[0]}"
                    ) from error
                except DeliveryError as error:
                    raise PublishFailed(
                        f"RabbitMQ refused a message for {exchange}, {routing_key}"
                    ) from error
        except BrokerUnavailable as error:
            self._lost.set()  # even if it was only a timeout, this connection cannot be trusted
            raise PublishFailed(str(error)) from error

    async def _run(self, connection: AbstractConnection, up: Any) -> None:
        self._lost.clear()
        connection.close_callbacks.add(lambda *_: self._lost.set())
        async with translated("open a channel"):
            channel = connection.channel(on_return_raises=True)
            channel.close_callbacks.add(lambda *_: self._lost.set())
            await channel.initialize()
            underlay = await channel.get_underlay_channel()
        try:
            self._channel = channel
            self._ready.set()
            up()
            await self._lost.wait()
            raise BrokerUnavailable("the connection was lost")
        finally:
            self._ready.clear()
            self._channel = None
            # If a connection is lost while aiormq (6.9.4) writes a message, aiormq fails the write
            # and the confirm, but awaits only the write. asyncio would report the confirm.
            for confirm in getattr(underlay, "confirmations", {}).values():
                confirm.add_done_callback(_seen)


def _seen(future: asyncio.Future[Any]) -> None:
    """Read the exception, if there is one, so that asyncio does not report it as unread."""
    if not future.cancelled():
        future.exception()
