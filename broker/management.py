"""Talks to RabbitMQ's management API: what exists, what differs from the topology, how deep the queues are."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import aiohttp
from aio_pika.abc import AbstractChannel, AbstractQueue

from progrock.broker.connection import connect, shut, translated, vhost_of
from progrock.broker.dead import forward
from progrock.broker.errors import BrokenMessage, BrokerUnavailable
from progrock.broker.publisher import Publisher
from progrock.broker.topology import DEAD, WEB, Binding, Topology

TIMEOUT = 10.0


class Depth(NamedTuple):
    """How much waits in a queue."""

    messages: int
    bytes: int
    consumers: int


@dataclass(frozen=True, slots=True)
class _Differences:
    """`words`: what is wrong or missing, a sentence each; `queues`, `exchanges` and `bindings` are left over."""

    words: list[str]
    queues: list[str]
    exchanges: list[str]
    bindings: list[Binding]


async def depths(management_url: str, vhost: str) -> dict[str, Depth]:
    """What waits in each of our queues; RabbitMQ refreshes these figures every five seconds."""
    columns = "name,messages,message_bytes,consumers"
    return {
        name: Depth(each.get("messages", 0), each.get("message_bytes", 0), each.get("consumers", 0))
        for name, each in (await _ours(management_url, vhost, "queues", columns)).items()
    }


async def verify(management_url: str, vhost: str, topology: Topology) -> list[str]:
    """What differs from the topology, a sentence each; none when all is as it should be. Raises BrokerUnavailable."""
    found = await _differences(management_url, vhost, topology)
    left = [
        f"queue {name}: left over, no backend of yours uses it (--prune drains it first)"
        for name in found.queues
    ]
    left += [f"exchange {name}: left over" for name in found.exchanges]
    left += [f"{_arrow(each)}: left over" for each in found.bindings]
    return found.words + left


async def prune(url: str, management_url: str, topology: Topology) -> list[str]:
    """Drains and removes what is left over; says what was done, a sentence each.

    Tasks go to the shard that their job belongs to now, and to the dead queue when their backend is gone.
    A queue that somebody still consumes stays. Raises BrokerUnavailable or PublishFailed.
    """
    found = await _differences(management_url, vhost_of(url), topology)
    publisher = Publisher(url, "topology")
    connection = await connect(url, "topology prune")
    done = []
    try:
        async with translated("cannot remove what is left over"):
            channel = await connection.channel()
            for each in found.bindings:
                await (await channel.get_queue(each.queue, ensure=False)).unbind(
                    each.exchange, each.key
                )
                done.append(f"{_arrow(each)}: removed")
            done += [await _remove(channel, name, publisher, topology) for name in found.queues]
            for name in found.exchanges:
                await channel.exchange_delete(name)
                done.append(f"exchange {name}: removed")
    finally:
        await publisher.close()
        await shut(connection)
    return done


async def _remove(
    channel: AbstractChannel, name: str, publisher: Publisher, topology: Topology
) -> str:
    for _ in range(
        3
    ):  # RabbitMQ says none, too, where the queue's leader does not answer within 250 ms
        queue = await channel.get_queue(name)
        if consumers := queue.declaration_result.consumer_count:
            return f"queue {name}: kept, as it has {consumers} consumers; stop the workers that use it first"
        await asyncio.sleep(0.5)
    moved, dead = await _drain(queue, name, publisher, topology)
    await queue.delete(if_unused=False, if_empty=False)  # quorum queues know no conditions
    return f"queue {name}: removed; {moved} tasks moved to the queue they belong to now, {dead} messages to {DEAD}"


async def _drain(
    queue: AbstractQueue, name: str, publisher: Publisher, topology: Topology
) -> tuple[int, int]:
    moved = dead = 0
    while message := await queue.get(fail=False):
        key = message.routing_key or ""
        try:
            moved += await forward(publisher, topology, key, message.body)
        except BrokenMessage as error:
            await publisher.dead_letter(message.body, str(error), {"queue": name, "key": key})
            dead += 1
        await message.ack()
    return moved, dead


async def _differences(management_url: str, vhost: str, topology: Topology) -> _Differences:
    exchanges = await _ours(management_url, vhost, "exchanges", "name,type,durable,arguments")
    queues = await _ours(management_url, vhost, "queues", "name,durable,arguments")
    bindings = {
        Binding(each["source"], each["destination"], each["routing_key"])
        for each in await _get(
            management_url, "bindings", vhost, "source,destination,destination_type,routing_key"
        )
        if each["source"].startswith("progrock.") and not each["destination"].startswith(f"{WEB}.")
    }
    words: list[str] = []
    for kind, found, wanted in (
        (
            "exchange",
            exchanges,
            {each.name: {"type": each.type, **each.arguments} for each in topology.exchanges},
        ),
        ("queue", queues, {each.name: each.arguments for each in topology.queues}),
    ):
        for name, want in wanted.items():
            if name not in found:
                words.append(f"{kind} {name}: wanted, not found")
                continue
            words += _compare(f"{kind} {name}", found[name], {"durable": True, **want})
    wanted_bindings = set(topology.bindings)
    words += [f"{_arrow(each)}: wanted, not found" for each in sorted(wanted_bindings - bindings)]
    left = sorted(set(queues) - {each.name for each in topology.queues})
    return _Differences(
        words,
        left,
        sorted(set(exchanges) - {each.name for each in topology.exchanges}),
        sorted(each for each in bindings - wanted_bindings if each.queue not in left),
    )


def _arrow(binding: Binding) -> str:
    return f"binding {binding.exchange} --{binding.key}--> {binding.queue}"


def _compare(what: str, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    flat = {key: found[key] for key in ("type", "durable") if key in found} | found["arguments"]
    keys = [
        key
        for key in (*wanted, *flat)
        if wanted.get(key) != flat.get(key) and (key in wanted or key.startswith("x-"))
    ]
    return [
        f"{what}: found {key} {flat.get(key, '(not set)')}, wanted {wanted.get(key, '(not set)')}"
        for key in dict.fromkeys(keys)
    ]


async def _ours(
    management_url: str, vhost: str, kind: str, columns: str
) -> dict[str, dict[str, Any]]:
    """What bears our prefix, but the web processes' own queues, which come and go."""
    found = await _get(management_url, kind, vhost, columns)
    return {
        each["name"]: each
        for each in found
        if each["name"].startswith("progrock.") and not each["name"].startswith(f"{WEB}.")
    }


async def _get(management_url: str, kind: str, vhost: str, columns: str) -> list[dict[str, Any]]:
    parts = urlsplit(management_url)
    where = f"RabbitMQ's management API at {parts.hostname}:{parts.port or parts.scheme}"
    url = f"{management_url.rstrip('/')}/api/{kind}/{quote(vhost, safe='')}?columns={columns}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.get(url) as answer,
        ):
            if answer.status == 401:
                raise BrokerUnavailable(
                    f"{where} refused the login, or the user lacks the tag `management`"
                )
            if answer.status == 404:
                raise BrokerUnavailable(f"{where} knows no virtual host {vhost!r}")
            answer.raise_for_status()
            found: list[dict[str, Any]] = await answer.json()
            return found
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BrokerUnavailable(f"{where}: {error or type(error).__name__}") from error
