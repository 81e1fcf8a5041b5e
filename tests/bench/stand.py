"""The stand of the bench: stacks whose workers are watched, and what they did in a span of time."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from tests.bench.worker import RECORD
from tests.bench.writes import written
from tests.services import Broker, Process, Stack

#: A rate is held as long as the 99th percentile of the lateness is not above this (seconds).
BOUND = 0.1


@dataclass(frozen=True, kw_only=True)
class Span:
    """What the workers did in a span of time.

    `rate`: cycles a second. `median`, `p99`, `worst`: how late the polls were, in seconds.
    `early`: how many polls were early. `cpu`: microseconds a cycle, by role. `writes`: what was
    written a cycle, by the keys of `writes.NAMES`.
    """

    rate: float
    median: float
    p99: float
    worst: float
    early: int
    cpu: dict[str, float]
    writes: dict[str, float]

    @property
    def cores(self) -> float:
        """How many cores all roles together were busy with."""
        return self.rate * sum(self.cpu.values()) / 1e6

    @property
    def held(self) -> bool:
        """Whether the polls came in time."""
        return self.p99 <= BOUND

    def __str__(self) -> str:
        costs = " ".join(f"{name} {cost:.0f}" for name, cost in self.cpu.items())
        late = f"late {self.median * 1e3:.1f} ms median, {self.p99 * 1e3:.1f} p99"
        late += f", {self.worst * 1e3:.0f} worst"
        late += f", {self.early} early"
        rows = f", {self.writes['rows']:.3f} rows written a look" if self.writes else ""
        return f"{self.rate:8.0f}/s  {late}  [us a cycle: {costs}{rows}]"

    def json(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of processes and all their descendants, in seconds."""
    total = 0.0
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in [process, *process.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    total += times.user + times.system
    return total


def memory(pids: Iterable[int]) -> int:
    """Bytes that processes hold for themselves.

    Mapped pages of files (SQLite's) do not count, because the kernel may drop them.
    """
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += 1024 * int(rollup.partition("Anonymous:")[2].split()[0])
    return total


class Bench(Stack):
    """A stack whose workers note how late they poll; `roles` has the processes whose CPU counts."""

    def __init__(
        self,
        directory: Path,
        broker: Broker,
        *,
        tables: str,
        database_url: str = "",
        others: Mapping[str, int] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        directory.mkdir(parents=True)
        (directory / "backends.toml").write_text(tables)
        own = {"PROGROCK_BACKENDS": str(directory / "backends.toml"), "DEBUG": "0"}
        own |= {"PROGROCK_LOG_LEVEL": "WARNING", "PROGROCK_HTTPS": "0"}
        own |= {"ALLOWED_HOSTS": "127.0.0.1", "PROGROCK_ANONYMOUS": "1"}
        super().__init__(directory, broker, database_url=database_url, env=own | dict(env or {}))
        assert broker.node
        assert broker.node.process
        self.roles: dict[str, list[int]] = {"broker": [broker.node.process.pid]}
        self.roles |= {name: [pid] for name, pid in (others or {}).items()}
        self.prepare()

    def start_worker(self, *queues: str, env: Mapping[str, str] | None = None) -> Process:
        """Start one more `runworker`, with a stop-watch."""
        name = f"worker{next(self._numbers)}"
        own = {"BENCH_RECORD": str(self.directory / f"{name}.record"), **(env or {})}
        command = [sys.executable, "-m", "tests.bench.worker", *queues]
        worker = self.add(name, command, own).start()
        self.roles.setdefault("worker", []).append(worker.pid)
        return worker

    def start_web(self) -> Process:
        """Start the web server."""
        web = super().start_web()
        self.roles["web"] = [web.pid]
        return web

    def fill(self, *args: str, timeout: float = 900) -> str:
        """Run `tests.bench.fill`, which makes jobs; returns what it said."""
        command = [sys.executable, "-m", "tests.bench.fill", *args]
        return self.run(command, timeout=timeout).stdout.strip()

    def count(self, *states: str) -> int:
        """How many jobs of the ledger are in one of these states."""
        jobs = f"Job.objects.filter(state__in={list(states)})"
        return int(self.shell(f"from progrock.models import Job; print({jobs}.count())"))

    def longest_wait(self, jobs: int, interval: float) -> float:
        """Seconds by which the most overdue of all jobs is late; the workers need BENCH_JOBS.

        Only this shows a job that is never polled. A job's row does not tell when its task is due,
        so it is when the worker polled the job last that counts, and an interval more.
        """
        polled: dict[str, float] = {}
        first = last = 0.0
        for path in self.directory.glob("*.jobs"):
            for line in path.read_text().splitlines(keepends=True):
                when, *ids = line.split()
                if line.endswith("\n"):  # else it is not yet written whole
                    last = max(last, float(when))
                    first = first or float(when)
                    polled |= dict.fromkeys(ids, float(when))
        return last - (min(polled.values()) if len(polled) >= jobs else first) - interval

    def written(self) -> dict[str, float]:
        """What was written into the database so far, by the keys of `writes.NAMES`."""
        return written(self.database_url, self.directory)

    def measure(self, seconds: float) -> Span:
        """Let all run for so long; returns what the workers did."""
        return measured(self.roles, self.directory, seconds, self.written)


class Stand:
    """What the scenarios share: the options, a RabbitMQ, a folder."""

    def __init__(self, directory: Path, broker: Broker, options: argparse.Namespace) -> None:
        self.directory, self.broker, self.options = directory, broker, options
        self._count = 0

    def sizes(self, scenario: str, usual: Sequence[int]) -> Sequence[int]:
        """How many jobs a scenario has, step by step."""
        found: Sequence[int] = dict(self.options.at).get(scenario, usual)
        return found

    def folder(self, name: str) -> Path:
        """The path of a new folder."""
        self._count += 1
        return self.directory / f"{name}-{self._count}"

    @contextmanager
    def stack(self, tables: str, *, workers: int = 2, **options: Any) -> Iterator[Bench]:
        """A stack with workers that are up."""
        with Bench(self.folder("stack"), self.broker, tables=tables, **options) as up:
            for _ in range(workers):
                up.start_worker()
            time.sleep(2.5)
            yield up
            if wrong := [
                line for line in up.logs().splitlines() if "ERROR" in line or "Traceback" in line
            ]:
                print("  the log has errors:", *wrong[:5], sep="\n    ", flush=True)

    def broker_memory(self) -> float:
        """The bytes that RabbitMQ uses, after a garbage collection."""
        assert self.broker.node
        self.broker.node.ctl("force_gc")
        time.sleep(6)  # The management API samples every five seconds.
        return float(self.broker.api("GET", "nodes")[0]["mem_used"])

    def climb(
        self, sizes: Sequence[int], add: Callable[[int], object], measure: Callable[[float], Span]
    ) -> Span:
        """Add jobs, step by step, until the polls come too late.

        `add` gets how many more jobs to make, `measure` how many seconds to measure. Each step
        has a second try, because on a shared machine one bad span is no proof. Returns the best
        span that was held, or the last one if none was.
        """
        best: Span | None = None
        have = 0
        for size in sizes:
            add(size - have)
            have = size
            time.sleep(4 if self.options.quick else 8)
            now = measure(self.options.seconds)
            print(f"  {size:6} jobs {now}", flush=True)
            if not now.held:
                time.sleep(3)
                now = measure(self.options.seconds)
                print(f"  {size:6} again{now}", flush=True)
            if now.held:
                best = now if best is None or now.rate > best.rate else best
            else:
                return best or now
        return best or now


def measured(
    roles: Mapping[str, Iterable[int]],
    directory: Path,
    seconds: float,
    written: Callable[[], dict[str, float]] = dict,
) -> Span:
    """Wait for so long; returns what the workers with records in `directory` did.

    `roles`: the ids of the processes whose CPU time counts, by role. `written` gives what was
    written so far, by name.
    """
    writes_before = written()
    begun, before = time.time(), {role: cpu_seconds(pids) for role, pids in roles.items()}
    time.sleep(seconds)
    ended, after = time.time(), {role: cpu_seconds(pids) for role, pids in roles.items()}
    writes = {name: count - writes_before[name] for name, count in written().items()}
    time.sleep(0.6)  # By then the workers have written their records.
    cpu = {role: after[role] - before[role] for role in roles}
    return span(directory.glob("*.record"), begun, ended, cpu, writes)


def span(
    records: Iterable[Path],
    begun: float,
    ended: float,
    cpu: Mapping[str, float] = MappingProxyType({}),
    writes: Mapping[str, float] = MappingProxyType({}),
) -> Span:
    """What the records of some workers say about a span of time.

    `cpu`: seconds, by role. `writes`: what was written meanwhile, by name.
    """
    late: list[tuple[float, int]] = []
    early = 0
    for path in records:
        for when, first, last, count in polls(path):
            if begun <= when < ended:
                late.append((first, count))
                early += count * (last < 0)
    late.sort()
    cycles = sum(count for _, count in late)
    costs = {role: spent / max(cycles, 1) * 1e6 for role, spent in cpu.items()}
    worst = late[-1][0] if late else 0.0
    return Span(
        rate=cycles / (ended - begun),
        median=_cut(late, cycles, 0.5),
        p99=_cut(late, cycles, 0.99) if late else 9.9,
        worst=worst,
        early=early,
        cpu=costs,
        writes={name: count / max(cycles, 1) for name, count in writes.items()},
    )


def polls(record: Path) -> Iterator[tuple[float, float, float, int]]:
    """What a worker has written so far, as RECORD says."""
    data = record.read_bytes()
    return RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])


def _cut(late: list[tuple[float, int]], total: int, part: float) -> float:
    below = 0
    for value, count in late:
        below += count
        if below >= part * total:
            return value
    return 0.0
