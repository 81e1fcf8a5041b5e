"""The cards of chaos that have names, so that each can be chosen or left out.

The database fails over or forgets, clocks are wrong, and a thousand come back at once.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from functools import partial

from tests.chaos.clients import Client, storm
from tests.chaos.faults import Card, Rampage
from tests.chaos.world import World

#: A name in front of the database moves so many seconds after the old primary has come back.
MOVES = 6.0
#: The clock of a worker is wrong by so many seconds, in one direction or the other.
WRONG = 120.0
#: So many browsers connect at once, besides those that are there; and so long it may take at most.
BROWSERS, SERVED = 400, 60.0
#: So many jobs the other installation starts at a time.
NEIGHBOURS = 10


async def _fail_over(rampage: Rampage, *, loses: bool) -> None:
    """The standby takes over, and the old primary comes back at once as its standby.

    Some seconds later the name moves. Connections that were opened meanwhile stay with a server
    that takes no writes. With `loses`, the standby had not got the last seconds.
    """
    world, behind = rampage.world, rampage.draw.uniform(2.0, 4.0) if loses else 0.0
    name = "the database is back without its last seconds" if loses else "the database fails over"
    await rampage.lasting(name, MOVES, partial(world.fail_over, behind), world.move_the_name)


async def _read_only(rampage: Rampage) -> None:
    assert rampage.world.postgres
    change = rampage.world.postgres.read_only
    hold = rampage.hold()
    await rampage.lasting(
        "the database is read-only", hold, partial(change, True), partial(change, False)
    )


async def _clock(rampage: Rampage) -> None:
    """Start a worker anew with a wrong clock, and leave it so: that must harm nothing."""
    name, world = rampage.any("worker"), rampage.world
    off = rampage.draw.choice([-WRONG, WRONG])
    if name in world.wanted:
        await rampage.lasting(
            f"the clock of {name} is off by {off:+g} s from now on",
            0.0,
            partial(world.down, name, kill=False),
            partial(world.up, name, ahead=off),
        )


async def _silent(rampage: Rampage) -> None:
    """RabbitMQ accepts connections and says nothing."""
    gate, hold = rampage.world.gate, rampage.hold()

    async def quiet() -> None:  # in the gate's own event loop, where its writers are
        gate.fall_silent()

    loop = asyncio.get_running_loop()
    await rampage.lasting(
        "RabbitMQ accepts connections and says nothing",
        hold,
        lambda: asyncio.run_coroutine_threadsafe(quiet(), loop).result(5),
        lambda: loop.call_soon_threadsafe(gate.flow),
    )


async def _storm(rampage: Rampage, clients: Sequence[Client]) -> None:
    """Cut all sockets at once, while many more browsers come than usual."""
    began, unserved = time.time(), 0

    async def come() -> None:
        nonlocal unserved
        for client in clients:
            client.cut()
        unserved = await storm(clients[0].webs, BROWSERS, SERVED)

    others = [fault for fault in rampage.faults if fault.healed > began]
    loop = asyncio.get_running_loop()
    await rampage.lasting(
        f"all sockets cut, and {BROWSERS} browsers more",
        0.0,
        lambda: asyncio.run_coroutine_threadsafe(come(), loop).result(SERVED + 30),
        lambda: None,
    )
    rampage.say(f"the storm was over after {time.time() - began:.1f} s")
    if unserved and not others:
        rampage.world.unserved.append(f"{unserved} of {BROWSERS} after {SERVED:g} s")


async def _hang(rampage: Rampage) -> None:
    """A project's receiver of `job_finished` hangs in all workers."""
    hang = rampage.world.hang
    await rampage.lasting("receivers hang", rampage.hold(), hang.touch, hang.unlink)


async def _neighbour(rampage: Rampage) -> None:
    """Another installation on the same vhost starts jobs; from the first time on, it stays."""
    name = f"another installation on the vhost starts {NEIGHBOURS} jobs"
    begin = partial(rampage.world.let_the_neighbour_start, NEIGHBOURS)
    await rampage.lasting(name, 0.0, begin, lambda: None)


#: The cards by name, each with whether it needs PostgreSQL.
CARDS: dict[str, tuple[Card, bool]] = {
    "failover": (partial(_fail_over, loses=False), True),
    "rewind": (partial(_fail_over, loses=True), True),
    "read-only": (_read_only, True),
    "clock": (_clock, False),
    "silent": (_silent, False),
    "hang": (_hang, False),
    "neighbour": (_neighbour, False),
}
STORM = "storm"
NAMES = (*CARDS, STORM)


def chosen(names: Collection[str], world: World, clients: Sequence[Client]) -> list[Card]:
    """The cards of these names that this world can play."""
    cards = [
        card
        for name, (card, wants_postgres) in CARDS.items()
        if name in names and (world.postgres or not wants_postgres)
    ]
    return [*cards, *([partial(_storm, clients=clients)] if STORM in names else [])]


def names_in(text: str) -> set[str]:
    """Names of cards, separated by commas. Raises ValueError for a name that is none."""
    found = {name for name in text.split(",") if name}
    if unknown := found - set(NAMES):
        raise ValueError(f"no such card: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    return found
