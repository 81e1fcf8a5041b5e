"""RabbitMQ stops, dies, or comes back empty: the page says so, and everything goes on."""

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from deploy.demo.rabbitmq_node import Node, free_port
from tests.services import PATIENCE, Broker, DemoBackend, Stack, http
from tests.visitor import browse

PRIVATE = pytest.mark.skipif(
    bool(os.environ.get("PROGROCK_TEST_AMQP_URL")), reason="needs a RabbitMQ that it may stop"
)


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[Broker]:
    """A node that a test may stop, kill and wipe."""
    node = Node(
        tmp_path / "rabbitmq", amqp_port=free_port(), management_port=free_port(), name="recovery"
    )
    node.start()
    try:
        yield Broker(node.amqp_url, node.management_url, node)
    finally:
        node.kill()
        node.wipe()


@pytest.fixture
def own_stack(own_rabbitmq: Broker, demo_backend: DemoBackend, tmp_path: Path) -> Iterator[Stack]:
    """A stack on a node of its own."""
    with Stack(tmp_path / "stack", own_rabbitmq, backend_url=demo_backend.url) as up:
        up.manage("migrate", "--verbosity", "0")
        up.start_worker()
        up.start_web()
        yield up


@PRIVATE
@pytest.mark.parametrize("how", ["stop", "kill", "wipe"])
async def test_everything_goes_on_when_rabbitmq_comes_back(
    own_stack: Stack, demo_backend: DemoBackend, how: str
) -> None:
    node = own_stack.broker.node
    assert node is not None
    async with browse(own_stack) as visitor:
        jobs = await visitor.starts(5, seconds=8)
        await visitor.until(lambda f: f.get("state") == "running")
        await asyncio.to_thread(node.stop if how == "stop" else node.kill)
        delayed = await visitor.until(
            lambda f: f["type"] == "status" and "RabbitMQ" in f["message"]
        )
        assert delayed["live"] is False
        jobs |= await visitor.starts(2, seconds=1)  # the ledger takes them
        assert http("GET", f"{own_stack.url}/healthz")["rabbitmq"] == "unreachable"
        if how == "wipe":
            node.wipe()
        await asyncio.to_thread(node.start)
        if how == "wipe":
            vhost = own_stack.amqp_url.rsplit("/", 1)[1]
            own_stack.broker.api("PUT", f"vhosts/{vhost}", {})
            rights = {"configure": ".*", "write": ".*", "read": ".*"}
            own_stack.broker.api("PUT", f"permissions/{vhost}/guest", rights)
        await visitor.until(lambda f: f["type"] == "status" and f["live"], 2 * PATIENCE)
        assert {f["state"] for f in (await visitor.ends(jobs, 120)).values()} == {"succeeded"}
    assert demo_backend.seen(own_stack, next(iter(jobs)))["overlaps"] == 0
    logs = (
        own_stack.logs()
    )  # aiormq's "exception was never retrieved" at a shutdown is its own noise
    assert not [
        line for line in logs.splitlines() if " ERROR   " in line and "asyncio" not in line
    ], logs[-4000:]


@PRIVATE
async def test_while_rabbitmq_is_away_pages_answer_and_starts_are_kept(own_stack: Stack) -> None:
    node = own_stack.broker.node
    assert node is not None

    async def shell(code: str) -> str:
        return (
            await asyncio.to_thread(own_stack.manage, "shell", "--verbosity", "0", "-c", code)
        ).stdout.split()[-1]

    async with browse(own_stack) as visitor:
        [job] = await visitor.starts(1, seconds=8)
        await visitor.until(
            lambda f: f.get("state") == "running"
        )  # so the worker's layer is connected
        await asyncio.to_thread(node.kill)
        await visitor.until(lambda f: f["type"] == "status" and not f["live"])
        for path in ("/", f"/jobs/{job}"):
            async with visitor.session.get(own_stack.url + path) as answer:
                assert answer.status == 200
        started = (
            "import progrock; print(progrock.start('render', {'seconds': 1}, audience='user:1').pk)"
        )
        kept = await shell(started)
        await asyncio.to_thread(node.start)
        await visitor.ends({job}, 120)
        async with asyncio.timeout(120):
            while (
                await shell(
                    f"from progrock.models import Job; print(Job.objects.get(pk='{kept}').state)"
                )
                != "succeeded"
            ):
                pass
    for process in ("web", "worker1"):
        said: dict[str, list[bool]] = defaultdict(list)
        for name, line in re.findall(r"broker\.connection: (.+?): (.*)", own_stack.logs(process)):
            said[name].append("starting over until it works" in line)
        assert len(said) >= 2
        for name, lost in said.items():
            assert True in lost, f"{name} said nothing of the outage"
            assert all(one != other for one, other in pairwise(lost)), (
                f"{name}: not one line for each change of state"
            )


@PRIVATE
async def test_a_memory_alarm_delays_everything_and_loses_nothing(own_stack: Stack) -> None:
    """RabbitMQ reads from no publisher then; each confirm that does not come starts a worker over."""
    node = own_stack.broker.node
    assert node is not None
    async with browse(own_stack) as visitor:
        jobs = await visitor.starts(5, seconds=20)
        await visitor.until(lambda f: f.get("state") == "running")
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        jobs |= await visitor.starts(3, seconds=1)  # the ledger takes them
        if not any(f["type"] == "status" for f in visitor.frames):
            await visitor.until(lambda f: f["type"] == "status")
        assert "delayed" in next(f["message"] for f in visitor.frames if f["type"] == "status")
        async with asyncio.timeout(180):
            while own_stack.logs("worker1").count("starting over until it works") < 4:
                await asyncio.sleep(0.5)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
        assert {f["state"] for f in (await visitor.ends(jobs, 120)).values()} == {"succeeded"}
    vhost = own_stack.amqp_url.rsplit("/", 1)[1]
    depths = await asyncio.to_thread(node.ctl, "list_queues", "-p", vhost, "name", "messages")
    letters = await asyncio.to_thread(own_stack.manage, "deadletters")
    assert "progrock.dead\t0" in depths, f"{depths}\n{letters.stdout}"
