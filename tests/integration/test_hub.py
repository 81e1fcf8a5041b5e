"""A hub of this process on a real ledger and a real channel layer.

What was lost on the way, and what is late.
"""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dj_database_url
import pytest
import pytest_asyncio
from channels.db import database_sync_to_async
from django.core.management import call_command
from django.db import connection, connections

from progrock import clock, conf, ledger
from progrock.broker.channel_layer import ChannelLayer
from progrock.consumers import hub as module
from progrock.consumers import repair, rewind
from progrock.consumers.hub import Hub
from progrock.consumers.sockets import Member, Outbox
from progrock.models import Job
from tests.amqp import until
from tests.services import PATIENCE, Postgres


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def jobs(postgres_url: Postgres, django_db_blocker: Any) -> AsyncIterator[None]:
    """The ledger of the thread in which a web process calls its database."""

    def switch(settings: dict[str, Any]) -> None:
        connections["default"].close()
        connections.settings["default"] = settings
        del connections["default"]

    before = connections.settings["default"]
    own = {**before, "OPTIONS": {}, **dj_database_url.parse(postgres_url.new_database())}
    with django_db_blocker.unblock():
        await database_sync_to_async(switch)(own)
        try:
            await database_sync_to_async(call_command)("migrate", verbosity=0)
            yield
        finally:
            await database_sync_to_async(switch)(before)


@pytest.fixture
async def hub(jobs: None, vhost_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """A hub that repairs only when it is told to."""
    layer = ChannelLayer(vhost_url)
    monkeypatch.setattr(module, "get_channel_layer", lambda alias: layer)
    monkeypatch.setattr(conf, "amqp_url", lambda: vhost_url)
    monkeypatch.setattr(repair, "REPAIR", 3600.0)
    for part, once_a_minute in ((rewind, "FULL"), (clock, "MEASURE")):
        monkeypatch.setattr(part, once_a_minute, 3600.0)
    await database_sync_to_async(Job.objects.all().delete)()
    await database_sync_to_async(clock.measure)()
    before = asyncio.all_tasks()
    hub = Hub()
    made = hub.repair.checked
    hub.start()
    duties = asyncio.all_tasks() - before
    try:
        # The first connection asks for a repair as well, because pushes may have been lost before.
        await until(lambda: hub.repair.checked > made)
        yield hub
    finally:
        await hub.publisher.close()
        for task in duties:
            task.cancel()
        await asyncio.wait(duties)
        await layer.close()


class Seen:
    """An open socket of an audience, and what was sent to it."""

    def __init__(self, hub: Hub, audience: str) -> None:
        self.frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.member = Member([audience], [], Outbox(self.send), self.close)
        hub.register(self.member)

    async def send(self, text: str) -> None:
        self.frames.put_nowait(json.loads(text))

    async def close(self) -> None:
        raise AssertionError("nobody logs out here")

    async def opened(self) -> "Seen":
        await self.member.outbox.open('{"type": "snapshot"}')
        await self.frames.get()
        return self

    async def next(self, kind: str = "job") -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while (frame := await self.frames.get())["type"] != kind:
                pass
        return frame


def make(audience: str, **changes: Any) -> str:
    """A job that changed in the ledger, and nobody was told."""
    key, now = uuid.uuid4(), datetime.now(UTC)
    due = changes.get("due_at", now)
    values: dict[str, Any] = {
        "id": key, "bucket": int(str(key)[-4:], 16), "audience": audience, "backend": "render",
        "params": {}, "state": "running", "handle": "h", "due_at": due,
        "due_slot": int(due.timestamp() // 5), "deadline_at": now + timedelta(hours=1),
    }  # fmt: skip
    Job(**values | changes).save(force_insert=True)
    return str(key)


async def test_a_repair_asks_the_same_of_the_ledger_for_one_socket_and_for_two_thousand(
    hub: Hub,
) -> None:
    asked: Counter[int] = Counter()

    def count(execute: Any, sql: str, *more: Any) -> Any:
        asked[len(everybody)] += 1
        return execute(sql, *more)

    everybody = [await Seen(hub, "user:0").opened()]
    await hub.repair.database(lambda: connection.execute_wrappers.append(count))
    await hub.repair.check()
    everybody += [await Seen(hub, f"user:{n // 2}").opened() for n in range(2, 2_000)]
    await hub.repair.check()
    assert asked[1] == asked[1_999] > 0
    job = await database_sync_to_async(make)("user:700")
    hub.repair.soon()
    both = [socket for socket in everybody if socket.member.audiences == ["user:700"]]
    assert [(await socket.next())["job"] for socket in both] == [job, job]
    assert not [socket for socket in everybody if not socket.frames.empty()], "and nobody else"
    await database_sync_to_async(connection.execute_wrappers.clear)()


async def test_a_push_lost_between_two_connections_of_the_layer_shows_at_once(
    hub: Hub,
) -> None:
    socket = await Seen(hub, "user:1").opened()
    await hub.feeds.join(socket.member.audiences)
    job = await database_sync_to_async(make)("user:1")
    hub.layer.reconnect()
    assert (await socket.next())["job"] == job


async def test_the_page_is_told_while_jobs_wait_for_workers(hub: Hub) -> None:
    socket = await Seen(hub, "user:1").opened()
    past = datetime.now(UTC) - timedelta(minutes=1)
    ours = await database_sync_to_async(make)("user:1", due_at=past)
    hub.repair.soon()
    told = await socket.next("status")
    assert told["live"] is False
    assert told["code"] == "work"
    await database_sync_to_async(Job.objects.filter(pk=ours).update)(
        state="starting"
    )  # its worker is at it
    await database_sync_to_async(make)("user:2", due_at=past)  # nobody of this process waits for it
    await database_sync_to_async(make)("user:1", due_at=past, backend="gone")  # no worker will come
    hub.repair.soon()
    assert (await socket.next("status"))["live"] is True


async def test_a_database_that_lost_its_last_commits_is_shown_as_it_is(hub: Hub) -> None:
    mine, other = await Seen(hub, "user:1").opened(), await Seen(hub, "user:2").opened()
    job = await database_sync_to_async(make)("user:1", version=7, progress=74.0)
    lost = await database_sync_to_async(make)("user:1", version=3)
    hub.repair.soon()
    assert {(await mine.next())["version"] for _ in range(2)} == {7, 3}

    def lose() -> None:
        ended = {"state": "succeeded", "progress": 100.0, "ended_at": datetime.now(UTC)}
        hours = datetime.now(UTC) - timedelta(hours=1)
        Job.objects.filter(pk=job).update(version=6, due_slot=None, changed_at=hours, **ended)
        Job.objects.filter(pk=lost).delete()

    await database_sync_to_async(lose)()
    hub.rewind.soon()  # as after an outage
    hub.repair.soon()
    anew = await mine.next("snapshot")
    [shown] = anew["jobs"]
    assert (shown["job"], shown["state"], shown["version"]) == (job, "succeeded", 6)
    assert (await other.next("snapshot"))["jobs"] == []
    change = wire_of(job, "user:1", 7)
    hub.deliver([change])
    assert (await mine.next())["version"] == 7, "later changes count on from there"


async def test_a_page_that_opens_on_an_older_version_shows_what_follows(hub: Hub) -> None:
    socket = await Seen(hub, "user:1").opened()
    job = await database_sync_to_async(make)("user:1", version=9)
    hub.repair.soon()
    assert (await socket.next())["version"] == 9
    await database_sync_to_async(Job.objects.filter(pk=job).update)(version=4)
    rows = await database_sync_to_async(ledger.snapshot)(["user:1"])
    hub.snapshot_shown(socket.member, rows)
    hub.repair.soon()
    [shown] = (await socket.next("snapshot"))["jobs"]
    assert shown["version"] == 4


def wire_of(job_id: str, audience: str, version: int) -> list[Any]:
    """A change that somebody pushes."""
    frame = json.dumps({"type": "job", "job": job_id, "version": version})
    return [audience, job_id, version, True, frame]
