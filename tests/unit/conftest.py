"""A hub on a channel layer, a publisher and a database that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from progrock import conf
from progrock.backends import Options
from progrock.broker.errors import PublishFailed
from progrock.broker.tasks import Task
from progrock.consumers import feeds, outgoing, repair, rewind
from progrock.consumers import hub as module
from progrock.consumers.hub import Hub
from tests.services import PATIENCE


class Layer:
    """Connected. A bind waits until `binds` is set, a push until `takes` is set."""

    def __init__(self) -> None:
        self.connected, self.stalled, self.epoch = True, False, 1
        self.binds, self.takes = asyncio.Event(), asyncio.Event()
        self.groups: list[str] = []
        self.pushed: list[tuple[str, Any]] = []
        self.arrived: asyncio.Queue[dict[str, Any] | Exception] = asyncio.Queue()

    async def new_channel(self) -> str:
        return "specific.!channel"

    async def group_add(self, group: str, channel: str) -> None:
        await self.binds.wait()
        self.groups.append(group)

    async def group_send(self, group: str, message: Mapping[str, Any]) -> None:
        await self.takes.wait()
        self.pushed.append((group, message))

    async def receive(self, channel: str) -> dict[str, Any]:
        arrived = await self.arrived.get()
        if isinstance(arrived, Exception):
            raise arrived
        return arrived


class Publisher:
    """Connected. `published` gets each task; a publish fails while `fails`, hangs while `hangs`."""

    def __init__(self, *_: object) -> None:
        self.connected, self.fails, self.hangs = True, False, False
        self.tries = 0
        self.published: asyncio.Queue[Task] = asyncio.Queue()

    def start(self) -> None:
        """Nothing to connect."""

    async def publish(
        self, backend: str, shard: int, tasks: list[Task], *, delay: float, spread: float
    ) -> None:
        self.tries += 1
        if self.fails:
            raise PublishFailed("RabbitMQ is away")
        if self.hangs:
            await asyncio.Event().wait()
        for task in tasks:
            self.published.put_nowait(task)

    async def next(self) -> Task:
        async with asyncio.timeout(PATIENCE):
            return await self.published.get()

    async def tried(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.tries < count:
                await asyncio.sleep(0.01)


class Database:
    """There, and empty."""

    away = False

    async def __call__(self, *_: object) -> Any:
        return {}


@pytest.fixture
async def layer() -> Layer:
    layer = Layer()
    layer.takes.set()
    return layer


@pytest.fixture
async def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
async def hub(
    layer: Layer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Hub]:
    monkeypatch.setattr(module, "get_channel_layer", lambda alias: layer)
    monkeypatch.setattr(module, "Publisher", lambda *_, **__: publisher)
    for user in (module, feeds, repair, rewind):
        monkeypatch.setattr(user, "database", Database())
    monkeypatch.setattr(repair, "WebDatabase", lambda *_, **__: Database())
    monkeypatch.setattr(
        conf, "backends", lambda: {"render": Options(name="render", shards=1, browser=True)}
    )
    monkeypatch.setattr(repair, "REPAIR", 3600.0)
    monkeypatch.setattr(outgoing, "RETRY", 0.05)
    async with started(Hub()) as hub:
        yield hub


@asynccontextmanager
async def started(hub: Hub) -> AsyncIterator[Hub]:
    """The hub with its duties, which end with it."""
    before = asyncio.all_tasks()
    hub.start()
    yield hub
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.wait(left)
