"""The hub's watch and its groups, on a channel layer that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from progrock.audiences import feed_of
from progrock.consumers import hub as module
from progrock.consumers import progress
from progrock.consumers.hub import Hub
from progrock.consumers.sockets import Member, Outbox
from tests.services import PATIENCE


class Layer:
    """Connected; a bind waits until `binds` is set."""

    def __init__(self) -> None:
        self.connected, self.stalled, self.epoch = True, False, 1
        self.binds = asyncio.Event()
        self.groups: list[str] = []

    async def new_channel(self) -> str:
        return "specific.!channel"

    async def group_add(self, group: str, channel: str) -> None:
        await self.binds.wait()
        self.groups.append(group)

    async def receive(self, channel: str) -> None:
        await asyncio.Event().wait()


class Seen:
    """A member of one audience, and the status frames that it got."""

    def __init__(self, hub: Hub, audience: str = "user:1") -> None:
        self.told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.member = Member([audience], "", Outbox(self.send), self.close)
        hub.register(self.member)

    async def send(self, text: str) -> None:
        if (frame := json.loads(text))["type"] == "status":
            self.told.put_nowait(frame)

    async def close(self) -> None:
        raise AssertionError("nobody logs out here")

    async def status(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self.told.get()


@pytest.fixture
async def layer() -> Layer:
    return Layer()


@pytest.fixture
async def hub(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(module, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(module, "REPAIR", 3600.0)
    monkeypatch.setattr(module, "database", SimpleNamespace(away=False))
    hub = Hub()
    tasks = [asyncio.create_task(work()) for work in (hub._receive, hub._watch)]
    yield hub
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def test_a_second_socket_of_a_feed_waits_for_the_groups_bind_as_well(
    hub: Hub, layer: Layer
) -> None:
    first, second = (asyncio.create_task(hub.join(Seen(hub).member)) for _ in range(2))
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
    socket = Seen(hub)
    await socket.member.outbox.open('{"type": "snapshot"}')
    layer.stalled = True
    told = await socket.status()
    assert told["live"] is False
    assert "RabbitMQ" in told["message"]
    layer.stalled = False
    assert (await socket.status())["live"] is True


async def test_publishing_again_delays_no_word_of_an_outage(
    hub: Hub, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.binds.set()
    begun = asyncio.Event()

    async def publish(row: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(hub, "publish", publish)
    monkeypatch.setattr(hub, "publisher", SimpleNamespace(connected=True))
    socket = Seen(hub)
    await socket.member.outbox.open('{"type": "snapshot"}')
    hub._unpublished["job"] = SimpleNamespace()  # type: ignore[assignment]
    async with asyncio.timeout(PATIENCE):
        await begun.wait()
    layer.connected = False
    assert (await socket.status())["live"] is False
    assert hub._publishing
    hub._publishing.cancel()


@pytest.mark.parametrize("action", ["_start", "_cancel"])
async def test_a_task_is_published_whatever_becomes_of_its_push(
    action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = asyncio.Event()

    async def database(*args: object) -> Any:
        return SimpleNamespace(state="running"), True

    async def show(row: object) -> None:
        await asyncio.Event().wait()  # RabbitMQ confirms nothing

    async def publish(row: object) -> None:
        published.set()

    monkeypatch.setattr(progress, "database", database)
    consumer = progress.ProgressConsumer()
    consumer.hub = hub = SimpleNamespace(show=show, publish=publish, _later=set())  # type: ignore[assignment]
    hub.later, hub._over = partial(Hub.later, hub), partial(Hub._over, hub)  # type: ignore[arg-type]
    consumer.member = SimpleNamespace(audiences=["user:1"])  # type: ignore[assignment]
    async with asyncio.timeout(PATIENCE):
        await getattr(consumer, action)({"backend": "render"})
        await published.wait()
    for task in hub._later:
        task.cancel()


async def test_a_failure_does_not_end_the_watch(
    hub: Hub, layer: Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer.binds.set()
    socket = Seen(hub)
    await socket.member.outbox.open('{"type": "snapshot"}')
    failed = asyncio.Event()

    class Broken:
        @property
        def connected(self) -> bool:
            failed.set()
            raise ValueError("a mistake")

    monkeypatch.setattr(hub, "layer", Broken())
    async with asyncio.timeout(PATIENCE):
        await failed.wait()
    layer.stalled = True
    monkeypatch.setattr(hub, "layer", layer)
    assert (await socket.status())["live"] is False
