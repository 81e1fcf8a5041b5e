"""Chaos kills, stops, freezes and cuts off real processes, then judges what became of the jobs.

None may be lost, polled in two loops, polled early, or shown as it was long ago.

    make chaos                          SEED=…, SECONDS=…
    python -m tests.chaos --seconds 120 --seed 1 --jobs 300 --clients 50

RabbitMQ is a private node, or the one that PROGROCK_TEST_AMQP_URL names; several addresses are the
nodes of one cluster. These nodes are killed and stopped too if --node-command, or
PROGROCK_TEST_NODE_COMMAND, names a program that understands `kill N`, `stop N` and `start N`.
If the promise was broken, it ends with 1 and keeps the logs.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.chaos.audit import Entry
from tests.chaos.backend import asked
from tests.chaos.cards import NAMES, chosen, names_in
from tests.chaos.clients import Client, Visitor, Wish
from tests.chaos.faults import Rampage
from tests.chaos.gate import Gate
from tests.chaos.receivers import told
from tests.chaos.verdict import AFTERMATH, ENDED, Pace, Verdict, judge
from tests.chaos.wire import Wire
from tests.chaos.world import KINDS, USUAL_LEASE, Cluster, World, away
from tests.services import Postgres

#: A screen must show what was in the ledger so many seconds ago.
FRESH = 10.0
#: After the last end all screens are watched for so many seconds, in which a repair runs.
SETTLED = 6.0
#: What is still owed for an end must be told within so many seconds.
TOLD = 60.0
#: Parts of last lines of tracebacks through our code that are not our mistakes. None is known.
KNOWN: tuple[str, ...] = ()
#: In how many steps the progress of jobs moves: many polls find nothing new, as with most backends.
STEPS = (1, 3, None)


@dataclass
class Run:
    """One run: the world, what breaks it, and the visitors with their wishes.

    `wishes` has when a wish is sent (seconds from the start), by whom, and the wish.
    """

    world: World
    rampage: Rampage
    clients: list[Client]
    wishes: list[tuple[float, Client, Wish]]
    seconds: float
    fresh: float = FRESH
    over: asyncio.Event = field(default_factory=asyncio.Event)
    stale: list[str] = field(default_factory=list)
    checked: int = 0

    async def send_wishes(self) -> None:
        """Send each wish at its time; those that are meant for calm, once all faults are over."""
        begun = time.time()
        for at, client, wish in sorted(self.wishes, key=lambda each: each[0]):
            if at >= self.seconds and not self.over.is_set():
                await self.over.wait()
                begun = time.time() - self.seconds
            await asyncio.sleep(max(0.0, begun + at - time.time()))
            await client.start(wish)

    async def supervise(self) -> None:
        """Start processes again that ended by themselves."""
        while True:
            await asyncio.sleep(0.5)
            self.world.watch()

    async def compare(self) -> None:
        """Each second, compare the screens with what the ledger had `fresh` seconds ago.

        This is left out where a fault was active in between.
        """
        past: deque[tuple[float, list[Entry]]] = deque()
        while True:
            await asyncio.sleep(1)
            now = time.time()
            if self.rampage.calm(now, now):
                with suppress(Exception):  # The database may go away at any moment.
                    async with asyncio.timeout(5):
                        past.append((now, await away(self.world.audit.entries)))
            while past and past[0][0] < time.time() - self.fresh:
                at, entries = past.popleft()
                if self.rampage.calm(at, time.time()):
                    self.checked += 1
                    self.stale += self.look(entries, at)

    def look(self, entries: Sequence[Entry], at: float, *, over: bool = False) -> list[str]:
        """Compare all screens with what was in the ledger at a time; returns what is wrong.

        When all is `over`, a screen that shows more is wrong too: the database has forgotten it.
        """
        found = []
        by_request = {entry.request: entry for entry in entries}
        for client in self.clients:
            for request in client.visitor.wishes:
                if (entry := by_request.get(request)) is None:
                    continue
                shown = client.view.get(entry.id)
                if (
                    shown is None
                    or shown["version"] < entry.version
                    or (over and shown["version"] > entry.version)
                ):
                    has = f"{shown['state']} {shown['version']}" if shown else "nothing"
                    link = "connected" if client.connected else "not connected"
                    found.append(
                        f"client {client.number} ({link}) shows {has} of {entry.id}, "
                        f"the ledger had {entry.state} {entry.version} at {at:.1f}"
                    )
        return found

    async def settle(self, entries: Sequence[Entry], rewound: float) -> None:
        """Wait until all screens show the jobs as they ended; note what is wrong at the limit.

        They have `fresh` seconds for it, or `rewound` if that is longer. Look for some seconds in
        any case, because a screen that is right may still go back.
        """
        now = time.time()
        await asyncio.sleep(SETTLED)
        while wrong := self.look(entries, now, over=True):
            if time.time() > now + max(self.fresh + 1, rewound):
                self.stale += wrong
                break
            await asyncio.sleep(1)
        self.checked += 1

    async def all_ended(self, limit: float) -> bool:
        """Wait until all wishes are known jobs and have ended; False after `limit` seconds."""
        until = time.time() + limit
        while time.time() < until:
            await asyncio.sleep(1)
            with suppress(Exception):  # The database may be busy.
                ended = {
                    entry.request
                    for entry in await away(self.world.audit.entries)
                    if entry.state in ENDED
                }
                if not await away(self.world.neighbours_lost) and all(
                    wish.job_id and wish.request in ended for _, _, wish in self.wishes
                ):
                    return True
        return False

    async def all_told(self, limit: float) -> None:
        """Wait until `job_finished` came for all that ended, or until the limit.

        What a dead worker owed is told by another one some time later.
        """
        until = time.time() + limit
        while time.time() < until:
            with suppress(Exception):  # The database may be busy.
                entries = await away(self.world.audit.entries)
                if {(e.id, e.state) for e in entries if e.state in ENDED} <= set(
                    told(self.world.signals)
                ):
                    return
            await asyncio.sleep(1)


def wishes(
    options: argparse.Namespace, clients: Sequence[Client], draw: random.Random
) -> list[tuple[float, Client, Wish]]:
    """Draw the wishes over the whole time.

    The last sixth of them comes when all faults are over; those jobs last so long that they are
    still polled after the aftermath.
    """
    found = []
    for number in range(options.jobs):
        late = number >= options.jobs * 5 / 6
        at = options.seconds + draw.uniform(0, 2) if late else draw.uniform(0, options.seconds)
        seconds = (
            AFTERMATH + draw.uniform(2.5, 4.5)
            if late
            else draw.uniform(options.shortest, options.longest)
        )
        chance = draw.random()
        request = str(uuid.UUID(int=draw.getrandbits(128), version=4))
        wish = Wish(
            request=request,
            backend=draw.choice(list(KINDS)),
            seconds=round(seconds, 2),
            outcome="fail" if chance < 0.1 else "succeed",
            cancel_after=draw.uniform(0, seconds) if chance > 0.9 else None,
            steps=random.Random(request).choice(STEPS),
        )
        found.append((at, draw.choice(clients), wish))
    return found


async def chaos(options: argparse.Namespace, directory: Path) -> Verdict:
    """Run chaos from beginning to end; `directory` takes all data and logs."""
    began = time.time()

    def say(text: str) -> None:
        print(f"{time.time() - began:7.1f} s  {text}", flush=True)

    me = asyncio.current_task()
    assert me
    # SIGTERM stops all that was started.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    draw = random.Random(options.seed)
    cluster = Cluster(directory, options.amqp, options.node_command)
    postgres = Postgres(synchronous=True) if options.database == "postgres" else None
    wire = Wire()
    gate = await Gate(cluster.addresses, wire).start()
    database_gate = await Gate([]).start() if postgres else None
    world = None
    background: list[asyncio.Task[None]] = []
    try:
        if cluster.node:
            await away(cluster.node.start)
        if postgres:
            await away(postgres.start)
        world = await away(
            World,
            directory / "chaos",
            cluster,
            gate,
            postgres,
            database_gate,
            webs=options.webs,
            workers=options.workers,
        )
        await away(world.begin)
        say(
            f"seed {options.seed}: {cluster.version}, {options.database}, "
            f"{options.webs} web servers, {options.workers} workers, "
            f"{options.jobs} jobs of {options.shortest:g} to {options.longest:g} s, "
            f"{options.clients} sockets"
        )
        visitors = [
            Visitor(aiohttp.CookieJar(unsafe=True)) for _ in range(max(1, options.clients * 4 // 5))
        ]
        ports = [str(port) for port in world.webs]
        clients = [
            Client(n, visitors[n % len(visitors)], ports, world.rewound)
            for n in range(options.clients)
        ]
        run = Run(
            world,
            Rampage(
                world,
                draw,
                say,
                longest=options.hold,
                more=chosen(options.cards, world, clients),
                only=options.only,
            ),
            clients,
            wishes(options, clients, draw),
            options.seconds,
            options.fresh,
        )
        # The first socket of a visitor gets the session's cookie, and the second one needs it.
        for client in clients:
            background.append(asyncio.create_task(client.run()))
            while not client.connects:
                await asyncio.sleep(0.01)
        background += [
            asyncio.create_task(work()) for work in (run.send_wishes, run.supervise, run.compare)
        ]
        await asyncio.sleep(2)
        await run.rampage.run(options.seconds)
        say("no more faults from now on")
        run.over.set()
        ended = await run.all_ended(max(options.longest, AFTERMATH) + options.limit)
        say("all jobs have ended" if ended else "some jobs have not ended within the limit")
        entries = await away(world.audit.entries)
        rewound = max((each.shown - time.time() for each in world.rewound), default=0.0)
        await run.settle(entries, rewound)
        await run.all_told(TOLD)
        history = await away(world.audit.history)
        verdict = judge(
            [wish for _, _, wish in run.wishes],
            set().union(*(visitor.cancelled for visitor in visitors)),
            entries,
            history,
            asked(world.journal),
            {
                name: Pace(kind.interval, USUAL_LEASE if kind.lease is None else kind.lease)
                for name, kind in KINDS.items()
            },
            {name for name, kind in KINDS.items() if not kind.repeat},
            run.rampage.calm,
            passed=wire.passed,
            told=set(told(world.signals)),
            rewound=world.rewound,
        )
        verdict.unserved, verdict.unread = world.unserved, wire.unread
        verdict.neighbours = await away(world.neighbours_lost)
        verdict.stale = run.stale + [
            f"client {c.number} went back to an older version of {job_id}"
            for c in clients
            for job_id in c.went_back
        ]
        verdict.fallen = world.fallen
        verdict.faults, verdict.checked = len(run.rampage.faults), run.checked
        verdict.spared = (
            "RabbitMQ itself was never ended: no --node-command" if cluster.spared else ""
        )
        tracebacks = world.tracebacks()
        verdict.tracebacks = [
            line for line, ours in tracebacks if ours and not any(known in line for known in KNOWN)
        ]
        connects = sum(client.connects for client in clients)
        say(f"{connects} connects of {len(clients)} sockets")
        for (line, ours), count in sorted(Counter(tracebacks).items()):
            whose = "through our code" if ours else "of a library"
            say(f"a traceback {whose} was logged {count} times: {line}")
        return verdict
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        if world:
            await away(world.stop)
        await gate.close()
        if database_gate:
            await database_gate.close()
        if postgres:
            # after a failover, the server of the beginning may be the standby
            await away(((world and world.postgres) or postgres).stop)
        if cluster.node:
            await away(cluster.node.kill)


def main() -> None:
    """Run chaos, print the table, and end with 1 if the promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=120, help="how long faults go on")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--shortest", type=float, default=5.0, help="seconds of the shortest job")
    parser.add_argument("--longest", type=float, default=40.0, help="seconds of the longest job")
    parser.add_argument("--webs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument(
        "--fresh",
        type=float,
        default=FRESH,
        help="after so many seconds a screen must show what is in the ledger",
    )
    parser.add_argument(
        "--hold",
        type=float,
        default=12.0,
        help="seconds that a fault lasts at most, except long freezes",
    )
    parser.add_argument(
        "--limit",
        type=float,
        default=180.0,
        help="seconds after the longest job until all jobs must have ended",
    )
    parser.add_argument("--database", choices=["postgres", "sqlite"], default="postgres")
    parser.add_argument(
        "--cards",
        type=names_in,
        default=set(NAMES),
        help=f"which of the named cards are in the deck, by commas: {', '.join(NAMES)}",
    )
    parser.add_argument("--without", type=names_in, default=set(), help="named cards to leave out")
    parser.add_argument("--only", action="store_true", help="no other cards than the named ones")
    parser.add_argument("--node-command", default=os.environ.get("PROGROCK_TEST_NODE_COMMAND", ""))
    parser.add_argument("--keep", action="store_true", help="keep the logs of a good run too")
    options = parser.parse_args()
    options.cards -= options.without
    options.amqp = os.environ.get("PROGROCK_TEST_AMQP_URL", "").replace(",", " ").split()
    directory = Path(tempfile.mkdtemp(prefix="progrock-chaos-"))
    verdict = asyncio.run(chaos(options, directory))
    print(verdict.table())
    kept = "the promise was kept" if verdict.passed else "THE PROMISE WAS BROKEN"
    print(f"seed {options.seed}: {kept}")
    if verdict.passed and not options.keep:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"logs: {directory}")
    sys.exit(not verdict.passed)


if __name__ == "__main__":
    main()
