"""A stream of events: slow browsers, ends, and what comes at the same moment."""

import asyncio
import json
from typing import Any

import pytest
from django.test import Client

from progrock import wire
from progrock.consumers import entry, events, shutdown
from progrock.consumers.answers import Message
from progrock.consumers.events import Stream
from progrock.consumers.hub import Hub
from tests.jobs import row
from tests.services import PATIENCE
from tests.unit.conftest import Layer


class Browser:
    """The other end of a stream. It takes what is sent while it `reads`."""

    def __init__(self) -> None:
        self.reads, self.gone = asyncio.Event(), asyncio.Event()
        self.reads.set()
        self.taken: list[Message] = []
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        assert not self.over, "nothing follows the end of an answer"
        self.taken.append(message)
        if self.over:
            self.gone.set()

    @property
    def over(self) -> bool:
        """Whether the answer is complete."""
        last = self.taken[-1] if self.taken else {}
        return last.get("type") == "http.response.body" and not last.get("more_body")

    @property
    def frames(self) -> list[Any]:
        """The frames that came, where a job's is its version and any other its type or code."""
        text = b"".join(message.get("body", b"") for message in self.taken).decode()
        found = [json.loads(each[6:]) for each in text.split("\n\n") if each.startswith("data: ")]
        return [each.get("version") or each.get("code") or each["type"] for each in found]

    async def until(self, *frames: Any) -> None:
        """Wait until exactly these frames have come."""
        async with asyncio.timeout(PATIENCE):
            while self.frames != [*frames]:
                await asyncio.sleep(0.01)


class Ledger:
    """Knows every browser as user 1, whose session is "s"."""

    away = False

    async def __call__(self, function: Any, *args: Any) -> Any:
        if not isinstance(args[0], dict):  # the scope, which tells who the browser is
            return []
        args[0]["progrock.sessions"] = ["s"]
        return ["user:1"], "sessionid=new", []


@pytest.fixture
async def browser(hub: Hub, layer: Layer, monkeypatch: pytest.MonkeyPatch) -> Browser:
    """A browser of a hub that is connected."""
    layer.binds.set()
    monkeypatch.setattr(events, "hub", lambda: hub)
    monkeypatch.setattr(entry, "database", Ledger())
    return Browser()


def opened(browser: Browser) -> asyncio.Task[None]:
    """A stream to this browser."""
    return asyncio.create_task(Stream(browser.receive, browser.send).run({}))


async def ended(stream: asyncio.Task[None], hub: Hub, browser: Browser) -> None:
    """Wait until a stream has ended and nothing of it is left."""
    async with asyncio.timeout(PATIENCE):
        await stream
    assert (hub.responses, hub.sockets("s")) == (set(), 0)
    frames = browser.frames
    hub.deliver([["user:1", row().id, 1, False, '{"version": 99}']])
    await asyncio.sleep(0)
    assert browser.frames == frames


async def test_a_slow_browser_gets_the_newest_frame_of_a_job(hub: Hub, browser: Browser) -> None:
    stream = opened(browser)
    await browser.until("snapshot")
    assert (b"set-cookie", b"sessionid=new") in browser.taken[0]["headers"]
    browser.reads.clear()
    job = row()
    for version in range(1, 6):
        hub.deliver([["user:1", job.id, version, False, f'{{"version": {version}}}']])
        await asyncio.sleep(0)
    browser.reads.set()
    await browser.until("snapshot", 1, 5)
    browser.gone.set()
    await ended(stream, hub, browser)


async def test_the_end_of_the_session_is_the_last_frame_of_a_slow_browser_as_well(
    hub: Hub, browser: Browser
) -> None:
    stream = opened(browser)
    await browser.until("snapshot")
    browser.reads.clear()
    for version in (1, 2):
        hub.deliver([["user:1", row().id, version, False, f'{{"version": {version}}}']])
    await asyncio.sleep(0)
    await hub.session_ended({"sessions": ["s"]})
    await asyncio.sleep(0)
    hub.deliver([["user:1", row().id, 3, False, '{"version": 3}']])
    browser.reads.set()
    await ended(stream, hub, browser)
    assert browser.frames == ["snapshot", "session_ended"], "it gets nothing more"


async def test_a_session_that_ends_before_the_snapshot_ends_the_stream_after_it(
    hub: Hub, browser: Browser
) -> None:
    browser.reads.clear()
    stream = opened(browser)
    async with asyncio.timeout(PATIENCE):
        while not hub.sockets("s"):
            await asyncio.sleep(0)
    await hub.session_ended({"sessions": ["s"]})
    await asyncio.sleep(0.01)
    browser.reads.set()
    await ended(stream, hub, browser)
    assert browser.frames == ["snapshot", "session_ended"]


async def test_streams_end_with_the_server_and_a_slow_one_holds_up_no_other(
    hub: Hub, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Browser()
    streams = [opened(slow), opened(browser)]
    await slow.until("snapshot")
    await browser.until("snapshot")
    slow.reads.clear()
    hub.deliver([wire.change_of(row())])
    monkeypatch.setattr(shutdown, "stopping", lambda: True)
    async with asyncio.timeout(PATIENCE):
        await streams[1]
    assert browser.over
    slow.reads.set()
    await ended(streams[0], hub, slow)
    assert slow.over


def test_a_server_that_cannot_stream_says_what_it_lacks(client: Client) -> None:
    answer = client.get("/events")
    assert (answer.status_code, answer.json()["code"]) == (501, "needs_asgi")
    assert answer["Content-Type"] == "application/problem+json"
    assert "ASGI" in answer.json()["detail"]
