"""Talks to RabbitMQ's management API: what exists, what differs, how much waits."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
from yarl import URL

from progrock.broker.address import read_management
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.mark import ALTERNATE, conflict
from progrock.broker.names import Names
from progrock.broker.topology import Binding, Topology

TIMEOUT = 10.0


class Depth(NamedTuple):
    """How much waits in a queue."""

    messages: int
    bytes: int
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """How RabbitMQ differs from the topology.

    `faults` says what is missing or wrong, a sentence each; `queues`, `exchanges` and `bindings`
    are left over. `doubt` is a sentence if all this may be another installation's, else "". `marks`
    are the marks of other installations (`progrock.broker.mark`).
    """

    doubt: str
    marks: list[str]
    faults: list[str]
    queues: list[str]
    exchanges: list[str]
    bindings: list[Binding]


async def depths(management_url: str, vhost: str, names: Names) -> dict[str, Depth]:
    """What waits in each of our queues. RabbitMQ refreshes these figures every five seconds."""
    columns = "name,messages,message_bytes,consumers"
    return {
        name: Depth(each.get("messages", 0), each.get("message_bytes", 0), each.get("consumers", 0))
        for name, each in (await _ours(management_url, vhost, names, "queues", columns)).items()
    }


async def verify(management_url: str, vhost: str, topology: Topology) -> list[str]:
    """What differs from the topology, a sentence each. Raises BrokerUnavailable."""
    found = await differences(management_url, vhost, topology)
    left = [
        f"queue {name}: left over, no backend of yours uses it (--prune drains it first)"
        for name in found.queues
    ]
    left += [f"exchange {name}: left over" for name in found.exchanges]
    left += [f"{arrow(each)}: left over" for each in found.bindings]
    return found.faults + left


async def differences(management_url: str, vhost: str, topology: Topology) -> Differences:
    """Compare what is in a virtual host with the topology. Raises BrokerUnavailable."""
    at = management_url, vhost, topology.names
    exchanges = await _ours(*at, "exchanges", "name,type,durable,arguments")
    queues = await _ours(*at, "queues", "name,durable,arguments")
    bindings = await _our_bindings(*at)
    wanted_exchanges = {
        each.name: {"type": each.type, **each.arguments} for each in topology.exchanges
    }
    wanted_queues = {each.name: each.arguments for each in topology.queues}
    wanted_bindings = set(topology.bindings)
    left = sorted(queues.keys() - wanted_queues.keys())
    doubt, marks = _whose(exchanges, topology.names)
    return Differences(
        doubt=doubt,
        marks=marks,
        faults=[
            *([doubt] if marks else []),
            *_faults("exchange", exchanges, wanted_exchanges),
            *_faults("queue", queues, wanted_queues),
            *(f"{arrow(each)}: wanted, not found" for each in sorted(wanted_bindings - bindings)),
        ],
        queues=left,
        exchanges=sorted(
            name
            for name in exchanges.keys() - wanted_exchanges.keys()
            if not topology.names.is_mark(name)
        ),
        # The bindings of a queue that is left over go with the queue.
        bindings=sorted(each for each in bindings - wanted_bindings if each.queue not in left),
    )


def _whose(exchanges: Mapping[str, Mapping[str, Any]], names: Names) -> tuple[str, list[str]]:
    """Why these names may not be ours (or ""), and the marks of other installations."""
    marks = sorted(filter(names.is_mark, exchanges))
    if not names.installation():
        return "", []
    if not marks:
        hint = "if they are yours, mark them by `manage.py topology --declare`, or say --yes"
        return f"nobody has marked whose these names are: {hint}", []
    alternate = exchanges.get(names.mark, {}).get("arguments", {}).get(ALTERNATE, "")
    if alternate != names.own_mark:
        return conflict(names, str(alternate).removeprefix(f"{names.mark}.")), marks
    marks = [name for name in marks if name not in (names.mark, names.own_mark)]
    return (conflict(names) if marks else ""), marks


def arrow(binding: Binding) -> str:
    """A binding for people: from where, by which key, to where."""
    return f"binding {binding.exchange} --{binding.key}--> {binding.queue}"


def _faults(
    kind: str,
    found: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    faults: list[str] = []
    for name, want in wanted.items():
        if name in found:
            faults += _compare(f"{kind} {name}", found[name], {"durable": True, **want})
        else:
            faults.append(f"{kind} {name}: wanted, not found")
    return faults


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
    management_url: str, vhost: str, names: Names, kind: str, columns: str
) -> dict[str, dict[str, Any]]:
    """What bears our prefix, without the web processes' own queues, because these come and go."""
    found = await _get(management_url, kind, vhost, columns)
    return {
        each["name"]: each
        for each in found
        if each["name"].startswith(f"{names.prefix}.")
        and not each["name"].startswith(f"{names.web}.")
    }


async def _our_bindings(management_url: str, vhost: str, names: Names) -> set[Binding]:
    columns = "source,destination,destination_type,routing_key"
    return {
        Binding(each["source"], each["destination"], each["routing_key"])
        for each in await _get(management_url, "bindings", vhost, columns)
        if each["source"].startswith(f"{names.prefix}.")
        and not each["destination"].startswith(f"{names.web}.")
    }


async def _get(management_url: str, kind: str, vhost: str, columns: str) -> list[dict[str, Any]]:
    address, login, where = read_management(management_url)
    headers = {}
    if login is not None:
        headers["Authorization"] = f"Basic {b64encode(':'.join(login).encode()).decode()}"
    url = f"{address}/api/{kind}/{quote(vhost, safe='')}?columns={columns}"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session,
            session.get(URL(url, encoded=True), headers=headers) as answer,
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
