"""What is owed for a job's end stands in its row, and is done although message or worker is gone.

`job_finished` writes into a file here, by the project of `tests.chaos.settings`.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.amqp import CLOSED
from tests.chaos.receivers import FILE, hang_of, told
from tests.hasty import SWEEPS
from tests.services import DEMO_ANSWERS, PATIENCE, DemoBackend, Stack, http

TABLE = """
[render]
url = "${DEMO_BACKEND_URL}"
start = { path = "/tasks" }
poll = { path = "/tasks/{handle}" }
cancel = { path = "/tasks/{handle}" }
interval = 0.3
timeout = 30
shards = 1
"""
#: What a worker waits for before it says that a receiver hangs, and before it ends in spite of it.
SOON = {
    "progrock.consumers.receivers.SLOW": 1.0,
    "progrock.management.commands.runworker.LAST_SECONDS": 1.0,
}
START = "import progrock; print(progrock.start('render', {'seconds': 600}, audience='user:1').pk)"
CANCEL = "import progrock; print(progrock.cancel('{job}'))"
DIES = "import os; from progrock import dispatch; dispatch.send_now = lambda *_: os._exit(9); "
STATE = "from progrock.models import Job; print(Job.objects.get(pk='{job}').state)"


@pytest.fixture
def project(tmp_path: Path) -> Callable[[float], dict[str, str]]:
    """The environment of a project with a receiver, and with one backend of this deadline."""

    def make(deadline: float) -> dict[str, str]:
        backends = tmp_path / "backends.toml"
        backends.write_text(f"{TABLE}deadline = {deadline}\n{DEMO_ANSWERS}")
        return {
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "PROGROCK_BACKENDS": str(backends),
            FILE: str(tmp_path / "signals"),
        }

    return make


async def until_told(env: dict[str, str], job: str, state: str) -> None:
    """Wait until receivers were told this end: a worker takes it over after some time."""
    async with asyncio.timeout(2 * PATIENCE):
        while (job, state) not in set(told(Path(env[FILE]))):
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("fault", ["rabbitmq is away", "the process dies after the commit"])
def test_the_end_of_a_job_that_was_cancelled_in_the_line_is_told(
    stack: Callable[..., Stack], project: Callable[[float], dict[str, str]], fault: str
) -> None:
    """Nothing about this job ever reaches RabbitMQ, neither its start nor its cancel."""
    env = project(3600)
    with stack(workers=0, web=False, env=env) as up:
        reachable, up.env["AMQP_URL"] = up.env["AMQP_URL"], CLOSED
        job = up.shell(START)
        cancel = CANCEL.format(job=job)
        if fault == "rabbitmq is away":
            assert up.shell(cancel) == "True"
        else:
            dead = up.manage("shell", "--verbosity", "0", "-c", DIES + cancel, check=False)
            assert dead.returncode == 9
        assert up.shell(STATE.format(job=job)) == "cancelled"
        up.env["AMQP_URL"] = reachable
        up.start_worker(hasty=SWEEPS)
        asyncio.run(until_told(env, job, "cancelled"))
        assert "told the end of 1 jobs again, because it was still owed" in up.logs()


def test_a_worker_ends_although_a_receiver_hangs_and_the_end_is_told_later(
    stack: Callable[..., Stack], project: Callable[[float], dict[str, str]]
) -> None:
    env = project(3600)
    hang = hang_of(Path(env[FILE]))
    hang.touch()
    with stack(workers=0, web=False, env=env) as up:
        worker = up.start_worker(hasty=SOON)
        job = up.shell(START.replace("600", "0.5"))
        until = time.monotonic() + 2 * PATIENCE
        while "a receiver of job_finished, job=" not in worker.output():
            assert time.monotonic() < until, worker.output()
            time.sleep(0.2)
        assert worker.stop() == 0
        assert "the worker ends although threads still run: receivers-" in worker.output()
        hang.unlink()
        up.start_worker(hasty=SWEEPS)
        asyncio.run(until_told(env, job, "succeeded"))


async def test_the_cancel_of_an_expired_job_is_sent_although_its_worker_died(
    stack: Callable[..., Stack],
    project: Callable[[float], dict[str, str]],
    demo_backend: DemoBackend,
) -> None:
    env = project(4)
    with stack(workers=1, web=False, env=env) as up:
        job = await asyncio.to_thread(up.shell, START)

        async def handle() -> str:
            while not (found := up.handles().get(job)):
                await asyncio.sleep(0.1)
            return found

        async with asyncio.timeout(PATIENCE):
            task = await handle()
        rule = {"mode": "hang", "on": "cancel", "task": task}
        http("POST", f"{demo_backend.url}/_test/behave", rule)
        try:
            async with asyncio.timeout(PATIENCE):
                while not http("GET", f"{demo_backend.url}/_test/tasks/{task}")["cancels"]:
                    await asyncio.sleep(0.05)
            [worker] = up.workers()
            worker.kill()  # it waits for the answer
        finally:
            http("DELETE", f"{demo_backend.url}/_test/behave")
        assert http("GET", f"{demo_backend.url}/tasks/{task}")["status"] == "running"
        up.start_worker(hasty=SWEEPS)
        await until_told(env, job, "expired")
        async with asyncio.timeout(PATIENCE):
            while http("GET", f"{demo_backend.url}/tasks/{task}")["status"] != "cancelled":
                await asyncio.sleep(0.2)
