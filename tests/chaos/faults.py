"""What chaos does, one thing after another: a shuffled deck of faults, each with the moment that it was healed."""

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from tests.chaos.world import World, away, signal_all

Card = Callable[["Rampage"], Awaitable[None]]


@dataclass(slots=True)
class Fault:
    """One fault: from when to when (epoch seconds; infinity while it lasts), and what it was."""

    name: str
    began: float
    healed: float = inf


class Rampage:
    """Deals the deck of a world until the time is over. The seed decides what comes; how fast, the machine."""

    def __init__(
        self,
        world: World,
        draw: random.Random,
        say: Callable[[str], None],
        *,
        longest: float = 12.0,
    ) -> None:
        self.world, self.draw, self.say, self.longest = world, draw, say, longest
        self.faults: list[Fault] = []
        self._aside: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Fault after fault for `seconds`; returns when all of them are healed."""
        deck: list[Card] = []
        until = time.time() + seconds
        while time.time() < until:
            if not deck:
                deck = _deck(self.world)
                self.draw.shuffle(deck)
            await deck.pop()(self)
            await asyncio.sleep(min(self.draw.uniform(0.3, 4.0), max(0.0, until - time.time())))
        if self._aside:
            await asyncio.wait(self._aside)

    def calm(self, since: float, until: float) -> bool:
        """Whether no fault lay upon the world at any moment between."""
        return all(fault.healed < since or fault.began > until for fault in self.faults)

    async def lasting(
        self, name: str, hold: float, do: Callable[[], object], undo: Callable[[], object]
    ) -> None:
        """One fault from beginning to end; `do` and `undo` may block."""
        fault = Fault(name, time.time())
        self.faults.append(fault)
        self.say(f"{name}, for {hold:.1f} s" if hold else name)
        try:
            await away(do)
            await asyncio.sleep(hold)
        finally:
            await away(undo)
            fault.healed = time.time()

    def hold(self, most: float = 0.0) -> float:
        """For how long."""
        return self.draw.uniform(0.2, most or self.longest)

    def any(self, role: str) -> str:
        """One of the web servers or workers."""
        return self.draw.choice([name for name in self.world.processes if name.startswith(role)])


def _deck(world: World) -> list[Card]:
    deck: list[Card] = [
        partial(_kill, role=role) for role in ("worker", "worker", "web", "backend")
    ]
    deck += [partial(_stop, role=role) for role in ("worker", "web")]
    deck += [partial(_freeze, role=role) for role in ("worker", "worker", "web", "backend")]
    deck += [
        _freeze_long,
        _kill_a_worker_in_a_frozen_world,
        _cut,
        _stall,
        _misbehave,
        _delete_a_queue,
    ]
    if world.postgres:
        deck += [partial(_database, kill=True), partial(_database, kill=False), _freeze_database]
    else:
        deck += [_lock_database]
    if world.cluster.node:
        deck += [
            partial(_node, what="kill"),
            partial(_node, what="stop"),
            _freeze_node,
            _replace_node,
            _memory_alarm,
        ]
    elif world.cluster.command:
        deck += [
            partial(_node, what="kill"),
            partial(_node, what="kill"),
            partial(_node, what="stop"),
        ]
    return deck


async def _kill(rampage: Rampage, role: str) -> None:
    name, world = rampage.any(role), rampage.world
    if name in world.wanted:
        hold = rampage.hold(6.0)
        await rampage.lasting(
            f"{name} killed", hold, partial(world.down, name, kill=True), partial(world.up, name)
        )


async def _stop(rampage: Rampage, role: str) -> None:
    name, world = rampage.any(role), rampage.world
    if name in world.wanted:
        hold = rampage.hold(3.0)
        await rampage.lasting(
            f"{name} stopped", hold, partial(world.down, name, kill=False), partial(world.up, name)
        )


async def _freeze(rampage: Rampage, role: str, hold: float = 0.0) -> None:
    name, world = rampage.any(role), rampage.world
    stop = partial(world.signal, name, signal.SIGSTOP)
    if name in world.wanted:
        world.wanted.discard(name)  # nothing else happens to it meanwhile
        try:
            thaw = partial(world.signal, name, signal.SIGCONT)
            await rampage.lasting(f"{name} frozen", hold or rampage.hold(), stop, thaw)
        finally:
            world.wanted.add(name)


async def _freeze_long(rampage: Rampage) -> None:
    """A worker that wakes up late, while other things go on: RabbitMQ and the sweeper have given it up by then."""
    task = asyncio.create_task(
        _freeze(rampage, "worker", rampage.draw.uniform(2.0, 4.0) * rampage.longest)
    )
    rampage._aside.add(task)
    task.add_done_callback(rampage._aside.discard)


async def _kill_a_worker_in_a_frozen_world(rampage: Rampage) -> None:
    """A worker dies while the backend hangs: rounds and starts are under way for certain."""
    world, name = rampage.world, rampage.any("worker")
    if name not in world.wanted:
        return

    def do() -> None:
        world.signal("backend", signal.SIGSTOP)
        time.sleep(1.5)
        world.down(name, kill=True)

    def undo() -> None:
        world.signal("backend", signal.SIGCONT)
        world.up(name)

    await rampage.lasting(f"{name} killed while the backend is frozen", rampage.hold(3.0), do, undo)


async def _cut(rampage: Rampage) -> None:
    await rampage.lasting("all connections to RabbitMQ cut", 0.0, lambda: None, lambda: None)
    rampage.world.gate.cut()
    rampage.faults[-1].healed = time.time()


async def _stall(rampage: Rampage) -> None:
    gate = rampage.world.gate
    hold = rampage.hold()
    fault = Fault("the network to RabbitMQ stalled", time.time())
    rampage.faults.append(fault)
    rampage.say(f"{fault.name}, for {hold:.1f} s")
    gate.stall()
    await asyncio.sleep(hold)
    gate.flow()
    fault.healed = time.time()


async def _misbehave(rampage: Rampage) -> None:
    mode = rampage.draw.choice(["500", "503", "reset", "close", "html", "hang"])
    on = rampage.draw.choice(["start", "poll"])
    do = partial(rampage.world.misbehave, mode=mode, on=on)
    hold = rampage.hold(6.0)
    await rampage.lasting(
        f"the backend answers to each {on}: {mode}", hold, do, rampage.world.misbehave
    )


async def _database(rampage: Rampage, *, kill: bool) -> None:
    world, name = rampage.world, f"the database {'killed' if kill else 'stopped'}"
    await rampage.lasting(
        name, rampage.hold(), partial(world.database_down, kill=kill), world.database_up
    )


async def _freeze_database(rampage: Rampage) -> None:
    pids = rampage.world.database_pids()
    thaw = partial(signal_all, pids, signal.SIGCONT)
    await rampage.lasting(
        "the database frozen", rampage.hold(), partial(signal_all, pids, signal.SIGSTOP), thaw
    )


async def _lock_database(rampage: Rampage) -> None:
    held: list[sqlite3.Connection] = []
    lock = rampage.world.audit.lock
    hold = rampage.hold()
    await rampage.lasting(
        "the database locked", hold, lambda: held.append(lock()), lambda: held.pop().close()
    )


async def _node(rampage: Rampage, what: str) -> None:
    cluster = rampage.world.cluster
    number = rampage.draw.randint(1, len(cluster.urls))
    one = f"node {number} of RabbitMQ" if len(cluster.urls) > 1 else "RabbitMQ"
    name = f"{one} {'killed' if what == 'kill' else 'stopped'}"
    await rampage.lasting(
        name,
        rampage.hold(),
        partial(cluster.do, what, number),
        partial(cluster.do, "start", number),
    )


async def _freeze_node(rampage: Rampage) -> None:
    pids = rampage.world.cluster.pids()
    thaw = partial(signal_all, pids, signal.SIGCONT)
    await rampage.lasting(
        "RabbitMQ frozen", rampage.hold(), partial(signal_all, pids, signal.SIGSTOP), thaw
    )


async def _memory_alarm(rampage: Rampage) -> None:
    """RabbitMQ blocks every connection that publishes."""
    node = rampage.world.cluster.node
    assert node
    limit = node.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    raise_it = partial(node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
    await rampage.lasting(
        "RabbitMQ's memory alarm",
        rampage.hold(),
        raise_it,
        partial(node.ctl, "set_vm_memory_high_watermark", limit),
    )


async def _delete_a_queue(rampage: Rampage) -> None:
    """With all that waits in it; RabbitMQ cancels its consumers."""
    cluster, number = rampage.world.cluster, rampage.draw.random()
    if names := await away(cluster.queues):
        name = names[int(number * len(names))]
        await rampage.lasting(
            f"the queue {name} deleted", 0.0, partial(cluster.delete_queue, name), lambda: None
        )


async def _replace_node(rampage: Rampage) -> None:
    """All messages are gone, and the topology too."""
    cluster = rampage.world.cluster
    assert cluster.node
    node = cluster.node

    def do() -> None:
        node.kill()
        node.wipe()

    def undo() -> None:
        node.start()
        cluster.make_vhost()

    await rampage.lasting("RabbitMQ replaced by an empty one", rampage.hold(4.0), do, undo)
