"""The stand of the bench: stacks whose workers are watched, and what they did in a span of time."""

import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.bench.worker import RECORD
from tests.services import Broker, Process, Stack

#: A rate is held as long as the 99th percentile of the lateness is not above this (seconds).
BOUND = 0.1


@dataclass(frozen=True, kw_only=True)
class Span:
    """What the workers did in a span of time.

    `rate`: cycles a second. `median`, `p99`, `worst`: how late the polls were, in seconds.
    `early`: how many polls were early. `cpu`: microseconds a cycle, by role.
    """

    rate: float
    median: float
    p99: float
    worst: float
    early: int
    cpu: dict[str, float]

    @property
    def held(self) -> bool:
        """Whether the polls came in time."""
        return self.p99 <= BOUND

    def __str__(self) -> str:
        costs = " ".join(f"{name} {cost:.0f}" for name, cost in self.cpu.items())
        late = f"late {self.median * 1e3:.1f} ms median, {self.p99 * 1e3:.1f} p99"
        late += f", {self.worst * 1e3:.0f} worst"
        return f"{self.rate:8.0f}/s  {late}, {self.early} early  [us a cycle: {costs}]"

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

    def longest_wait(self) -> float:
        """Seconds by which the most overdue job is late.

        Only this shows a job that is never polled.
        """
        code = (
            "import time; from progrock.models import Job; "
            "oldest = Job.objects.filter(state='running').order_by('due_at').first(); "
            "print(time.time() - oldest.due_at.timestamp())"
        )
        return float(self.shell(code))

    def measure(self, seconds: float) -> Span:
        """Let all run for so long; returns what the workers did."""
        return measured(self.roles, self.directory, seconds)


def measured(roles: Mapping[str, Iterable[int]], directory: Path, seconds: float) -> Span:
    """Wait for so long; returns what the workers with records in `directory` did.

    `roles`: the ids of the processes whose CPU time counts, by role.
    """
    begun, before = time.time(), {role: cpu_seconds(pids) for role, pids in roles.items()}
    time.sleep(seconds)
    ended, after = time.time(), {role: cpu_seconds(pids) for role, pids in roles.items()}
    time.sleep(0.6)  # By then the workers have written their records.
    cpu = {role: after[role] - before[role] for role in roles}
    return span(directory.glob("*.record"), begun, ended, cpu)


def span(records: Iterable[Path], begun: float, ended: float, cpu: Mapping[str, float]) -> Span:
    """What the records of some workers say about a span of time; `cpu`: seconds, by role."""
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
