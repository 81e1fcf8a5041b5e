"""Removes from RabbitMQ what no backend uses any more, and moves its tasks to other queues."""

import asyncio

from aio_pika.abc import AbstractChannel, AbstractQueue

from progrock.broker.address import vhost_of
from progrock.broker.connection import connect, shut, translated
from progrock.broker.errors import BrokenMessage, NotOurs
from progrock.broker.mark import take_over
from progrock.broker.operate.letters import forward
from progrock.broker.operate.management import Differences, arrow, differences
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import dead_headers
from progrock.broker.topology import Topology

# RabbitMQ says "no consumers" as well if the queue's leader does not answer within 250 ms. So we
# ask three times before we believe it.
_CHECKS, _PAUSE = 3, 0.5


async def prune(
    url: str, management_url: str, topology: Topology, *, sure: bool = False
) -> list[str]:
    """Drain and remove what is left over; returns what was done, a sentence each.

    Tasks go to the shard that their job belongs to now, or to the dead queue if their backend is
    gone. A queue that somebody still consumes stays. If the names are not known to be ours,
    nothing is done unless the operator is `sure`; then they are ours from now on.

    Raises NotOurs, BrokerUnavailable or PublishFailed.
    """
    found = await differences(management_url, vhost_of(url), topology)
    plan = _plan(found)
    doubt = found.doubt if plan else ""
    if doubt and not sure:
        raise NotOurs("\n".join([doubt, *plan, "Nothing was removed."]))
    publisher = Publisher(url, "topology", names=topology.names)
    connection = await connect(url, "topology prune", topology.names)
    done = []
    try:
        async with translated("cannot remove what is left over"):
            channel = await connection.channel()
            for each in found.bindings:
                queue = await channel.get_queue(each.queue, ensure=False)
                await queue.unbind(each.exchange, each.key)
                done.append(f"{arrow(each)}: removed")
            done += [await _remove(channel, name, publisher, topology) for name in found.queues]
            for name in found.exchanges:
                await channel.exchange_delete(name)
                done.append(f"exchange {name}: removed")
        if doubt:
            await take_over(connection, topology.names, found.marks)
            done.append(f"the prefix {topology.names.prefix!r} is this installation's now")
    finally:
        await publisher.close()
        await shut(connection)
    return done


def _plan(found: Differences) -> list[str]:
    """What would be removed, a sentence each."""
    return [
        *(f"{arrow(each)}: would be removed" for each in found.bindings),
        *(f"queue {name}: would be emptied and removed" for name in found.queues),
        *(f"exchange {name}: would be removed" for name in (*found.exchanges, *found.marks)),
    ]


async def _remove(
    channel: AbstractChannel, name: str, publisher: Publisher, topology: Topology
) -> str:
    for _ in range(_CHECKS):
        queue = await channel.get_queue(name)
        if consumers := queue.declaration_result.consumer_count:
            return (
                f"queue {name}: kept, because it has {consumers} consumers;"
                " stop the workers that use it first"
            )
        await asyncio.sleep(_PAUSE)
    moved, dead = await _drain(queue, name, publisher, topology)
    # Quorum queues cannot be deleted on the condition that they are unused or empty.
    await queue.delete(if_unused=False, if_empty=False)
    return (
        f"queue {name}: removed; {moved} tasks moved to the queue they belong to now,"
        f" {dead} messages to {topology.names.dead}"
    )


async def _drain(
    queue: AbstractQueue, name: str, publisher: Publisher, topology: Topology
) -> tuple[int, int]:
    """Empty a queue; returns how many tasks moved, and how many messages went to the dead queue."""
    moved = dead = 0
    while message := await queue.get(fail=False):
        key = message.routing_key or ""
        try:
            if reason := topology.names.why_not_ours(message.headers):
                raise BrokenMessage(reason)
            moved += await forward(publisher, topology, key, message.body)
        except BrokenMessage as error:
            about = dead_headers(name, key, message.headers)
            await publisher.dead_letter(message.body, str(error), about)
            dead += 1
        await message.ack()
    return moved, dead
