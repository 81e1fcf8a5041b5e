"""The stand of the benchmarks: a private RabbitMQ, stacks with watched workers, and what they did in a span of time."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from deploy.demo.rabbitmq_node import Node, free_port
from tests.bench.worker import RECORD
from tests.services import ROOT, Broker, Process, Stack

#: A rate counts as held while the 99th percentile of lateness is below this (seconds).
BOUND = 0.1


@dataclass(frozen=True, kw_only=True)
class Span:
    """What happened in a span of time; times in seconds, costs in microseconds of CPU a cycle."""

    rate: float
    median: float
    p99: float
    worst: float
    early: int
    cpu: dict[str, float]

    @property
    def held(self) -> bool:
        """Whether the polls came on time."""
        return self.p99 <= BOUND

    def __str__(self) -> str:
        costs = " ".join(f"{name} {cost:.0f}" for name, cost in self.cpu.items())
        late = f"late {self.median * 1e3:.1f} ms median, {self.p99 * 1e3:.1f} p99, {self.worst * 1e3:.0f} worst"
        return f"{self.rate:8.0f}/s  {late}, {self.early} early  [us a cycle: {costs}]"

    def json(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self)


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of processes with all their descendants."""
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
    """Bytes that processes hold for themselves; pages of files mapped into them (SQLite's) are the kernel's to drop."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += 1024 * int(rollup.partition("Anonymous:")[2].split()[0])
    return total


class Bench(Stack):
    """A stack whose workers note how late they poll."""

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
        own = {
            "PROGROCK_BACKENDS": str(directory / "backends.toml"),
            "PROGROCK_LOG_LEVEL": "WARNING",
        }
        own |= {
            "DEBUG": "0",
            "PROGROCK_HTTPS": "0",
            "ALLOWED_HOSTS": "127.0.0.1",
            "PROGROCK_ANONYMOUS": "1",
        }
        super().__init__(directory, broker, database_url=database_url, env=own | dict(env or {}))
        assert broker.node
        assert broker.node.process
        self.roles: dict[str, list[int]] = {"broker": [broker.node.process.pid]}
        self.roles |= {name: [pid] for name, pid in (others or {}).items()}
        self.manage("migrate", "--verbosity", "0")
        self.manage("topology", "--declare")

    def start_worker(self, *queues: str, env: Mapping[str, str] | None = None) -> Process:
        """Start one more `runworker`, with its stop-watch."""
        name = f"worker{next(self._numbers)}"
        own = {"BENCH_RECORD": str(self.directory / f"{name}.record"), **(env or {})}
        worker = self._process(
            name, [sys.executable, "-m", "tests.bench.worker", *queues], own
        ).start()
        self.roles.setdefault("worker", []).append(worker.pid)
        return worker

    def start_web(self) -> Process:
        """Start the web server."""
        web = super().start_web()
        self.roles["web"] = [web.pid]
        return web

    def fill(self, *args: str, timeout: float = 900) -> str:
        """Run `tests.bench.fill`."""
        command = [sys.executable, "-m", "tests.bench.fill", *args]
        done = subprocess.run(
            command,
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"fill {' '.join(args)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def count(self, *states: str) -> int:
        """How many jobs of the ledger are in one of these states."""
        code = f"from progrock.models import Job; print(Job.objects.filter(state__in={list(states)}).count())"
        return int(self.manage("shell", "--verbosity", "0", "-c", code).stdout.split()[-1])

    def longest_wait(self) -> float:
        """By how many seconds the job is overdue that waits longest: a job that is never polled shows here alone."""
        code = (
            "import time; from progrock.models import Job; "
            "oldest = Job.objects.filter(state='running').order_by('due_at').first(); "
            "print(time.time() - oldest.due_at.timestamp())"
        )
        return float(self.manage("shell", "--verbosity", "0", "-c", code).stdout.split()[-1])

    def measure(self, seconds: float) -> Span:
        """Let it run for so long, and tell what the workers did."""
        begun, before = time.time(), {role: cpu_seconds(pids) for role, pids in self.roles.items()}
        time.sleep(seconds)
        ended, after = time.time(), {role: cpu_seconds(pids) for role, pids in self.roles.items()}
        time.sleep(0.6)  # until the workers have written it down
        return span(
            self.directory.glob("*.record"),
            begun,
            ended,
            {role: after[role] - before[role] for role in before},
        )


def span(records: Iterable[Path], begun: float, ended: float, cpu: Mapping[str, float]) -> Span:
    """What the files of a set of workers say of a span of time."""
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
        rate=cycles / (ended - begun), median=_cut(late, cycles, 0.5), p99=_cut(late, cycles, 0.99) if late else 9.9,
        worst=worst, early=early, cpu=costs,
    )  # fmt: skip


def polls(record: Path) -> Iterator[tuple[float, float, float, int]]:
    """What a worker wrote down so far: see RECORD."""
    data = record.read_bytes()
    return RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size])


def _cut(late: list[tuple[float, int]], total: int, part: float) -> float:
    below = 0
    for value, count in late:
        below += count
        if below >= part * total:
            return value
    return 0.0


def private_broker(directory: Path) -> Broker:
    """A RabbitMQ of the benchmark's own; it has to be stopped by its node."""
    node = Node(directory, amqp_port=free_port(), management_port=free_port(), name="bench")
    node.start()
    return Broker(node.amqp_url, node.management_url, node)
