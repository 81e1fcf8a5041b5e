"""A hub on a channel layer and a publisher that do as they are told (conftest.py)."""

import asyncio
import json
import logging
from typing import Any

import pytest
from channels.layers import InMemoryChannelLayer

from progrock import wire
from progrock.audiences import feed_of
from progrock.broker.tasks import Task
from progrock.consumers import feeds, progress, repair, rewind
from progrock.consumers import hub as module
from progrock.consumers.hub import Hub
from progrock.consumers.sockets import Audience, Member, Outbox
from tests.jobs import row
from tests.logs import own
from tests.services import PATIENCE
from tests.unit.conftest import Database, Layer, Publisher, started


class Seen:
    """A socket of one audience, and the frames that it got."""

    def __init__(self, hub: Hub, audience: str = "user:1") -> None:
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.member = Member([audience], [], Outbox(self.send), self.close)
        hub.register(self.member)

    async def opened(self) -> "Seen":
        await self.member.outbox.open('{"type": "snapshot"}')
        return self

    async def send(self, text: str) -> None:
        self.frames.put_nowait(json.loads(text))

    async def close(self) -> None:
        raise AssertionError("nobody logs out here")

    async def next(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while (frame := await self.frames.get())["type"] != kind:
                pass
        return frame


async def test_a_second_socket_of_a_feed_waits_for_the_groups_bind_as_well(
    hub: Hub, layer: Layer
) -> None:
    first, second = (
        asyncio.create_task(hub.feeds.join(Seen(hub).member.audiences)) for _ in range(2)
    )
    for _ in range(20):  # turns of the loop: all that is ready has run
        await asyncio.sleep(0)
    assert not first.done()
    assert not second.done()
    layer.binds.set()
    await asyncio.gather(first, second)
    assert layer.groups.count(feed_of("user:1")) == 1


async def test_the_page_is_told_while_rabbitmq_takes_messages_and_confirms_none(
    hub: Hub, layer: Layer
) -> None:
    layer.binds.set()
    socket = await Seen(hub).opened()
    layer.stalled = True
    told = await socket.next("status")
    assert told["live"] is False
    assert "RabbitMQ" in told["message"]
    layer.stalled = False
    assert (await socket.next("status"))["live"] is True


async def test_a_projects_tests_may_use_the_layer_in_memory(
    monkeypatch: pytest.MonkeyPatch, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    looked = asyncio.Event()

    class InMemory(InMemoryChannelLayer):
        """Has no epoch; the hub looks for one each time that it joins the groups again."""

        @property
        def epoch(self) -> int:
            looked.set()
            raise AttributeError("epoch")

    layer = InMemory()
    monkeypatch.setattr(module, "get_channel_layer", lambda alias: layer)
    monkeypatch.setattr(module, "Publisher", lambda *_, **__: publisher)
    for user in (module, feeds, repair, rewind):
        monkeypatch.setattr(user, "database", Database())
    async with started(Hub()) as hub:
        socket = await Seen(hub).opened()
        await hub.feeds.join(socket.member.audiences)
        changed = row()
        change = wire.change_of(changed)
        await layer.group_send(feed_of("user:1"), {"type": "job.changed", "changes": [change]})
        assert (await socket.next("job"))["job"] == changed.id
        async with asyncio.timeout(PATIENCE):
            await looked.wait()
        for _ in range(20):  # turns of the loop: it has joined what there is to join
            await asyncio.sleep(0)
    assert own(caplog) == []


async def test_a_failure_does_not_end_the_watch(
    hub: Hub, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.binds.set()
    socket = await Seen(hub).opened()
    failed = asyncio.Event()

    class Broken:
        @property
        def connected(self) -> bool:
            failed.set()
            raise ValueError("a mistake")

    monkeypatch.setattr(hub.feeds, "layer", Broken())
    async with asyncio.timeout(PATIENCE):
        await failed.wait()
    layer.stalled = True
    monkeypatch.setattr(hub.feeds, "layer", layer)
    assert (await socket.next("status"))["live"] is False


async def test_a_failure_of_the_layer_does_not_end_the_reading(hub: Hub, layer: Layer) -> None:
    layer.binds.set()
    socket = await Seen(hub).opened()
    layer.arrived.put_nowait(ValueError("a mistake"))
    layer.arrived.put_nowait({"type": "job.changed", "changes": [wire.change_of(row())]})
    assert (await socket.next("job"))["state"] == "queued"


async def test_what_follows_a_start_is_published_pushed_and_shown_here(
    hub: Hub, layer: Layer, publisher: Publisher
) -> None:
    socket = await Seen(hub).opened()
    job = row()
    hub.send(job)
    assert await publisher.next() == Task(job.id, job.turn, job.due_at)
    assert (await socket.next("job"))["job"] == job.id
    [(feed, message)] = layer.pushed
    assert feed == feed_of("user:1")
    assert [change[:4] for change in message["changes"]] == [["user:1", job.id, 1, False]]


async def test_a_start_that_is_under_way_gets_no_second_task_by_its_cancel(
    hub: Hub, layer: Layer, publisher: Publisher
) -> None:
    layer.binds.set()
    socket = await Seen(hub).opened()
    hub.send(row(state="starting", cancel_requested=True))
    assert (await socket.next("job"))["cancelling"]
    hub.send(other := row(state="running", handle="h1"))
    assert (await publisher.next()).job_id == other.id


async def test_a_task_is_published_whatever_becomes_of_its_push(
    hub: Hub, layer: Layer, publisher: Publisher
) -> None:
    layer.takes.clear()  # RabbitMQ confirms nothing
    hub.send(job := row())
    assert (await publisher.next()).job_id == job.id


async def test_what_could_not_be_published_is_published_once_rabbitmq_is_back(
    hub: Hub, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    publisher.connected, publisher.fails = False, True
    jobs = [row(), row()]
    for job in jobs:
        hub.send(job)
    await publisher.tried(2)
    publisher.connected = True
    await publisher.tried(4)  # in vain, and that is not said again
    publisher.fails = False
    assert {(await publisher.next()).job_id for _ in jobs} == {job.id for job in jobs}
    async with asyncio.timeout(PATIENCE):
        while len(own(caplog)) < 2:
            await asyncio.sleep(0.01)
    begun, over = [each.getMessage() for each in own(caplog)]
    assert begun.startswith("jobs are kept in the ledger while their tasks cannot be published")
    assert over == "tasks can be published again"


async def test_publishing_again_delays_no_word_of_an_outage(
    hub: Hub, layer: Layer, publisher: Publisher
) -> None:
    layer.binds.set()
    socket = await Seen(hub).opened()
    publisher.fails = True
    hub.send(row())
    await publisher.tried(1)
    publisher.fails, publisher.hangs = False, True
    await publisher.tried(2)
    layer.connected = False
    assert (await socket.next("status"))["live"] is False


async def test_what_changes_while_a_snapshot_is_read_comes_after_it(hub: Hub) -> None:
    frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(text: str) -> None:
        frames.put_nowait(json.loads(text))

    async def close() -> None:
        raise AssertionError("nobody logs out here")

    read, old, strange = row(version=3), row(version=3), row(version=9, audience="user:2")
    member = Member(["user:1"], "", Outbox(send), close)
    with hub.missed.reading() as reader:
        hub.deliver(
            [
                ["user:1", read.id, 4, False, '{"type": "job", "version": 4}'],
                ["user:1", old.id, 2, False, '{"type": "job", "version": 2}'],
                ["user:2", strange.id, 9, False, '{"type": "job", "version": 9}'],
            ]
        )
        hub.enter(member, [read, old], hub.missed.since(reader))
    await member.outbox.open('{"type": "snapshot"}')
    async with asyncio.timeout(PATIENCE):
        found = [await frames.get() for _ in range(2)]
    assert [frame.get("version") for frame in found] == [None, 4]
    await asyncio.sleep(0)
    assert frames.empty()


async def test_what_is_there_already_is_shown_to_the_socket_that_asked_and_sent_to_nobody(
    hub: Hub, publisher: Publisher, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, other = await Seen(hub).opened(), await Seen(hub).opened()
    job = row()

    async def database(*_: object) -> Any:
        return job, False

    monkeypatch.setattr(progress, "database", database)
    consumer = progress.ProgressConsumer()
    consumer.hub, consumer.member, consumer.scope = hub, asker.member, {}
    await consumer.receive('{"action": "start", "request": "twice"}')
    assert (await asker.next("job"))["job"] == job.id
    assert publisher.tries == 0
    assert layer.pushed == []
    assert [other.frames.get_nowait()["type"]] == ["snapshot"]
    assert other.frames.empty()


def test_an_audience_takes_each_version_once_and_forgets_ended_jobs() -> None:
    audience = Audience()
    assert audience.is_news("a", 2, ended=False)
    assert not audience.is_news("a", 2, ended=False)
    assert not audience.is_news("a", 1, ended=False)
    assert audience.is_news("a", 3, ended=True)
    assert audience.is_news("b", 5, ended=True)
    audience.forget_ended(keep={"b"})
    assert audience.shown("a") == 0
    assert audience.shown("b") == 5
