"""Decides what is sent to RabbitMQ after a commit: poll tasks in messages, and changes on feeds.

`after` and the functions up to `swept` compute it, and talk to nobody. `send_now` sends it for
synchronous code, `publish` and `push` for asynchronous code. A web process keeps what it cannot
send, and tries again (`progrock.consumers.outgoing`).
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

from progrock import clock, conf, installation, wire
from progrock.audiences import feed_of
from progrock.backends import Options
from progrock.broker import blocking
from progrock.broker.address import MEMORY
from progrock.broker.lanes import Lane, lane_for, spread_of
from progrock.broker.names import INSTALLATION
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, shard_of
from progrock.ledger import Committed, Row
from progrock.models import State

T = TypeVar("T")


class Message(NamedTuple):
    """Poll tasks of one shard that travel together.

    `delay` and `spread` are the arguments of `Publisher.publish`, in seconds.
    """

    backend: str
    shard: int
    tasks: list[Task]
    delay: float
    spread: float = 0.0


class Outbound(NamedTuple):
    """All that is sent after a commit: messages of tasks, and by feed the changes to push."""

    messages: list[Message]
    feeds: dict[str, list[wire.Change]]


def asked(row: Row) -> Committed:
    """The change that a start or a cancel left in the ledger, with a task that is due now.

    A job whose start is under way gets no task, because only a sweep may bring one to an open
    intent. The step after the start sees that a cancel was asked for.
    """
    due_now = row.active and row.state != State.STARTING
    return Committed(row, 0.0 if due_now else None, True)


def unwritten(row: Row, delay: float, now: float) -> Committed:
    """A poll that found nothing new and wrote nothing. A task of the same turn follows it."""
    return Committed(row, delay, False, None, now + delay)


def after(committed: Sequence[Committed], backends: Mapping[str, Options]) -> Outbound:
    """What to send after these changes. A job of a backend that is not configured gets no task."""
    return Outbound(
        _messages(committed, backends), feeds(each.row for each in committed if each.visible)
    )


def _messages(committed: Sequence[Committed], backends: Mapping[str, Options]) -> list[Message]:
    """One message for each shard and lane, and another one there for regular polls."""
    delays: dict[tuple[str, float], list[Committed]] = defaultdict(list)
    for each in committed:
        if each.delay is not None and each.row.backend in backends:
            delays[each.row.backend, each.delay].append(each)
    messages: dict[tuple[str, int, Lane | None, bool], Message] = {}
    for (backend, delay), some in delays.items():
        options = backends[backend]
        lane, regular = lane_for(delay), delay in (options.interval, options.unwatched)
        spread = spread_of(delay) if regular else 0.0
        for each in some:
            row = each.row
            due = row.due_at if each.due is None else each.due
            shard = shard_of(row.id, options.shards)
            key = (backend, shard, lane, regular)
            message = messages.get(key)
            if message is None:
                message = messages[key] = Message(backend, shard, [], delay, spread)
            elif delay < message.delay:
                message = messages[key] = message._replace(delay=delay)
            message.tasks.append(Task(row.id, row.turn, due))
    return list(messages.values())


def feeds(rows: Iterable[Row]) -> dict[str, list[wire.Change]]:
    """The changes that show these jobs as they are now, by the feed of their audience."""
    found: dict[str, list[wire.Change]] = defaultdict(list)
    for row in rows:
        found[feed_of(row.audience)].append(wire.change_of(row))
    return found


def swept(backend: str, shard: int, claimed: Iterable[tuple[str, int]], now: float) -> Message:
    """The message for jobs that a sweep of one queue has claimed, as (job_id, turn): due now."""
    tasks = [Task(job_id, turn, now) for job_id, turn in claimed]
    return Message(backend, shard, tasks, 0.0)


def send_now(url: str, outbound: Outbound) -> None:
    """Publish and push over one connection, and return when RabbitMQ has confirmed the tasks.

    Raises BrokerUnavailable or PublishFailed. Sends nothing where the URL is MEMORY, as in tests.
    """
    if url == MEMORY:
        return
    batches = [(each.backend, each.shard, each.tasks, each.delay) for each in outbound.messages]
    events = [(feed, _event(changes)) for feed, changes in outbound.feeds.items()]
    blocking.send(url, batches, events, conf.names(), clock=clock.now)


async def publish(publisher: Publisher, messages: Sequence[Message]) -> None:
    """Publish, and return when RabbitMQ has confirmed all messages. Raises PublishFailed."""
    await to_the_end(
        [
            publisher.publish(
                each.backend, each.shard, each.tasks, delay=each.delay, spread=each.spread
            )
            for each in messages
        ]
    )


async def push(layer: Any, feeds: Mapping[str, Sequence[wire.Change]]) -> None:
    """Push changes to all web processes, at most once. Their repair finds those that get lost."""
    await to_the_end([layer.group_send(feed, _event(changes)) for feed, changes in feeds.items()])


def _event(changes: Sequence[wire.Change]) -> dict[str, Any]:
    return {"type": "job.changed", "changes": changes, INSTALLATION: installation.known()}


async def to_the_end(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all coroutines concurrently, and each to its end although another one has failed.

    Otherwise a failed publish would cancel a start that is under way. Returns the results in order.
    Raises the exception of the one that failed, or a group where several did.
    """
    if len(work) == 1:
        return [await work[0]]
    done = await asyncio.gather(*work, return_exceptions=True)
    if failed := [each for each in done if isinstance(each, BaseException)]:
        raise failed[0] if len(failed) == 1 else BaseExceptionGroup("several parts failed", failed)
    return cast(list[T], done)
