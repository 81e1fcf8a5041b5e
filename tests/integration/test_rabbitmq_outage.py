"""RabbitMQ stops, dies or comes back empty: the page says so, and all jobs still end."""

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.listener import listen
from tests.services import PATIENCE, Broker, DemoBackend, Stack, http, private_broker
from tests.visitor import browse, get

PRIVATE = pytest.mark.skipif(
    bool(os.environ.get("PROGROCK_TEST_AMQP_URL")), reason="needs a RabbitMQ that it may stop"
)


#: A worker of these tests starts over when RabbitMQ has confirmed nothing for so many seconds.
CONFIRM = {
    "progrock.broker.publisher.CONFIRM_TIMEOUT": 3.0,
    "progrock.broker.channel_layer.CONFIRM_TIMEOUT": 3.0,
}


@pytest.fixture(scope="module")
def own_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A node that a test may stop, kill and wipe."""
    with private_broker(tmp_path_factory.mktemp("own") / "rabbitmq", name="recovery") as broker:
        yield broker


@pytest.fixture
def own_stack(own_rabbitmq: Broker, demo_backend: DemoBackend, tmp_path: Path) -> Iterator[Stack]:
    """A stack on that node, which runs; its worker declares the topology."""
    assert own_rabbitmq.node
    if own_rabbitmq.node.process is None:  # the test before failed while it was away
        own_rabbitmq.node.start()
    with Stack(tmp_path / "stack", own_rabbitmq, backend_url=demo_backend.url) as up:
        up.migrate()
        up.start_worker(hasty=CONFIRM)
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
        await visitor.running()
        await asyncio.to_thread(node.stop if how == "stop" else node.kill)
        delayed = await visitor.until(
            lambda f: f["type"] == "status" and "RabbitMQ" in f["message"]
        )
        assert delayed["live"] is False
        jobs |= await visitor.starts(2, seconds=1)  # They stay in the ledger meanwhile.
        assert http("GET", f"{own_stack.url}/healthz")["rabbitmq"] == "unreachable"
        if how == "wipe":
            node.wipe()
        await asyncio.to_thread(node.start)
        if how == "wipe":
            own_stack.broker.make_vhost(own_stack.vhost)
        await visitor.until(lambda f: f["type"] == "status" and f["live"], 2 * PATIENCE)
        assert await visitor.end_states(jobs, 120) == {"succeeded"}
    assert demo_backend.seen(own_stack, next(iter(jobs)))["overlaps"] == 0
    logs = own_stack.logs()
    # asyncio may log "exception was never retrieved" for aiormq at a shutdown.
    errors = [line for line in logs.splitlines() if " ERROR   " in line and "asyncio" not in line]
    assert not errors, logs[-4000:]


@PRIVATE
async def test_while_rabbitmq_is_away_pages_answer_and_starts_are_kept(own_stack: Stack) -> None:
    node = own_stack.broker.node
    assert node is not None

    async def shell(code: str) -> str:
        return await asyncio.to_thread(own_stack.shell, code)

    async with browse(own_stack) as visitor, listen(own_stack, visitor.session) as listener:
        [job] = await visitor.starts(1, seconds=8)
        await visitor.running()  # So the worker's channel layer is connected.
        await asyncio.to_thread(node.kill)
        for each in (visitor, listener):
            await each.until(lambda f: f["type"] == "status" and not f["live"])
        listed = await get(visitor, "/jobs")
        known = listed.headers["ETag"]
        waits = asyncio.create_task(get(visitor, "/jobs", Prefer="wait=60", If_None_Match=known))
        for path in ("/", f"/jobs/{job}"):
            async with visitor.session.get(own_stack.url + path) as answer:
                assert answer.status == 200
        kept = await shell(
            "import progrock\nfrom progrock.models import Job\n"
            f"audience = Job.objects.get(pk='{job}').audience\n"
            "print(progrock.start('render', {'seconds': 1}, audience=audience).pk)"
        )
        # Nobody could push it, so the repair has found it.
        assert (await listener.until(lambda f: f.get("job") == kept))["state"] == "queued"
        got = await waits
        while kept not in {each["job"] for each in got.json["jobs"]}:
            got = await get(visitor, "/jobs", Prefer="wait=60", If_None_Match=got.headers["ETag"])
        await asyncio.to_thread(node.start)
        await visitor.ends({job}, 120)
        await listener.until(lambda f: f["type"] == "status" and f["live"], 2 * PATIENCE)
        state = f"SELECT state FROM progrock_job WHERE id = '{kept.replace('-', '')}'"
        async with asyncio.timeout(120):
            while own_stack.rows(state) != [("succeeded",)]:
                await asyncio.sleep(0.1)
    for process in ("web", "worker1"):
        said: dict[str, list[bool]] = defaultdict(list)
        for name, line in re.findall(r"broker\.connection: (.+?): (.*)", own_stack.logs(process)):
            said[name].append("starting over until it works" in line)
        assert len(said) >= 2
        for name, lost in said.items():
            assert True in lost, f"{name} said nothing of the outage"
            alternate = all(one != other for one, other in pairwise(lost))
            assert alternate, f"{name} has to log one line for each change of state"


@PRIVATE
async def test_a_memory_alarm_delays_everything_and_loses_nothing(
    own_stack: Stack, demo_backend: DemoBackend
) -> None:
    # During the alarm RabbitMQ reads from no connection that publishes. A worker that misses its
    # confirms starts over, again and again.
    node = own_stack.broker.node
    assert node is not None
    async with browse(own_stack) as visitor:
        jobs = await visitor.starts(5, seconds=600)
        handles = await demo_backend.until_polled(own_stack, 5)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "absolute", "1")
        jobs |= await visitor.starts(3, seconds=1)  # They stay in the ledger meanwhile.
        if not any(f["type"] == "status" for f in visitor.frames):
            await visitor.until(lambda f: f["type"] == "status")
        assert "delayed" in next(f["message"] for f in visitor.frames if f["type"] == "status")
        async with asyncio.timeout(180):
            while own_stack.logs("worker1").count("starting over until it works") < 4:
                await asyncio.sleep(0.5)
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.6")
        demo_backend.finish(handles.values())
        assert await visitor.end_states(jobs, 120) == {"succeeded"}
    depths = await asyncio.to_thread(
        node.ctl, "list_queues", "-p", own_stack.vhost, "name", "messages"
    )
    letters = await asyncio.to_thread(own_stack.manage, "deadletters")
    assert "progrock.dead\t0" in depths, f"{depths}\n{letters.stdout}"
