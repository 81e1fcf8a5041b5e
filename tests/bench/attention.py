"""What `unwatched` saves at the backend, how soon a browser sees fresh state, and what it costs.

    python -m tests.bench.attention

Jobs over HTTP, one request a job; a part of them has an open socket. Then the cost of a load for
looks and of a commit with and without the question who watches, alternated, on both databases.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from tests.bench.fill import insert, row
from tests.bench.stand import Bench, Stand
from tests.bench.tables import HTTP, NOOP
from tests.services import DEMO_ANSWERS, DemoBackend, Postgres, private_broker

#: Seconds between two looks at a job that is watched, and at one that is not.
INTERVAL, UNWATCHED = 10.0, 100.0
#: The jobs of each audience.
EACH = 10
SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--part", type=float, default=0.05, help="which part of them is watched")
    parser.add_argument("--seconds", type=float, default=100.0, help="length of each measurement")
    parser.add_argument("--turns", type=int, default=300, help="how often the costs are measured")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(costs(options.jobs, options.turns)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that all processes are stopped.
    with (
        tempfile.TemporaryDirectory(prefix="progrock-", ignore_cleanup_errors=True) as folder,
        private_broker(Path(folder) / "rabbitmq") as broker,
    ):
        stand = Stand(Path(folder), broker, SimpleNamespace(at=[]))  # type: ignore[arg-type]
        fresh(stand, options)
        requests(stand, options)
        postgres = Postgres(durable=True)
        try:
            postgres.start()
            for name, url in ((SQLITE, ""), (POSTGRESQL, postgres.new_database())):
                report(name, stand, url, options)
        finally:
            postgres.stop()


def requests(stand: Stand, options: argparse.Namespace) -> None:
    """Requests a second at the backend, without `unwatched` and with it."""
    found = {}
    for unwatched in (INTERVAL, UNWATCHED):
        folder = stand.folder("backend")
        folder.mkdir()
        backend = DemoBackend(folder)
        tables = HTTP.format(url=backend.url, many="", answers=DEMO_ANSWERS, interval=INTERVAL)
        tables += f"unwatched = {unwatched}\n"
        env = {"PROGROCK_AUDIENCES": "tests.bench.sockets.audiences"}
        try:
            backend.start()
            with stand.stack(tables, env=env) as up:
                up.start_web()
                found[unwatched] = asyncio.run(_rate(up, options, hold=unwatched != INTERVAL))
        finally:
            backend.stop()
    want = options.part + (1 - options.part) * INTERVAL / UNWATCHED
    ratio = found[UNWATCHED] / found[INTERVAL]
    print(f"requests: {ratio:.3f} of those without; {want:.3f} is what the intervals make")


async def _rate(up: Bench, options: argparse.Namespace, *, hold: bool) -> float:
    """Requests a second while a part of the audiences has an open socket."""
    audiences = options.jobs // EACH
    args = ["--backend", "demo", "--queued", "--audiences", str(audiences)]
    args += ["--params", '{"seconds": 2000}']  # its progress is another at each look
    await asyncio.to_thread(up.fill, str(options.jobs), *args)
    while await asyncio.to_thread(up.count, "queued", "starting"):
        await asyncio.sleep(1)
    await asyncio.sleep(UNWATCHED if hold else INTERVAL)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        sockets = [
            await session.ws_connect(f"{up.ws_url}?audience=bench:{n}")
            for n in range(int(audiences * options.part))
        ]
        readers = [asyncio.create_task(_read(each)) for each in sockets]
        await asyncio.sleep(2 * INTERVAL)
        span = await asyncio.to_thread(up.measure, options.seconds)
        what = f"unwatched = {UNWATCHED:g}" if hold else f"all each {INTERVAL:g} s"
        print(f"{options.jobs} jobs, {len(sockets) * EACH} watched, {what}: {span}", flush=True)
        for reader in readers:
            reader.cancel()
    return span.rate


async def _read(socket: aiohttp.ClientWebSocketResponse) -> None:
    async for _ in socket:
        pass


def fresh(stand: Stand, options: argparse.Namespace) -> None:
    """How soon a browser that comes sees fresh state, where each look has news."""
    tables = NOOP.format(interval=INTERVAL, changes=1.0) + f"unwatched = {UNWATCHED}\n"
    with stand.stack(tables, env={"PROGROCK_AUDIENCES": "tests.bench.sockets.audiences"}) as up:
        up.start_web()
        up.fill(str(options.jobs), "--audiences", str(options.jobs // EACH))
        time.sleep(3 * INTERVAL)
        waits = asyncio.run(_come(up, min(50, options.jobs // EACH)))
    cuts = statistics.quantiles(waits, n=20)
    print(
        f"a browser that comes: fresh state of {EACH} jobs after {statistics.median(waits):.3f} s"
        f" in the median of {len(waits)}, {cuts[18]:.3f} s p95, {max(waits):.3f} s at most",
        flush=True,
    )


async def _come(up: Bench, audiences: int) -> list[float]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        return [await _fresh(session, up, n) for n in range(audiences)]


async def _fresh(session: aiohttp.ClientSession, up: Bench, audience: int) -> float:
    """Seconds from the handshake until each job of an audience is shown as it is now."""
    timeout = 2 * UNWATCHED
    begun = time.monotonic()
    url = f"{up.ws_url}?audience=bench:{audience}"
    async with session.ws_connect(url) as socket:
        left: dict[str, int] = {}
        while True:
            frame = json.loads((await socket.receive(timeout)).data)
            if frame["type"] == "snapshot":
                left = {job["job"]: job["version"] for job in frame["jobs"]}
            elif frame["type"] == "job" and frame["version"] > left.get(frame["job"], 0):
                left.pop(frame["job"], None)
                if not left:
                    return time.monotonic() - begun


def report(name: str, stand: Stand, url: str, options: argparse.Namespace) -> None:
    """The cost of a batch with and without the question, on one database."""
    nobody = "http://127.0.0.1:9"
    tables = HTTP.format(url=nobody, many="", answers=DEMO_ANSWERS, interval=INTERVAL)
    with stand.stack(tables, workers=0, database_url=url) as up:
        command = ["-m", "tests.bench.attention", "--inside", "--jobs", str(options.jobs)]
        done = up.run([sys.executable, *command, "--turns", str(options.turns)], timeout=900)
    for what, (without, with_it) in json.loads(done.stdout.splitlines()[-1]).items():
        print(f"{name}, {what}: {without:.2f} without, {with_it:.2f} with", flush=True)


def costs(jobs: int, turns: int) -> dict[str, tuple[float, float]]:
    """Medians without the question and with it, in microseconds a job, in batches of 100."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.db import connection

    from progrock import attention, conf, ledger
    from progrock.backends import Options
    from progrock.lifecycle import Decision

    # SQLite's work is this thread's CPU; PostgreSQL's is in another process
    now = time.thread_time if connection.vendor == "sqlite" else time.perf_counter
    ids = [str(uuid.uuid4()) for _ in range(jobs)]
    due = time.time()
    for i in range(0, jobs, 500):
        part = range(i, min(i + 500, jobs))
        insert([row(ids[n], f"bench:{n // EACH}", "demo", "running", due) for n in part])
    conf.backends = lambda: {"demo": Options(name="demo", unwatched=UNWATCHED)}  # type: ignore[assignment]
    for n in range(0, jobs // EACH, 500):  # half of them
        attention.watch([f"bench:{each}" for each in range(n, n + 250)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    taken: dict[str, tuple[list[float], list[float]]] = {
        "a load": ([], []),
        "a step without news": ([], []),
        "a handshake of an audience that is watched": ([], []),
    }
    plain = Decision("running", ids[0], None, delay=1.0)
    for _ in range(turns):
        batch = random.sample(ids, 100)
        both: list[Any] = [False, True]
        random.shuffle(both)
        for asks in both:
            begun = now()
            rows = list(ledger.load_for_looks(batch, attention=asks).values())
            loaded = now()
            decided = [
                (each, plain._replace(handle=each.handle, soon=1.0 if asks else None))
                for each in rows
            ]
            before = now()
            ledger.commit(decided, time.time())
            done = now()
            taken["a load"][asks].append(loaded - begun)
            taken["a step without news"][asks].append(done - before)
        begun = now()
        attention.watch([f"bench:{random.randrange(250)}"])
        taken["a handshake of an audience that is watched"][1].append(100 * (now() - begun))
    return {
        what: (
            statistics.median(without or [0.0]) * 1e4,
            statistics.median(with_it) * 1e4,
        )
        for what, (without, with_it) in taken.items()
    }


if __name__ == "__main__":
    main()
