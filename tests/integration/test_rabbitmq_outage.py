"""RabbitMQ stops, dies, or comes back empty: the page says so, and everything goes on."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.rabbitmq_node import Node, free_port
from tests.services import Broker, DemoBackend, Stack, http
from tests.visitor import browse

PRIVATE = pytest.mark.skipif(bool(os.environ.get("PROGROCK_TEST_AMQP_URL")), reason="needs a RabbitMQ that it may stop")


@pytest.fixture
def own_rabbitmq(tmp_path: Path) -> Iterator[Broker]:
    """A node that a test may stop, kill and wipe."""
    node = Node(tmp_path / "rabbitmq", amqp_port=free_port(), management_port=free_port(), name="recovery")
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
        jobs = await visitor.starts(5, seconds=4)
        await visitor.until(lambda f: f.get("state") == "running")
        await asyncio.to_thread(node.stop if how == "stop" else node.kill)
        delayed = await visitor.until(lambda f: f["type"] == "status")
        assert delayed["live"] is False
        assert "RabbitMQ" in delayed["message"]
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
        await visitor.until(lambda f: f["type"] == "status" and f["live"], 60)
        assert {f["state"] for f in (await visitor.ends(jobs, 120)).values()} == {"succeeded"}
    assert demo_backend.seen(own_stack, next(iter(jobs)))["overlaps"] == 0
    logs = own_stack.logs()  # aiormq's "exception was never retrieved" at a shutdown is its own noise
    assert not [line for line in logs.splitlines() if " ERROR   " in line and "asyncio" not in line], logs[-4000:]
