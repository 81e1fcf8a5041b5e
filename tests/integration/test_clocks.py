"""Machines whose clocks are wrong: no job ends early or waits for that, and operators are told.

The processes are real, and only their `time.time` is wrong.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import PATIENCE, DemoBackend, Stack, http
from tests.visitor import browse

#: Python runs this before anything else of a process.
WRONG = """
import os, time
right, ahead = time.time, float(os.environ["AHEAD"])
time.time = lambda: right() + ahead
"""
#: Times of a worker that looks often for what is overdue.
OFTEN = {"progrock.consumers.sweeper.SWEEP": 1.0, "progrock.broker.subscriber.SILENCE": 1.0}
TABLES = """
[once]
url = "${DEMO_BACKEND_URL}"
start = { path = "/tasks", headers = { Idempotency-Key = "{job}" }, repeat = false }
browser = true
poll = { path = "/tasks/{handle}" }
handle = "id"
state = "status"
states = { running = ["running"], succeeded = ["done"], failed = ["failed"] }
interval = 0.3
timeout = 10.0
deadline = 300
shards = 1
"""


@pytest.fixture
def backends(tmp_path: Path) -> Path:
    """A backend that takes no start twice."""
    (tmp_path / "sitecustomize.py").write_text(WRONG)
    path = tmp_path / "backends.toml"
    path.write_text(TABLES)
    return path


def ahead(backends: Path, seconds: float) -> dict[str, str]:
    """The environment of a process whose clock is so many seconds ahead."""
    paths = [str(backends.parent), os.environ.get("PYTHONPATH", "")]
    return {"AHEAD": str(seconds), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def is_ahead(seconds: int, text: str) -> bool:
    """Whether a text says so; on a busy machine the way to the database may take seconds."""
    found = re.search(r"the clock of this machine is ([\d.]+) s ahead of the database's", text)
    return found is not None and abs(float(found[1]) - seconds) < 10


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_an_idle_worker_two_minutes_ahead_takes_no_start_for_a_lost_one(
    stack: Callable[..., Stack], demo_backend: DemoBackend, backends: Path, database: str
) -> None:
    with stack(workers=1, database=database, backends=backends) as up:
        wrong = up.start_worker(env=ahead(backends, 120), hasty=OFTEN)
        async with asyncio.timeout(PATIENCE):
            while not all("connected to RabbitMQ" in each.output() for each in up.workers()):
                await asyncio.sleep(0.1)
        http(
            "POST", f"{demo_backend.url}/_test/behave", {"mode": "ok", "on": "start", "delay": 5.0}
        )
        try:
            async with browse(up) as visitor:
                # one after the other, so that either worker is idle while the other one starts
                jobs = set()
                for _ in range(3):
                    jobs.add((await visitor.start("once", seconds=1))["job"])
                    await asyncio.sleep(1)
                assert await visitor.end_states(jobs, 2 * PATIENCE) == {"succeeded"}
        finally:
            http("DELETE", f"{demo_backend.url}/_test/behave")
        assert is_ahead(120, wrong.output())
        assert wrong.output().count("the clock of this machine") == 1
        assert "swept" not in up.logs()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_wrong_clocks_of_all_processes_expire_nothing_and_delay_no_start(
    stack: Callable[..., Stack], backends: Path, database: str
) -> None:
    backends.write_text(TABLES.replace("shards = 1", "shards = 2"))
    with stack(workers=0, web=False, database=database, backends=backends) as up:
        # each has a queue of its own, so neither does the work of the other one
        up.start_worker("once.0", env=ahead(backends, 600))
        up.start_worker("once.1", env=ahead(backends, -600))
        right, up.env = up.env, up.env | ahead(backends, 600)
        up.start_web()
        assert is_ahead(600, up.manage("status").stderr)
        up.env = right
        assert "clock" not in up.manage("status").stderr
        async with browse(up) as visitor:
            jobs = await visitor.starts(10, "once", seconds=1)
            # A start that waited for a clock would take ten minutes.
            assert await visitor.end_states(jobs, PATIENCE) == {"succeeded"}
            now = time.time()
            for frame in visitor.frames:
                if frame.get("ended"):
                    told = time.mktime(time.strptime(frame["ended"][:19], "%Y-%m-%dT%H:%M:%S"))
                    assert abs(told - time.timezone - now) < 60
        assert is_ahead(600, http("GET", f"{up.url}/healthz")["clock"])
