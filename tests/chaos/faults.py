"""What chaos breaks: a shuffled deck of faults, dealt one after another.

For each fault it notes when it began and when it was healed, because the judge is stricter in calm.
"""

import asyncio
import random
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from tests.chaos.world import World, away, signal_all

Card = Callable[["Rampage"], Awaitable[None]]


@dataclass(slots=True)
class Fault:
    """One fault; `began` and `healed` are epoch seconds, infinity while it lasts."""

    name: str
    began: float
    healed: float = inf


class Rampage:
    """Deals the deck of a world until the time is over.

    The seed decides which faults come, and the machine how soon one follows another. `more` are
    cards besides those of this file; with `only`, there are no others.
    """

    def __init__(
        self,
        world: World,
        draw: random.Random,
        say: Callable[[str], None],
        *,
        longest: float = 12.0,
        more: Sequence[Card] = (),
        only: bool = False,
    ) -> None:
        self.world, self.draw, self.say, self.longest = world, draw, say, longest
        self.more, self.only = list(more), only
        self.faults: list[Fault] = []
        self._background: set[asyncio.Task[None]] = set()

    async def run(self, seconds: float) -> None:
        """Deal one fault after another for `seconds`; return when all are healed."""
        deck: list[Card] = []
        until = time.time() + seconds
        while time.time() < until:
            if not deck:
                deck = [*([] if self.only else _deck(self.world)), *self.more]
                self.draw.shuffle(deck)
            await deck.pop()(self)
            await asyncio.sleep(min(self.draw.uniform(0.3, 4.0), max(0.0, until - time.time())))
        if self._background:
            await asyncio.wait(self._background)

    def background(self, fault: Coroutine[Any, Any, None]) -> None:
        """Let a fault last while others come."""
        task = asyncio.create_task(fault)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def calm(self, since: float, until: float) -> bool:
        """Whether no fault was active at any moment between two times."""
        return all(fault.healed < since or fault.began > until for fault in self.faults)

    async def lasting(
        self, name: str, hold: float, do: Callable[[], object], undo: Callable[[], object]
    ) -> None:
        """One fault: call `do`, wait for `hold` seconds, call `undo`; both may block."""
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
        """Draw for how long a fault lasts."""
        return self.draw.uniform(0.2, most or self.longest)

    def any(self, role: str) -> str:
        """Draw one of the processes of a role, such as "worker"."""
        return self.draw.choice([name for name in self.world.processes if name.startswith(role)])


def _deck(world: World) -> list[Card]:
    deck: list[Card] = []
    deck += [partial(_end, role=role, kill=True) for role in ("worker", "worker", "web", "backend")]
    deck += [partial(_end, role=role, kill=False) for role in ("worker", "web")]
    deck += [partial(_freeze, role=role) for role in ("worker", "worker", "web", "backend")]
    deck += [_freeze_long, _kill_a_worker_in_a_frozen_world, _cut, _stall, _misbehave]
    deck += [_delete_a_queue]
    if world.postgres:
        deck += [partial(_database, kill=True), partial(_database, kill=False), _freeze_database]
    else:
        deck += [_lock_database]
    if world.cluster.node:
        deck += [partial(_node, what="kill"), partial(_node, what="stop")]
        deck += [_freeze_node, _replace_node, _memory_alarm]
    elif world.cluster.command:
        deck += [partial(_node, what=what) for what in ("kill", "kill", "stop")]
    return deck


async def _end(rampage: Rampage, role: str, *, kill: bool) -> None:
    """Kill a process, or stop it as a deployment does; later start it again."""
    name, world = rampage.any(role), rampage.world
    if name in world.wanted:
        what, hold = ("killed", rampage.hold(6.0)) if kill else ("stopped", rampage.hold(3.0))
        down, up = partial(world.down, name, kill=kill), partial(world.up, name)
        await rampage.lasting(f"{name} {what}", hold, down, up)


async def _freeze(rampage: Rampage, role: str, hold: float = 0.0) -> None:
    name, world = rampage.any(role), rampage.world
    stop = partial(world.signal, name, signal.SIGSTOP)
    if name in world.wanted:
        world.wanted.discard(name)  # So nothing else happens to it meanwhile.
        try:
            thaw = partial(world.signal, name, signal.SIGCONT)
            await rampage.lasting(f"{name} frozen", hold or rampage.hold(), stop, thaw)
        finally:
            world.wanted.add(name)


async def _freeze_long(rampage: Rampage) -> None:
    """Freeze a worker so long that RabbitMQ and the sweeper give it up; other faults go on."""
    hold = rampage.draw.uniform(2.0, 4.0) * rampage.longest
    rampage.background(_freeze(rampage, "worker", hold))


async def _kill_a_worker_in_a_frozen_world(rampage: Rampage) -> None:
    """Kill a worker while the backend hangs, so that it is surely in a round or a start."""
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
    """Let RabbitMQ block all connections that publish."""
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
    """Delete a queue with all that waits in it; RabbitMQ cancels its consumers."""
    cluster, number = rampage.world.cluster, rampage.draw.random()
    if names := await away(cluster.queues):
        name = names[int(number * len(names))]
        await rampage.lasting(
            f"the queue {name} deleted", 0.0, partial(cluster.delete_queue, name), lambda: None
        )


async def _replace_node(rampage: Rampage) -> None:
    """Lose all messages, and all queues and exchanges."""
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
