"""Reads, replays and discards letters: messages in the dead queue, which nobody could handle."""

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
from progrock.broker.names import Names
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, decode, last_death, shard_of
from progrock.broker.topology import Topology, addressee

# How many letters are worked on at once, so that their tasks travel together. It must be below 32,
# because RabbitMQ batches more acks than that for a quorum queue and loses them if the channel
# closes first (7 of 248 were lost on 3.10).
AT_ONCE = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A message in the dead queue.

    `id` stays the same while it lies there. `queue` is the poll queue that it came from or was
    meant for, and `key` the routing key that it came by. `job_ids` are those of its tasks.
    """

    id: str
    reason: str
    queue: str
    key: str
    time: datetime | None
    job_ids: list[str]
    headers: Mapping[str, Any]
    body: bytes


async def read(
    url: str, names: Names, chosen: Callable[[Letter], bool], most: int
) -> tuple[list[Letter], int]:
    """Read the chosen letters, at most `most`; returns them and how many letters there are in all.

    They stay where they are. Raises BrokerUnavailable.
    """
    async with _dead_queue(url, names) as queue:
        found: list[Letter] = []
        count, letters = await _letters(queue, names)
        async for letter, _ in letters:
            if len(found) == most:
                break
            if chosen(letter):
                found.append(letter)
        return found, count


async def replay(
    url: str, topology: Topology, chosen: Callable[[Letter], bool]
) -> tuple[int, list[str]]:
    """Send the chosen letters' tasks to the queues that they belong to now, due as they were.

    Returns how many letters went, and a sentence for each that stays, because it cannot be read,
    its backend is gone, or it is of another installation. Raises BrokerError.
    """
    publisher = Publisher(url, "deadletters", names=topology.names)
    stay: list[str] = []

    async def send(letter: Letter, message: AbstractIncomingMessage) -> bool:
        try:
            if reason := topology.names.why_not_ours(letter.headers):
                raise BrokenMessage(reason)
            await forward(publisher, topology, letter.key, letter.body)
        except BrokenMessage as error:
            stay.append(f"{letter.id} stays: {error}")
            return False
        await message.ack()
        return True

    try:
        return await _each(url, topology.names, chosen, send), stay
    finally:
        await publisher.close()


async def discard(url: str, names: Names, chosen: Callable[[Letter], bool]) -> int:
    """Delete the chosen letters; returns how many there were. Raises BrokerUnavailable."""

    async def delete(letter: Letter, message: AbstractIncomingMessage) -> bool:
        await message.ack()
        return True

    return await _each(url, names, chosen, delete)


async def forward(publisher: Publisher, topology: Topology, key: str, body: bytes) -> int:
    """Send the tasks of a message to the queues that they belong to now.

    `key` is the routing key that the message came by, `<lane>.<backend>.<shard>`, and `body` its
    body. The tasks get `again=True`, because after a crash they may be sent on a second time.
    Returns how many tasks there were. Raises BrokenMessage or PublishFailed.
    """
    backend, _ = addressee(key)
    if not (shards := topology.backends.get(backend)):
        raise BrokenMessage(f"no backend is named {backend!r} (any more)")
    belongs: dict[int, list[Task]] = defaultdict(list)
    for task in (tasks := decode(body)):
        belongs[shard_of(task.job_id, shards)].append(task._replace(again=True))
    await asyncio.gather(
        *(publisher.publish(backend, shard, some, delay=0) for shard, some in belongs.items())
    )
    return len(tasks)


async def _each(
    url: str,
    names: Names,
    chosen: Callable[[Letter], bool],
    work: Callable[[Letter, AbstractIncomingMessage], Awaitable[bool]],
) -> int:
    """Do `work` for each chosen letter that is there now; returns how often it returned True."""
    done = 0
    async with _dead_queue(url, names) as queue:
        some: list[Awaitable[bool]] = []
        _, letters = await _letters(queue, names)
        async for letter, message in letters:
            if chosen(letter):
                some.append(work(letter, message))
            if len(some) == AT_ONCE:
                done += sum(await asyncio.gather(*some))
                some.clear()
        done += sum(await asyncio.gather(*some))
        await queue.get(fail=False)  # is answered only after RabbitMQ has done the acks before it
    return done


@asynccontextmanager
async def _dead_queue(url: str, names: Names) -> AsyncIterator[AbstractQueue]:
    """The dead queue on a connection of its own; letters that were not acked go back at its end."""
    connection = await connect(url, "deadletters", names)
    try:
        async with translated(f"cannot read {names.dead}"):
            channel = await connection.channel()
            yield await channel.get_queue(names.dead)
    finally:
        await shut(connection)


async def _letters(
    queue: AbstractQueue, names: Names
) -> tuple[int, AsyncIterator[tuple[Letter, AbstractIncomingMessage]]]:
    """How many letters there are now, and each of them with its message.

    The count is from basic.get, because that is answered only after the letters of an earlier
    command are back in the queue. A declaration is answered at once and may say 0.
    """
    first = await queue.get(fail=False)
    others = (first.message_count or 0) if first else 0

    async def letters() -> AsyncIterator[tuple[Letter, AbstractIncomingMessage]]:
        message = first
        for _ in range(others):
            if message is None:
                return
            yield _letter(message, names), message
            message = await queue.get(fail=False)
        if message:
            yield _letter(message, names), message

    return others + (first is not None), letters()


def _letter(message: AbstractIncomingMessage, names: Names) -> Letter:
    """Read a letter from our own headers if a worker sent it here, else from RabbitMQ's."""
    headers: dict[str, Any] = dict(message.headers)
    death = last_death(headers)
    key = str(headers.get("key") or message.routing_key or "")
    queue, reason, time = headers.get("queue"), headers.get("reason"), message.timestamp
    if reason is None and names.parse_poll_queue(str(death.get("queue"))):
        queue, time = death["queue"], death.get("time")
        reason = f"RabbitMQ gave it up: {death.get('reason')} (delivered too often, or rejected)"
    try:
        job_ids = list(dict.fromkeys(task.job_id for task in decode(message.body)))
    except BrokenMessage as error:
        job_ids, reason = [], reason or str(error)
    content = f"{message.message_id} {key} {reason}".encode() + message.body
    return Letter(
        id=hashlib.sha256(content).hexdigest()[:10],
        reason=str(reason or f"no queue for {key}"),
        queue=str(queue or names.poll_queue(*addressee(key))),
        key=key,
        time=time if isinstance(time, datetime) else None,
        job_ids=job_ids,
        headers=headers,
        body=message.body,
    )
