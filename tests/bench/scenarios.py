"""What `make bench` measures: each scenario returns lines of the table.

It runs real processes on the RabbitMQ of the stand.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import bench_delay
from tests.bench.away import away
from tests.bench.lines import Line
from tests.bench.polls import MANY_JOBS, ONE_A_JOB, POSTGRES, SQLITE, poll_line, poll_single
from tests.bench.stand import Bench, Span, Stand, cpu_seconds, measured, memory, polls, span
from tests.bench.steady import steady
from tests.bench.storm import room_for_sockets
from tests.bench.tables import NOOP
from tests.services import ROOT, DemoBackend, Postgres, Process, private_broker

#: A second worker takes its part once it does this part of all cycles.
FAIR = 0.4
#: Seconds after which we no longer wait for that.
LIMIT = 60.0
#: A worker has too much to do when the median of its lateness is not below this (seconds).
OVERLOADED = 0.5


def delay(stand: Stand) -> list[Line]:
    """(d) How late tasks with random delays of 0.1 to 5 s come, at 500 a second."""
    seconds = 10.0 if stand.options.quick else 30.0
    options = argparse.Namespace(rate=500.0, seconds=seconds, shortest=0.1, longest=5.0, shards=2)
    came = asyncio.run(bench_delay.measure(stand.broker.new_vhost("delay"), options))
    late = sorted(value for _, value in came)
    early = sum(value < 0 for value in late)
    detail = {"tasks": len(late), "early": early}
    middle, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    print(
        f"  {len(late)} tasks, {middle * 1e3:.1f} ms median, {p99 * 1e3:.1f} p99, {early} early",
        flush=True,
    )
    what = "lateness, delays of 0.1–5 s, 500/s: median"
    return [
        Line(what=what, value=middle * 1e3, unit="ms", goal=4, less=True, detail=detail),
        Line(what="… p99", value=p99 * 1e3, unit="ms", goal=30, less=True, detail=detail),
    ]


@contextmanager
def _sockets(up: Bench, count: int, *args: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "tests.bench.sockets", up.ws_url, "--sockets", str(count)]
    command += args
    client = subprocess.Popen(
        command, env=up.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert client.stdout
        print("  " + client.stdout.readline().strip(), flush=True)
        yield client
    finally:
        client.kill()
        client.wait()


def push(stand: Stand) -> list[Line]:
    """(e) Pushes a second to 4 sockets each, from the commit to the frame at the client."""
    lines = []
    env = {"PROGROCK_AUDIENCES": "tests.bench.sockets.audiences"}
    tables = NOOP.format(interval=1.0, changes=1.0)
    # So many jobs make 1,000 polls a second, because the random spread and the grid add up to
    # 70 ms to the interval of a second.
    thousand = 1_050
    for rate in (thousand, *(stand.sizes("push", (4_300, 5_500, 7_000)))):
        with stand.stack(tables, env={**env, "BENCH_STAMP": "1"}) as up:
            up.start_web()
            audiences = 50
            # To see how long a change takes, start jobs one by one, as browsers do; to see how
            # many changes there can be, make the jobs in bulk.
            starts = ("--starts", "200") if rate == thousand else ()
            up.fill(str(rate), "--audiences", str(audiences), *starts)
            seconds = str(stand.options.seconds)
            with _sockets(up, 4 * audiences, "--each", "4", "--seconds", seconds) as client:
                time.sleep(3)
                before = {role: cpu_seconds(pids) for role, pids in up.roles.items()}
                said, _ = client.communicate("go\n", timeout=120)
                found = json.loads(said.splitlines()[-1])
                pushes = found["frames"] / 4
                total = max(1.0, pushes * stand.options.seconds)
                cpu = {
                    role: (cpu_seconds(pids) - before[role]) / total * 1e6
                    for role, pids in up.roles.items()
                }
            costs = " ".join(f"{role} {cost:.0f}" for role, cost in cpu.items())
            late = f"{found['median'] * 1e3:.1f} ms median, {found['p99'] * 1e3:.1f} p99"
            print(f"  {pushes:.0f} pushes/s, {late}  [us a push: {costs}]", flush=True)
        detail = {**found, "pushes": pushes, "cpu": cpu}
        if rate == thousand:
            what = "commit to browser frame at 1,000 pushes/s: median"
            figures = ((what, found["median"], 3), ("… p99", found["p99"], 20))
            lines += [
                Line(what=what, value=value * 1e3, unit="ms", goal=goal, less=True, detail=detail)
                for what, value, goal in figures
            ]
        else:
            held = found["p99"] <= 0.05
            if held or len(lines) == 2:
                unit = "pushes/s" if held else f"pushes/s, p99 {found['p99'] * 1e3:.0f} ms"
                what = "pushes, 4 sockets each"
                lines[2:] = [Line(what=what, value=pushes, unit=unit, goal=4_000, detail=detail)]
            if not held:
                break
    return lines


def sockets(stand: Stand) -> list[Line]:
    """(f) Memory of one web process with 5,000 sockets, with their sessions and snapshots."""
    count = 1_000 if stand.options.quick else 5_000
    with stand.stack(NOOP.format(interval=1.0, changes=0.0), workers=0) as up:
        web = up.start_web()
        with _sockets(up, 50):
            time.sleep(1)
        before = memory([web.pid])
        with _sockets(up, count):
            time.sleep(2)
            after = memory([web.pid])
    each = (after - before) / count / 1024
    print(f"  {count} sockets: {before / 2**20:.0f} -> {after / 2**20:.0f} MiB", flush=True)
    what = f"memory a socket, {count:,} in one web process"
    return [Line(what=what, value=each, unit="KB", goal=40, less=True)]


def storm(stand: Stand) -> list[Line]:
    """(n) Browsers that come at once to one web process on PostgreSQL, and again as it restarts."""
    room_for_sockets()
    lines = []
    postgres = Postgres(durable=True).start()
    try:
        for count in stand.sizes("storm", (1_000,) if stand.options.quick else (1_000, 10_000)):
            lines += _storm(stand, postgres.new_database(), count)
    finally:
        postgres.stop()
    return lines


def _storm(stand: Stand, database_url: str, count: int) -> list[Line]:
    lines = []
    tables = NOOP.format(interval=1.0, changes=0.0)
    env = {"PROGROCK_MAX_ACTIVE_JOBS": "1000000"}
    with stand.stack(tables, workers=1, database_url=database_url, env=env) as up:
        up.start_web()
        command = [sys.executable, "-m", "tests.bench.storm", up.ws_url, "--browsers", str(count)]
        client = subprocess.Popen(
            command, env=up.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert client.stdin
        assert client.stdout
        try:
            for who in ("new", "known"):
                found = json.loads(client.stdout.readline())
                found["away"] = up.logs("web").count("the database is away")
                print(f"  {count} {who} browsers: {found}", flush=True)
                what = f"{count:,} {who} browsers come at once, until the last has its snapshot"
                value = found["within"]
                lines.append(
                    Line(what=what, value=value, unit="s", goal=30, less=True, detail=found)
                )
                if who == "new":
                    up.stop_web()
                    up.start_web()
                    client.stdin.write("\n")
                    client.stdin.flush()
        finally:
            client.kill()
            client.wait()
    return lines


def waiting(stand: Stand) -> list[Line]:
    """(g) A million jobs that wait: memory of the workers and of RabbitMQ, and how fast they drain.

    This has a RabbitMQ of its own that has done nothing before.
    """
    folder = stand.folder("waiting")
    with private_broker(folder / "rabbitmq", "bench") as broker:
        return _waiting(Stand(folder, broker, stand.options))


def _waiting(stand: Stand) -> list[Line]:
    count = 100_000 if stand.options.quick else 1_000_000
    wait = 60 if stand.options.quick else 240
    with stand.stack(NOOP.format(interval=3600.0, changes=0.0)) as up:
        workers = up.roles["worker"]
        before = stand.broker_memory(), memory(workers)
        begun = time.time()
        print("  " + up.fill(str(count), "--at", str(begun + wait)), flush=True)
        time.sleep(max(0.0, min(10.0, begun + wait - 15 - time.time())))
        after = stand.broker_memory(), memory(workers)
        each = (after[0] - before[0]) / count
        mib = f"{before[1] / 2**20:.0f} -> {after[1] / 2**20:.0f} MiB"
        print(f"  broker +{each:.0f} bytes a job; workers {mib}", flush=True)
        time.sleep(max(0.0, begun + wait - 1 - time.time()))
        drained = up.measure(5 if stand.options.quick else 25)
        peak = memory(workers)
        print(f"  draining {drained}; workers {peak / 2**20:.0f} MiB", flush=True)
    what = f"broker memory a job, {count:,} waiting"
    growth = (after[1] - before[1]) / 2 / 2**20
    return [
        Line(what=what, value=each, unit="bytes", goal=120, less=True),
        Line(what="… growth of a worker meanwhile", value=growth, unit="MiB", goal=5, less=True),
        Line(what="… draining", value=drained.rate, unit="cycles/s", detail=drained.json()),
    ]


def growth(stand: Stand) -> list[Line]:
    """(h) CPU a cycle with 1,000 and with 100,000 jobs, at the same cycles a second.

    The intervals are 0.1 and 10 s, so that each cycle takes one lane. Both have leases of as many
    looks, so that as large a part of the cycles writes.
    """
    found: dict[int, Span] = {}
    most = 20_000 if stand.options.quick else 100_000
    for count in (1_000, most):
        interval = count / 10_000
        tables = NOOP.format(interval=interval, changes=0.0) + f"lease = {6 * interval}\n"
        with stand.stack(tables) as up:
            up.fill(str(count))
            time.sleep(6 + interval)
            found[count] = up.measure(2 * stand.options.seconds)
            print(f"  {count:6} jobs {found[count]}", flush=True)
    costs = {count: sum(each.cpu.values()) for count, each in found.items()}
    what = f"CPU a cycle with {most:,} jobs, to that with 1,000"
    detail = {str(count): each.json() for count, each in found.items()}
    ratio = costs[most] / costs[1_000]
    return [Line(what=what, value=ratio, unit="×", goal=1.2, less=True, detail=detail)]


def overload(stand: Stand) -> list[Line]:
    """(i) More jobs than one worker can poll.

    Measured are its memory, whether all jobs get their turn, and how soon a second worker helps.
    """
    tables, env = NOOP.format(interval=1.0, changes=0.0), {"BENCH_JOBS": "1"}
    with stand.stack(tables, workers=1, env=env) as up:
        (first,) = up.roles["worker"]
        up.fill("1000")
        time.sleep(4)
        calm, have = memory([first]), 1_000
        step = 30_000 if stand.options.quick else 60_000
        for count in stand.sizes("overload", range(step, 6 * step, step)):
            print("  " + up.fill(str(count - have)), flush=True)
            have = count
            time.sleep(4 if stand.options.quick else 8)
            if up.measure(3).median >= OVERLOADED:
                break
        begin = memory([first])
        alone = up.measure(2 * stand.options.seconds)
        end, longest = memory([first]), up.longest_wait(have, 1.0)
        mib = {
            name: value / 2**20 for name, value in (("calm", calm), ("begin", begin), ("end", end))
        }
        said = ", ".join(f"{value:.1f} MiB {name}" for name, value in mib.items())
        print(
            f"  {have:6} jobs, one worker {alone}; {longest * 1e3:.0f} ms the longest wait; {said}",
            flush=True,
        )
        begun = time.time()
        second = up.start_worker()
        took = _takes_part(up, second, begun)
        both = up.measure(stand.options.seconds)
        came, own = _since(up, second, begun)
        print(f"  two workers {both}; {own:.0f}/s by the second since its first poll", flush=True)
        print(
            f"  its first poll after {came:.1f} s, {FAIR:.0%} of the cycles after {took:.1f} s",
            flush=True,
        )
    shown = "" if alone.median >= OVERLOADED else ", one worker was enough"
    about = {"jobs": have, "alone": alone.json()}
    sharing = {
        "first poll": came,
        "from its first poll": took - came,
        "second": own,
        "both": both.json(),
    }
    return [
        Line(
            what="growth of a worker while it has too much to do",
            value=mib["end"] - mib["begin"],
            unit=f"MiB{shown}",
            goal=5,
            less=True,
            detail=about | mib,
        ),
        Line(
            what="… lateness there: p99, or the longest wait, to the median",
            value=max(alone.p99, longest) / max(alone.median, 1e-3),
            unit=f"×{shown}",
            goal=2,
            less=True,
            detail=about | {"longest": longest},
        ),
        Line(
            what=f"… until a second worker does {FAIR:.0%} of the cycles, from its start",
            value=took,
            unit="s" if took < LIMIT else "s, and not yet",
            goal=10,
            less=True,
            detail=about | sharing,
        ),
    ]


def _record(up: Bench, worker: Process) -> Path:
    return up.directory / f"{worker.name}.record"


def _takes_part(up: Bench, worker: Process, begun: float) -> float:
    """Seconds from `begun` until a worker has done its part of the cycles of one second.

    LIMIT at most.
    """
    record = _record(up, worker)
    while (took := time.time() - 0.6 - begun) < LIMIT:  # By then it is in the record.
        if record.exists():
            window = begun + took - 1, begun + took
            own, every = (span(each, *window) for each in ([record], up.directory.glob("*.record")))
            if own.rate >= FAIR * every.rate > 0:
                return took
        time.sleep(0.1)
    return LIMIT


def _since(up: Bench, worker: Process, begun: float) -> tuple[float, float]:
    """A worker's first poll, in seconds from `begun`, and its cycles a second since then."""
    record = _record(up, worker)
    found = list(polls(record)) if record.exists() else []
    if not found:
        return LIMIT, 0.0
    first, last = found[0][0], found[-1][0]
    return first - begun, sum(count for *_, count in found) / max(last - first, 1.0)


def _celery(stand: Stand, kind: str, pool: Sequence[str], sizes: Sequence[int]) -> Span:
    folder = stand.folder(f"celery-{kind}")
    folder.mkdir()
    env = os.environ | {"AMQP_URL": stand.broker.new_vhost("celery")}
    env |= {"BENCH_PEER": kind, "BENCH_RECORDS": str(folder)}
    backend = DemoBackend(folder) if kind == "requests" else None
    workers: list[Process] = []
    try:
        if backend:
            env["DEMO_BACKEND_URL"] = backend.start().url
        command = [sys.executable, "-m", "celery", "-A", "tests.bench.peers", "worker"]
        command += ["-l", "ERROR", *pool, "--without-gossip", "--without-mingle", "-n"]
        for n in range(2):
            log = folder / f"{n}.log"
            worker = Process(f"celery{n}", [*command, f"bench{n}@localhost"], log=log, env=env)
            workers.append(worker.start())
        time.sleep(6)
        assert stand.broker.node
        assert stand.broker.node.process
        roles = {"worker": [each.pid for each in workers]}
        roles["broker"] = [stand.broker.node.process.pid]
        if backend:
            roles["backend"] = [backend.process.pid]

        def add(count: int) -> None:
            fill = [sys.executable, "-m", "tests.bench.peers", str(count)]
            subprocess.run(fill, env=env, cwd=ROOT, check=True)

        return stand.climb(sizes, add, lambda seconds: measured(roles, folder, seconds))
    finally:
        for worker in workers:
            worker.kill()
        if backend:
            backend.stop()


def celery_eta(stand: Stand) -> list[Line]:
    """Celery, where the workers hold the countdown in memory."""
    sizes = stand.sizes("celery_eta", range(500, 4_001, 250))
    found = _celery(stand, "eta", ["-P", "prefork", "-c", "1"], sizes)
    what = "Celery, countdown (ETA in the worker), no ledger"
    return [poll_line(what, found, None, peer=True, group="poll")]


def celery_native(stand: Stand) -> list[Line]:
    """Celery's native delayed delivery on quorum queues."""
    sizes = stand.sizes("celery_native", range(100, 1_001, 100))
    found = _celery(stand, "native", ["-P", "prefork", "-c", "1"], sizes)
    what = "Celery, native delayed delivery, no ledger"
    return [poll_line(what, found, None, peer=True, group="poll")]


def celery_requests(stand: Stand) -> list[Line]:
    """Celery with one GET a job by requests."""
    sizes = stand.sizes("celery_requests", range(150, 3_001, 150))
    found = _celery(stand, "requests", ["-P", "threads", "-c", "8"], sizes)
    what = "Celery with requests, one request a job, no ledger"
    return [poll_line(what, found, None, peer=True, group="http")]


#: What is run where nobody says what.
USUAL: dict[str, Callable[[Stand], list[Line]]] = {
    SQLITE.name: SQLITE,
    "poll_single": poll_single,
    POSTGRES.name: POSTGRES,
    "celery_eta": celery_eta,
    "celery_native": celery_native,
    ONE_A_JOB.name: ONE_A_JOB,
    MANY_JOBS.name: MANY_JOBS,
    "celery_requests": celery_requests,
    "delay": delay,
    "push": push,
    "sockets": sockets,
    "storm": storm,
    "waiting": waiting,
    "growth": growth,
    "overload": overload,
    "steady": steady,
    "away": away,
}
SCENARIOS = USUAL | {
    form.name: form for poll in (SQLITE, POSTGRES, ONE_A_JOB, MANY_JOBS) for form in poll.changing()
}
