"""Describes as data what must exist in RabbitMQ (exchanges, queues, bindings), and declares it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aio_pika.abc import AbstractConnection

from progrock.broker.connection import connect, shut, translated
from progrock.broker.lanes import LANES, lane_for, ttl
from progrock.broker.mark import ALTERNATE, claim
from progrock.broker.names import NAMES, Names

# Delivery limits, because RabbitMQ 4's default of 20 is too low. Poll queues: during a memory alarm
# publishing fails, and the same tasks are delivered again and again. Poisonous jobs end earlier, by
# the ledger's crash counter. Dead queue: each time that a message is read counts as a delivery.
_MANY, _ENDLESS = 1_000, 1_000_000


class Exchange(NamedTuple):
    """A durable exchange that must exist."""

    name: str
    type: str
    arguments: Mapping[str, Any]


class Queue(NamedTuple):
    """A durable queue that must exist."""

    name: str
    arguments: Mapping[str, Any]


class Binding(NamedTuple):
    """The exchange passes messages whose routing key matches `key` on to the queue."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """Everything that must exist for these backends (name → number of shards)."""

    backends: Mapping[str, int]
    names: Names = NAMES

    @property
    def poll_queues(self) -> list[str]:
        """The poll queues of all backends, shard by shard."""
        return [
            self.names.poll_queue(name, shard)
            for name, shards in self.backends.items()
            for shard in range(shards)
        ]

    @property
    def exchanges(self) -> list[Exchange]:
        """Every exchange, in an order in which they can be declared."""
        names = self.names
        return [
            Exchange(names.dead, "fanout", {}),
            Exchange(names.poll, "topic", {ALTERNATE: names.dead}),
            Exchange(names.delay, "topic", {}),
            Exchange(names.groups, "direct", {}),
        ]

    @property
    def queues(self) -> list[Queue]:
        """Every queue."""
        names, quorum = self.names, {"x-queue-type": "quorum"}
        dead = {**quorum, "x-delivery-limit": _ENDLESS}
        poll = {**quorum, "x-delivery-limit": _MANY, "x-dead-letter-exchange": names.dead}
        # At-least-once dead-lettering silently becomes at-most-once without reject-publish.
        lane = {
            **quorum,
            "x-dead-letter-exchange": names.poll,
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        return [
            Queue(names.dead, dead),
            *(
                Queue(names.lane(each), {**lane, "x-message-ttl": round(each.seconds * 1000)})
                for each in LANES
            ),
            *(Queue(name, poll) for name in self.poll_queues),
        ]

    @property
    def bindings(self) -> list[Binding]:
        """Every binding.

        A lane gets the keys that start with its name, a poll queue those that end with its backend
        and shard.
        """
        names = self.names
        return [
            Binding(names.dead, names.dead, ""),
            *(Binding(names.delay, names.lane(lane), f"{lane.name}.#") for lane in LANES),
            *(
                Binding(names.poll, name, f"*.{name.removeprefix(names.poll + '.')}")
                for name in self.poll_queues
            ),
        ]


def route(
    names: Names, backend: str, shard: int, delay: float, left: float
) -> tuple[str, str, float | None]:
    """Exchange, routing key and expiration (seconds) of a message.

    `delay` is what was decided, and chooses the lane. `left` is what is left of it now. Both are in
    seconds. The expiration is None if the message goes to its poll queue at once.
    """
    if lane := lane_for(delay):
        return names.delay, f"{lane.name}.{backend}.{shard}", ttl(lane, left)
    return names.poll, f"now.{backend}.{shard}", None


def addressee(key: str) -> tuple[str, str]:
    """Backend and shard in the routing key of a message of tasks; "" for a part that it lacks."""
    _, backend, shard = f"{key}..".split(".")[:3]
    return backend, shard


def describe(topology: Topology) -> str:
    """The topology as text: one line for each object."""

    def words(arguments: Mapping[str, Any]) -> str:
        return "  ".join(
            f"{key.removeprefix('x-')}={value}" for key, value in sorted(arguments.items())
        )

    lines = [
        f"exchange {each.name:32} {each.type:6} {words(each.arguments)}"
        for each in topology.exchanges
    ]
    lines += [f"queue    {each.name:32} {words(each.arguments)}" for each in topology.queues]
    lines += [
        f"binding  {each.exchange:15} --{each.key or '(everything)'}--> {each.queue}"
        for each in topology.bindings
    ]
    return "\n".join(line.rstrip() for line in lines)


async def declare(url: str, topology: Topology) -> str:
    """Make everything that is missing.

    Returns a sentence for operators if another installation uses these names, else "". Raises
    BrokerUnavailable, also if something exists with other arguments.
    """
    connection = await connect(url, "topology", topology.names)
    try:
        await declare_on(connection, topology)
        return await claim(connection, topology.names, declare=True)
    finally:
        await shut(connection)


async def declare_on(connection: AbstractConnection, topology: Topology) -> None:
    """Make everything that is missing, over an open connection. Raises BrokerUnavailable."""
    async with translated(
        "cannot declare the topology (`manage.py topology --verify` says what differs)"
    ):
        channel = await connection.channel()
        # Somebody may publish meanwhile, so make the exchanges after the queues. Bind the dead
        # queue last, because until the poll queues are bound everything would be routed to it.
        queues = {
            each.name: await channel.declare_queue(
                each.name, durable=True, arguments=dict(each.arguments)
            )
            for each in topology.queues
        }
        exchanges = {
            each.name: await channel.declare_exchange(
                each.name, each.type, durable=True, arguments=dict(each.arguments)
            )
            for each in topology.exchanges
        }
        for binding in sorted(
            topology.bindings, key=lambda each: each.queue == topology.names.dead
        ):
            await queues[binding.queue].bind(exchanges[binding.exchange], binding.key)
        await channel.close()
