"""More work than one worker can do.

All jobs still get their turn, the log says how late they are, and a second worker takes its part.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from progrock.backends import JobView, Options, Status
from tests.services import Process, Stack

#: Each of so many jobs wants a poll every INTERVAL, and a poll takes COST (both in seconds). So
#: a worker can poll 3,333 of them a second, on no matter what machine.
JOBS, COST, INTERVAL = 8_000, 0.0003, 1.0
#: So many messages a worker may hold. The jobs make eighty full ones; 33 of these are in a lane.
HELD = 32
#: A worker of these tests says each second how late its tasks were, and fills its messages soon.
TIMES = {"progrock.consumers.lateness.REPORT": 1.0, "progrock.broker.publisher.MAX_TASKS": 100}
#: Each look is written, so the turns in the ledger tell who was looked at.
BACKENDS = """
[slow]
class = "tests.integration.test_sharing.Slow"
browser = true
interval = {interval}
timeout = 30
shards = 1
deadline = 86400
lease = 0
folder = "{folder}"
"""


class Slow:
    """A backend that answers one call at a time, and each after COST a job.

    It writes when it was polled, and for how many jobs, into a file of its process.
    """

    def __init__(self, options: Options, folder: str) -> None:
        self.options = options
        self.seen = Path(folder) / str(os.getpid())
        self.one = asyncio.Lock()

    async def start(self, job: JobView) -> str:
        """Start at once."""
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status]:
        """Still running."""
        async with self.one:
            await asyncio.sleep(COST * len(jobs))
            with self.seen.open("a") as seen:
                print(time.time(), len(jobs), file=seen)
        return {job.id: Status(state="running") for job in jobs}

    async def cancel(self, job: JobView) -> None:
        """Cancel at once."""

    async def aclose(self) -> None:
        """Nothing was opened."""


class Overloaded:
    """A stack with one worker and too many jobs for it."""

    def __init__(self, up: Stack, folder: Path) -> None:
        self.up, self.folder = up, folder

    def start_worker(self) -> Process:
        """Start one more worker."""
        return self.up.start_worker(hasty=TIMES)

    def polls(self, worker: Process) -> list[tuple[float, int]]:
        """When a worker polled (epoch seconds), and how many jobs."""
        file = self.folder / str(worker.pid)
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [(float(when), int(jobs)) for when, jobs in map(str.split, lines)]

    def turns(self) -> dict[str, int]:
        """The turn of each job, by its id."""
        return dict(self.up.rows("SELECT id, turn FROM progrock_job"))

    def until(self, what: str, true: Callable[[], object], seconds: float = 120) -> None:
        """Wait until `true()`; a failure says `what` was waited for."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{what}\n{self.up.logs()[-4000:]}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def overloaded(
    stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Overloaded]:
    """A worker that has done as many polls as there are jobs, and is late with the next ones."""
    folder = tmp_path_factory.mktemp("polls")
    backends = tmp_path_factory.mktemp("backends") / "backends.toml"
    backends.write_text(BACKENDS.format(interval=INTERVAL, folder=folder))
    with stack(workers=0, web=False, backends=backends) as up:
        ready = Overloaded(up, folder)
        worker = ready.start_worker()
        fill = [sys.executable, "-m", "tests.bench.fill", str(JOBS), "--backend", "slow"]
        up.run(fill)
        ready.until("it polls", lambda: sum(jobs for _, jobs in ready.polls(worker)) >= JOBS)
        yield ready
        assert "Traceback" not in up.logs()


def test_a_worker_with_too_much_to_do_gives_each_job_its_turn(
    overloaded: Overloaded,
) -> None:
    (worker,) = overloaded.up.workers()
    begun, before = time.time(), overloaded.turns()

    def grown() -> list[int]:
        return [turn - before[job] for job, turn in overloaded.turns().items()]

    overloaded.until("each job has had three turns more", lambda: min(grown()) >= 3)
    taken, ended = grown(), time.time()
    done = sum(jobs for when, jobs in overloaded.polls(worker) if begun <= when <= ended)
    wanted = JOBS * (ended - begun) / INTERVAL
    assert done < 0.6 * wanted, "the worker must have too much to do, or this test shows nothing"
    assert max(taken) <= 2 * min(taken), "no job is served twice as often as another"


def test_the_work_that_it_cannot_do_waits_in_rabbitmq(overloaded: Overloaded) -> None:
    queue: dict[str, Any] = {}

    def waits() -> bool:
        """Ask the management API, which leaves out what it has not counted yet."""
        queue.update(overloaded.up.broker.queues(overloaded.up.amqp_url)["progrock.poll.slow.0"])
        return queue.get("messages_ready", 0) > 0 and "messages_unacknowledged" in queue

    overloaded.until("some messages wait for a worker", waits)
    assert queue["messages_unacknowledged"] <= HELD


def test_the_log_says_how_late_tasks_are(overloaded: Overloaded) -> None:
    says = re.compile(r"late by (\d+) ms median, (\d+) ms p99, tasks=(\d+)")

    def late() -> bool:
        found = [tuple(map(int, line)) for line in says.findall(overloaded.up.logs("worker1"))]
        return any(500 <= middle <= p99 and tasks >= 100 for middle, p99, tasks in found)

    overloaded.until("a turn takes 2.4 s in place of 1 s, so the median is above 500 ms", late)


def test_a_second_worker_takes_its_part_of_the_work(overloaded: Overloaded) -> None:
    (first,), second = overloaded.up.workers(), overloaded.start_worker()
    overloaded.until("it polls", lambda: overloaded.polls(second))
    since = overloaded.polls(second)[0][0]

    def shares() -> list[int]:
        return [
            sum(jobs for when, jobs in overloaded.polls(worker) if when >= since)
            for worker in (first, second)
        ]

    overloaded.until("each job had its turn twice", lambda: sum(shares()) >= 2 * JOBS)
    counts = shares()
    overloaded.up.stop_worker(second)  # what a test finds here is one worker
    assert counts[1] >= 0.25 * sum(counts), counts
