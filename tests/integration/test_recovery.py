"""Workers die, freeze or stop, and tasks and pushes get lost: all jobs end, each in one poll loop.

Also: what operators are told, and the Python API in a running stack.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import aio_pika
import pytest

from progrock.broker import tasks as broker_tasks
from progrock.broker.tasks import Task
from progrock.consumers import repair
from tests.hasty import SWEEPS
from tests.services import PATIENCE, ROOT, DemoBackend, Stack, http
from tests.visitor import browse


def tables(tmp_path: Path, keys: str) -> Path:
    """The demo's backends, where `render` has these lines in place of its `timeout`."""
    text = (ROOT / "deploy" / "backends.toml").read_text()
    path = tmp_path / "backends.toml"
    path.write_text(text.replace("timeout = 5.0\n", keys))
    return path


@pytest.fixture
def backends(tmp_path: Path) -> Path:
    """The demo's, but a start has a short timeout, and each look is written into the ledger.

    So a sweep soon finds a start that was lost, or a job whose task was lost.
    """
    return tables(tmp_path, "timeout = 1.0\nlease = 0\n")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_jobs_outlive_a_killed_worker(
    stack: Callable[..., Stack], demo_backend: DemoBackend, tmp_path: Path, database: str
) -> None:
    # With so long a lease no sweep looks for a job that runs, so a task that is lost is missed. Of
    # a start only a sweep knows that its worker died, so the jobs run already.
    backends = tables(tmp_path, "timeout = 5.0\nlease = 3600\n")
    with stack(workers=2, database=database, backends=backends) as up:
        async with browse(up) as visitor:
            jobs = await visitor.starts(20, seconds=600)
            handles = await demo_backend.until_polled(up, 20)
            slow = {"mode": "ok", "on": "poll", "delay": 1.0}
            http("POST", f"{demo_backend.url}/_test/behave", slow)
            try:
                for _ in range(2):  # each dies in a round
                    async with asyncio.timeout(PATIENCE):
                        while not any(demo_backend.seen(up, job)["under_way"] for job in jobs):
                            await asyncio.sleep(0.01)
                    up.kill_worker()
            finally:
                http("DELETE", f"{demo_backend.url}/_test/behave")
            before = [demo_backend.seen(up, job)["overlaps"] for job in jobs]
            up.start_worker()
            await demo_backend.until_polled(up, 20, more=3)
            assert [demo_backend.seen(up, job)["overlaps"] for job in jobs] == before
            demo_backend.finish(handles.values())
            assert await visitor.end_states(jobs, 120) == {"succeeded"}


async def test_a_worker_told_to_stop_finishes_its_round_and_leaves_nothing_behind(
    stack: Callable[..., Stack], demo_backend: DemoBackend
) -> None:
    with stack(workers=1) as up:
        async with browse(up) as visitor:
            jobs = await visitor.starts(10, seconds=4)
            job = (await visitor.running())["job"]
            slow = {"mode": "ok", "on": "poll", "delay": 2.0, "task": up.handles()[job]}
            http("POST", f"{demo_backend.url}/_test/behave", slow)
            try:
                async with asyncio.timeout(PATIENCE):
                    while not demo_backend.seen(up, job)["under_way"]:
                        await asyncio.sleep(0.01)
                step = f"SELECT turn, attempts FROM progrock_job WHERE handle = '{slow['task']}'"
                [(turn, _)] = up.rows(step)
                assert up.stop_worker() == 0
                assert up.rows(step) == [(turn + 1, 0)], "it has waited for the answer"
            finally:
                http("DELETE", f"{demo_backend.url}/_test/behave")
            up.start_worker()
            assert await visitor.end_states(jobs, 120) == {"succeeded"}
            assert "Traceback" not in up.logs()
            assert "swept" not in up.logs()


async def test_workers_share_queues_by_name(stack: Callable[..., Stack]) -> None:
    with stack(workers=0) as up:
        up.start_worker("render.0")
        up.start_worker("render.1", "transcribe")
        async with browse(up) as visitor:
            jobs = await visitor.starts(6, seconds=1)
            jobs |= await visitor.starts(1, "transcribe", seconds=1)
            assert await visitor.end_states(jobs, 120) == {"succeeded"}
        wrong = up.manage("runworker", "nope", check=False)
        assert wrong.returncode == 1
        assert "no queue 'nope'" in wrong.stderr
        assert "render (2 shards)" in wrong.stderr


async def test_a_lost_task_is_swept_back(stack: Callable[..., Stack], backends: Path) -> None:
    with stack(workers=1, backends=backends) as up:
        async with browse(up) as visitor:
            jobs = await visitor.starts(5, seconds=4)
            await visitor.running()
            up.kill_worker()
            for name in up.broker.queues(up.amqp_url):
                if name.startswith(("progrock.delay.", "progrock.poll.")):
                    up.broker.api("DELETE", f"queues/{up.vhost}/{name}/contents")
            up.start_worker(hasty=SWEEPS)
            assert await visitor.end_states(jobs, 120) == {"succeeded"}


async def test_a_start_whose_worker_died_is_taken_up_again_with_the_same_key(
    stack: Callable[..., Stack], demo_backend: DemoBackend, backends: Path
) -> None:
    with stack(workers=1, backends=backends) as up:
        async with browse(up) as visitor:
            stats = f"{demo_backend.url}/_test/stats"
            before = http("GET", stats)
            late = {"mode": "late", "on": "start", "delay": PATIENCE}
            http("POST", f"{demo_backend.url}/_test/behave", late)
            try:
                job = (await visitor.start(seconds=1))["job"]
                async with asyncio.timeout(PATIENCE):
                    while http("GET", stats)["tasks"] == before["tasks"]:
                        await asyncio.sleep(0.01)
                up.kill_worker()  # the backend has the job, and its answer is lost
            finally:
                http("DELETE", f"{demo_backend.url}/_test/behave")
            up.start_worker(hasty=SWEEPS)
            assert (await visitor.ended(job, 120))["state"] == "succeeded"
        after = http("GET", stats)
        assert after["starts"] >= before["starts"] + 2, "it was sent again"
        assert after["tasks"] == before["tasks"] + 1


async def test_a_worker_that_freezes_in_a_start_and_wakes_too_late_changes_nothing(
    stack: Callable[..., Stack], demo_backend: DemoBackend, backends: Path
) -> None:
    stats = f"{demo_backend.url}/_test/stats"
    with stack(workers=0, backends=backends) as up:
        # RabbitMQ gives a frozen worker up after two heartbeats, and what it was sent to others.
        frozen = up.start_worker(hasty={"progrock.broker.connection.HEARTBEAT": 4})
        async with browse(up) as visitor:
            before = http("GET", stats)
            slow = {"mode": "slow", "on": "start", "delay": 0.5, "count": 1}
            http("POST", f"{demo_backend.url}/_test/behave", slow)
            job = (await visitor.start(seconds=1))["job"]
            while http("GET", stats)["starts"] == before["starts"]:
                await asyncio.sleep(0.01)
            os.kill(frozen.pid, signal.SIGSTOP)  # While its request is on the way.
            up.start_worker(hasty=SWEEPS)
            try:
                assert (await visitor.ended(job, 120))["state"] == "succeeded"
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            up.stop_worker(up.workers()[1])
            # The worker that was frozen is back at work.
            other = await visitor.starts(1, seconds=0.1)
            assert await visitor.end_states(other, 120) == {"succeeded"}
            assert http("GET", stats)["tasks"] == before["tasks"] + 2
            (end,) = {f["version"] for f in visitor.frames if f.get("job") == job and f["complete"]}
            async with visitor.session.get(f"{up.url}/jobs/{job}") as answer:
                assert (await answer.json())["version"] == end


async def test_a_job_whose_pushes_are_lost_is_shown_by_the_repair(
    stack: Callable[..., Stack],
) -> None:
    with stack(workers=0) as up:
        up.start_worker(env={"PROGROCK_FEEDS": "997"})  # It pushes where nobody listens.
        async with browse(up) as visitor:
            await visitor.snapshot()
            job = (await visitor.start(seconds=2))["job"]
            end = await visitor.ended(job)
            assert end["state"] == "succeeded"
            assert repair.REPAIR <= 5, "promised within 10 s"
        versions = {f["version"] for f in visitor.frames if f.get("job") == job}
        every = set(range(1, end["version"] + 1))
        assert versions < every, "some pushes must be lost, or this test shows nothing"


async def test_messages_that_cannot_be_read_go_to_the_dead_queue_and_jobs_go_on(
    stack: Callable[..., Stack],
) -> None:
    with stack(workers=1) as up:
        async with browse(up) as visitor:
            job = (await visitor.start(seconds=8))["job"]
            await visitor.running()
            connection = await aio_pika.connect(up.amqp_url)
            async with connection:
                channel = await connection.channel()
                poll = await channel.get_exchange("progrock.poll")
                stale = Task(job_id=job, turn=1, due=time.time())
                nobody = "00000000-0000-4000-8000-000000000000"
                unknown = Task(job_id=nobody, turn=1, due=time.time())
                broken = [b"rubbish", b'{"v": 99, "tasks": []}']
                broken += [b'{"v": 1, "tasks": [{"job": "x"}]}']
                useless = broker_tasks.encode([stale, unknown])  # The worker drops these tasks.
                for body in (*broken, useless):
                    message = aio_pika.Message(body, delivery_mode=2)
                    await poll.publish(message, "now.render.0")
                    # There is no such queue, so the alternate exchange takes it.
                    await poll.publish(message, "now.nobody.0")
                dead = await channel.get_queue("progrock.dead")
                found: list[aio_pika.abc.AbstractIncomingMessage] = []
                async with asyncio.timeout(PATIENCE):
                    while len(found) < 7:
                        if (message_in := await dead.get(fail=False)) is not None:
                            found.append(message_in)
                            await message_in.ack()
                        else:
                            await asyncio.sleep(0.05)
            reasons = sorted(str(m.headers["reason"]) for m in found if "reason" in m.headers)
            assert len(reasons) == 3
            assert any("unknown version 99" in reason for reason in reasons)
            assert any("not JSON" in reason for reason in reasons)
            assert (await visitor.ended(job))["state"] == "succeeded"


async def test_operators_see_what_waits_where(stack: Callable[..., Stack]) -> None:
    with stack(workers=1) as up:
        assert "has all that is wanted" in up.manage("topology", "--verify").stdout
        async with browse(up) as visitor:
            await visitor.starts(3, seconds=300)
            await visitor.running()
            status = up.manage("status").stdout
            line = next(line for line in status.splitlines() if line.startswith("render "))
            assert line.split()[1] == "3"
        queues = f"queues/{up.vhost}"
        up.broker.api("DELETE", f"{queues}/progrock.delay.11-10min")
        durable = {"durable": True, "arguments": {}}
        up.broker.api("PUT", f"{queues}/progrock.poll.old.0", durable)
        wrong = up.manage("topology", "--verify", check=False)
        assert wrong.returncode == 1
        assert "queue progrock.delay.11-10min: wanted, not found" in wrong.stderr
        assert "queue progrock.poll.old.0: left over" in wrong.stderr
        assert "progrock.poll.old.0" in up.manage("topology", "--prune").stdout
        up.manage("topology", "--declare")
        assert "has all that is wanted" in up.manage("topology", "--verify").stdout


async def test_the_python_api_starts_and_cancels(stack: Callable[..., Stack]) -> None:
    with stack(workers=1) as up:
        async with browse(up) as visitor:
            own = (await visitor.start(seconds=1))["job"]
            code = (
                "import progrock; from progrock.models import Job\n"
                f"audience = Job.objects.get(pk='{own}').audience\n"
                "job = progrock.start('render', {'seconds': 60}, audience=audience)\n"
                "print(job.pk)"
            )
            job = up.shell(code)
            await visitor.until(lambda f: f.get("job") == job and f["state"] == "running")
            up.shell(f"import progrock; assert progrock.cancel('{job}')")
            assert (await visitor.ended(job))["state"] == "cancelled"


def test_a_wrong_configuration_ends_the_start_without_a_traceback(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    wrong = tmp_path / "backends.toml"
    wrong.write_text('[Render]\nurl = "http://127.0.0.1:1"\n')
    with stack(workers=0, web=False) as up:
        up.env["PROGROCK_BACKENDS"] = str(wrong)
        ended = up.manage("runworker", check=False)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        assert "Render" in ended.stderr
        up.env["SECRET_KEY"] = up.env["DEBUG"] = ""
        ended = up.manage("check", check=False)
        assert "SECRET_KEY is not set" in ended.stderr
