"""The channel layer against a real RabbitMQ: what arrives, what is dropped, what an outage does."""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from progrock.broker import blocking, channel_layer
from progrock.broker.address import vhost_of
from progrock.broker.channel_layer import ChannelLayer
from tests.amqp import (
    CLOSED,
    QUEUE,
    Line,
    NewLayer,
    raw_publish,
    running,
    take,
    tasks,
    until,
    up,
)
from tests.services import PATIENCE, Broker

# aiormq (6.9) leaves the socket of a connection that was lost to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.usefixtures("unhurried"),
]


@pytest.fixture
async def layer(line: Line, new_layer: NewLayer) -> ChannelLayer:
    return new_layer(line.url)


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The levels of what was logged, without asyncio's words about layers of earlier tests."""
    return [record.levelname for record in caplog.records if record.name != "asyncio"]


async def test_the_synchronous_edge_reaches_groups(vhost_url: str, layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    assert channel.startswith("progrock.web.")
    await layer.group_add("progrock.feed.0", channel)
    message = {"type": "job.changed", "changes": [{"job": "1", "progress": 42.5, "ended": None}]}
    await asyncio.to_thread(blocking.group_send, vhost_url, "progrock.feed.0", message)
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == message
    # A group that nobody is in is no error.
    await asyncio.to_thread(blocking.group_send, vhost_url, "progrock.feed.1", message)


async def test_a_push_may_be_larger_than_a_frame(vhost_url: str, layer: ChannelLayer) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    for size in (131_000, 131_064, 131_072, 400_000):
        assert await layer.group_send("feed", {"type": "x", "text": "x" * size})
        assert len((await asyncio.wait_for(layer.receive(channel), PATIENCE))["text"]) == size
    assert layer.epoch == 1


async def test_groups_of_one_process_reach_another(
    layer: ChannelLayer, new_layer: NewLayer
) -> None:
    sender = await up(new_layer())
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert await sender.group_send("feed", {"type": "one"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "one"}
    await layer.group_discard("feed", channel)
    assert await sender.group_send("feed", {"type": "two"})
    await layer.group_add("feed", channel)
    assert await sender.group_send("feed", {"type": "three"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "three"}


async def test_a_push_to_a_process_that_is_full_is_dropped_and_harms_nobody(
    layer: ChannelLayer, new_layer: NewLayer
) -> None:
    full = new_layer(local_capacity=1, remote_capacity=1, local_expiry=600.0, expiry=600)
    idle, channel = await full.new_channel(), await layer.new_channel()
    await full.group_add("feed", idle)
    sender = await up(new_layer())
    # Nobody receives these.
    sent = [await sender.group_send("feed", {"type": "x", "n": n}) for n in range(8)]
    assert (sent[0], sent[-1]) == (True, False)
    assert not sender.stalled
    await layer.group_add("other", channel)
    assert await sender.group_send("other", {"type": "y"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "y"}
    for n in range(sum(sent)):
        assert (await asyncio.wait_for(full.receive(idle), PATIENCE))["n"] == n
    assert await sender.group_send("feed", {"type": "z"})
    assert (await asyncio.wait_for(full.receive(idle), PATIENCE))["type"] == "z"


async def test_a_process_that_only_sends_has_no_queue_until_it_receives(
    rabbitmq: Broker, vhost_url: str, layer: ChannelLayer
) -> None:
    assert await (await up(layer)).group_send("feed", {"type": "one"})
    assert rabbitmq.queues(vhost_url) == {}
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    [name] = rabbitmq.queues(vhost_url)
    assert name == channel.partition("!")[0]
    assert await layer.group_send("feed", {"type": "two"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "two"}


async def test_a_caller_cancelled_in_an_outage_does_not_kill_the_layer(
    line: Line, layer: ChannelLayer
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert layer.epoch == 1
    await line.cut()
    await until(lambda: not layer.connected)
    calls: list[Awaitable[Any]] = [
        layer.group_add("other", channel),
        layer.group_discard("feed", channel),
    ]
    waiting = [asyncio.ensure_future(call) for call in calls]
    await asyncio.sleep(0.1)
    for call in waiting:
        call.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    start = time.monotonic()
    assert not await layer.group_send("feed", {"type": "lost"})
    assert 0.5 < time.monotonic() - start < PATIENCE
    await line.mend()
    await until(lambda: layer.connected)
    assert layer.epoch == 2
    assert await layer.group_send("feed", {"type": "found"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "found"}


async def test_callers_cancelled_while_rabbitmq_answers_do_not_end_the_connection(
    layer: ChannelLayer,
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    for number in range(20):
        joining = asyncio.create_task(layer.group_add(f"group-{number}", channel))
        sending = asyncio.create_task(layer.group_send("feed", {"type": "x"}))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        joining.cancel()
        sending.cancel()
    assert await layer.group_send("feed", {"type": "last"})
    assert layer.epoch == 1


async def test_an_outage_of_the_layer_is_one_line(
    line: Line, layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await layer.group_add("feed", await layer.new_channel())
    await up(layer)
    await line.cut()
    for _ in range(3):
        assert not await layer.group_send("feed", {"type": "lost"})
    await line.mend()
    await until(lambda: layer.connected)
    assert levels(caplog) == ["INFO", "WARNING", "INFO"]
    assert "Traceback" not in caplog.text


async def test_a_deleted_queue_is_noticed_and_made_again(
    rabbitmq: Broker, vhost_url: str, layer: ChannelLayer
) -> None:
    if rabbitmq.node is None:
        pytest.skip("only rabbitmqctl may delete an exclusive queue, and this RabbitMQ is not ours")
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    about = ("delete_queue", channel.partition("!")[0], "--vhost", vhost_of(vhost_url))
    await asyncio.to_thread(rabbitmq.node.ctl, *about)
    await until(lambda: layer.epoch == 2)
    assert await layer.group_send("feed", {"type": "x"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "x"}


async def test_a_deleted_exchange_is_made_again(
    rabbitmq: Broker, vhost_url: str, layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    assert await layer.group_send("feed", {"type": "x"})
    await layer.receive(channel)
    rabbitmq.api("DELETE", f"exchanges/{vhost_of(vhost_url)}/progrock.groups")
    assert not await layer.group_send("feed", {"type": "lost"})
    await until(lambda: layer.epoch == 2)
    assert await layer.group_send("feed", {"type": "found"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "found"}
    [said] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no exchange 'progrock.groups'" in said


async def test_a_message_that_cannot_be_read_costs_one_connection(
    vhost_url: str, layer: ChannelLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    await raw_publish(vhost_url, channel.partition("!")[0], b"\xc1 not ours")
    await until(lambda: layer.epoch == 2)
    assert await layer.group_send("feed", {"type": "x"})
    assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "x"}
    assert levels(caplog) == ["INFO", "WARNING", "INFO"]
    assert "Traceback" not in caplog.text


async def test_a_push_never_raises(line: Line, layer: ChannelLayer) -> None:
    """Whether it goes out before, while, or after the connection is lost."""
    for _ in range(5):
        await up(layer)
        pushes = []
        for number in range(30):
            if number == 10:
                cut = asyncio.create_task(line.cut())
            pushes.append(asyncio.create_task(layer.group_send("feed", {"type": "x"})))
            await asyncio.sleep(0)
        await cut
        results = await asyncio.gather(*pushes)
        assert set(results) <= {True, False}
        assert not results[-1]
        await line.mend()


async def test_while_rabbitmq_confirms_nothing_pushes_do_not_pile_up(
    line: Line,
    layer: ChannelLayer,
    new_layer: NewLayer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = new_layer()
    channel = await receiver.new_channel()
    await receiver.group_add("feed", channel)
    caplog.set_level(logging.INFO)
    caplog.clear()
    await up(layer)
    assert not layer.stalled
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 0.2)
    line.flows.clear()
    for number in range(5):
        assert not await layer.group_send("feed", {"type": "x", "number": number})
    assert layer.stalled
    assert layer.connected
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 20)
    monkeypatch.setattr(channel_layer, "CALM", 0)
    line.flows.set()
    await until(lambda: not layer.stalled)
    assert await layer.group_send("feed", {"type": "x", "number": 5})
    async with asyncio.timeout(PATIENCE):
        arrived = [(await receiver.receive(channel))["number"] for _ in range(2)]
    assert arrived == [0, 5], "one was tried, and the others were not written"
    assert levels(caplog) == ["INFO", "WARNING", "INFO"]
    assert layer.epoch == 1


async def test_a_refusal_is_an_answer_as_well_and_ends_the_stall(
    line: Line, layer: ChannelLayer, new_layer: NewLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = new_layer(local_capacity=1, remote_capacity=1, local_expiry=600.0, expiry=600)
    channel = await full.new_channel()
    await full.group_add("feed", channel)
    while await layer.group_send("feed", {"type": "accepted"}):
        pass
    assert not layer.stalled
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", 0.2)
    line.flows.clear()
    assert not await layer.group_send("feed", {"type": "refused"})
    assert layer.stalled
    monkeypatch.setattr(channel_layer, "CONFIRM_TIMEOUT", PATIENCE)
    line.flows.set()
    await until(lambda: not layer.stalled)
    assert layer.epoch == 1
    arrived: list[str] = []
    async with asyncio.timeout(PATIENCE):
        while not await layer.group_send("feed", {"type": "last"}):
            arrived.append((await full.receive(channel))["type"])
        while arrived[-1] != "last":
            arrived.append((await full.receive(channel))["type"])
    assert "refused" not in arrived


async def test_a_layer_closes_also_while_it_is_not_connected() -> None:
    layer = ChannelLayer(host=CLOSED)
    assert not await layer.group_send("feed", {"type": "x"})
    async with asyncio.timeout(PATIENCE):
        await layer.close()
    assert not layer.connected
    assert not await layer.group_send("feed", {"type": "x"})


async def test_a_task_and_its_push_take_one_connection(
    vhost_url: str, line: Line, layer: ChannelLayer
) -> None:
    channel = await layer.new_channel()
    await layer.group_add("feed", channel)
    async with running(vhost_url, [QUEUE]) as (_, subscriber):
        before, some = line.accepted, tasks(3)
        about = (line.url, [("render", 0, some, 0.0)], [("feed", {"type": "x"})])
        await asyncio.to_thread(blocking.send, *about)
        assert line.accepted == before + 1
        [delivery] = await take(subscriber)
        assert [task.job_id for task in delivery.tasks] == [task.job_id for task in some]
        assert await asyncio.wait_for(layer.receive(channel), PATIENCE) == {"type": "x"}
