"""Reads, replays and discards what lies in the dead queue: messages that could not be handled, with the reason."""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

from progrock.broker.connection import connect, shut, translated
from progrock.broker.errors import BrokenMessage
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, decode, last_death, shard_of
from progrock.broker.topology import DEAD, POLL, Topology, parse_poll_queue

#: Letters that are worked on at once, so that their messages travel together. Fewer than 32: RabbitMQ keeps later acks of
#: quorum queues back, and forgets them where the channel closes before it has sent them on (7 of 248, on 3.10).
AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead message. `id` stays the same while it lies there; `key` is the routing key that it came by."""

    id: str
    reason: str
    queue: str
    key: str
    time: datetime | None
    jobs: list[str]
    headers: Mapping[str, Any]
    body: bytes


async def read(url: str, chosen: Callable[[Letter], bool], most: int) -> tuple[list[Letter], int]:
    """The first `most` of the chosen letters, and how many letters there are. They stay where they are.

    RabbitMQ counts such a look as a delivery, so the queue has an endless delivery limit.
    """
    async with _dead_queue(url) as queue:
        found: list[Letter] = []
        count, letters = await _letters(queue)
        async for letter, _ in letters:
            if len(found) == most:
                break
            if chosen(letter):
                found.append(letter)
        return found, count


async def replay(
    url: str, topology: Topology, chosen: Callable[[Letter], bool]
) -> tuple[int, list[str]]:
    """Send the chosen letters' tasks to the queues that they belong to now, due as they were; returns how many went.

    What cannot be read, and what is of a backend that there is no more, stays: a sentence each. Raises BrokerError.
    """
    publisher = Publisher(url, "deadletters")
    stay: list[str] = []

    async def send(letter: Letter, message: AbstractIncomingMessage) -> bool:
        try:
            await forward(publisher, topology, letter.key, letter.body)
        except BrokenMessage as error:
            stay.append(f"{letter.id} stays: {error}")
            return False
        await message.ack()
        return True

    try:
        return await _each(url, chosen, send), stay
    finally:
        await publisher.close()


async def discard(url: str, chosen: Callable[[Letter], bool]) -> int:
    """Delete the chosen letters; returns how many there were."""

    async def delete(letter: Letter, message: AbstractIncomingMessage) -> bool:
        await message.ack()
        return True

    return await _each(url, chosen, delete)


async def forward(publisher: Publisher, topology: Topology, key: str, body: bytes) -> int:
    """Send the tasks of a message that came by `<lane>.<backend>.<shard>` to the queues that they belong to now.

    Returns how many. Raises BrokenMessage or PublishFailed.
    """
    backend = (parse_poll_queue(f"{POLL}.{key.partition('.')[2]}") or ("",))[0]
    if not (shards := topology.backends.get(backend)):
        raise BrokenMessage(f"no backend is named {backend!r} (any more)")
    belongs: dict[int, list[Task]] = defaultdict(list)
    for task in (tasks := decode(body)):
        belongs[shard_of(task.job_id, shards)].append(task)
    await asyncio.gather(
        *(publisher.publish(backend, shard, some, delay=0) for shard, some in belongs.items())
    )
    return len(tasks)


async def _each(
    url: str,
    chosen: Callable[[Letter], bool],
    work: Callable[[Letter, AbstractIncomingMessage], Awaitable[bool]],
) -> int:
    """Work on the chosen ones of the letters that are there now; returns how many were worked on with success."""
    done = 0
    async with _dead_queue(url) as queue:
        some: list[Awaitable[bool]] = []
        _, letters = await _letters(queue)
        async for letter, message in letters:
            if chosen(letter):
                some.append(work(letter, message))
            if len(some) == AT_ONCE:
                done += sum(await asyncio.gather(*some))
                some.clear()
        done += sum(await asyncio.gather(*some))
        await queue.get(fail=False)  # answered when the acks before it are done
    return done


@asynccontextmanager
async def _dead_queue(url: str) -> AsyncIterator[AbstractQueue]:
    """The queue on a connection of its own: what was not acked goes back when that closes."""
    connection = await connect(url, "deadletters")
    try:
        async with translated(f"cannot read {DEAD}"):
            channel = await connection.channel()
            yield await channel.get_queue(DEAD)
    finally:
        await shut(connection)


async def _letters(
    queue: AbstractQueue,
) -> tuple[int, AsyncIterator[tuple[Letter, AbstractIncomingMessage]]]:
    """How many letters there are now, and each of them with its message.

    The count is that of the first fetch, which is answered after what the last look gave back is in the queue again (with
    a slow disk that takes a while). The number in the answer to a declaration waits for nothing.
    """
    first = await queue.get(fail=False)
    others = (first.message_count or 0) if first else 0

    async def letters() -> AsyncIterator[tuple[Letter, AbstractIncomingMessage]]:
        message = first
        for _ in range(others):
            if message is None:
                return
            yield _letter(message), message
            message = await queue.get(fail=False)
        if message:
            yield _letter(message), message

    return others + (first is not None), letters()


def _letter(message: AbstractIncomingMessage) -> Letter:
    """Told by our own headers where a worker sent it here, else by RabbitMQ's."""
    headers: dict[str, Any] = dict(message.headers)
    death = last_death(headers)
    key = str(headers.get("key") or message.routing_key or "")
    queue, reason, time = headers.get("queue"), headers.get("reason"), message.timestamp
    if reason is None and parse_poll_queue(str(death.get("queue"))):
        queue, time = death["queue"], death.get("time")
        reason = f"RabbitMQ gave it up: {death.get('reason')} (delivered too often, or rejected)"
    try:
        jobs = list(dict.fromkeys(task.job_id for task in decode(message.body)))
    except BrokenMessage as error:
        jobs, reason = [], reason or str(error)
    _, backend, shard = f"{key}..".split(".")[:3]
    return Letter(
        id=hashlib.sha256(
            f"{message.message_id} {key} {reason}".encode() + message.body
        ).hexdigest()[:10],
        reason=str(reason or f"no queue for {key}"),
        queue=str(queue or f"{POLL}.{backend}.{shard}"),
        key=key,
        time=time if isinstance(time, datetime) else None,
        jobs=jobs,
        headers=headers,
        body=message.body,
    )
