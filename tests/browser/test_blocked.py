"""progrock.js where WebSockets are blocked: events, waiting requests, and neither.

The test plays the server.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from django.utils.html import json_script
from playwright.async_api import Page, Request, Route, WebSocketRoute, expect

from tests.browser.played import CONNECT, HOST, JOB, START, WAKE, frame, hears
from tests.services import PATIENCE


class Api:
    """The server's side over HTTP, played by the test: WebSockets open and close at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.starts: list[Request] = []
        self.jobs = [frame()]
        self.health, self.refusal, self.mute = 502, "", False
        no_stream = {"code": "needs_asgi", "detail": "No."}
        self.events: dict[str, Any] = {"status": 501, "json": no_stream}
        self.waits, self.waiting, self.release = False, 0, asyncio.Event()

    async def accept(self, socket: WebSocketRoute) -> None:
        """A WebSocket."""
        self.asked.append("socket")
        if self.mute:
            socket.send(json.dumps({"type": "snapshot", "jobs": [], "backends": []}))
        else:
            await socket.close(code=1006 + 5)

    async def answer(self, route: Route) -> None:
        """A request under the address that the page has told."""
        path = route.request.url.removeprefix(f"{HOST}/films/")
        self.asked.append(path)
        if path == "healthz":
            await route.fulfill(status=self.health)
        elif path == "backends":
            headers = {"Set-Cookie": "shopcsrf=token; Path=/"}
            await route.fulfill(json={"backends": []}, headers=headers)
        elif path == "events":
            if self.events:  # else it is held back for ever
                await route.fulfill(**self.events)
        elif route.request.method == "POST":
            self.starts.append(route.request)
            await self._start(route)
        else:
            await self._list(route)

    async def _list(self, route: Route) -> None:
        headers = {"ETag": self._etag()}
        known = route.request.headers.get("if-none-match")
        if self.waits and known == self._etag() and "prefer" in route.request.headers:
            self.waiting += 1
            await self.release.wait()
            headers = {"ETag": self._etag(), "Preference-Applied": "wait=20"}
        if known == self._etag():
            await route.fulfill(status=304, headers=headers)
        else:
            await route.fulfill(json={"jobs": self.jobs}, headers=headers)

    async def _start(self, route: Route) -> None:
        if self.refusal:
            await route.fulfill(status=503, body=self.refusal)
        else:
            await route.fulfill(json=frame(2, request=route.request.post_data_json["request"]))

    def _etag(self) -> str:
        return f'"{[job["version"] for job in self.jobs]}"'


@pytest.fixture
async def blocked(embed: Callable[..., Awaitable[Page]]) -> tuple[Page, Api]:
    """A page that knows the address of the API, whose WebSockets are blocked."""
    told = {"http": "/films/", "csrf": {"cookie": "shopcsrf", "header": "X-Shop"}}
    page, api = await embed(json_script(told, "progrock-page")), Api()
    await page.route(f"{HOST}/films/**", api.answer)
    await page.route_web_socket(re.compile("/prog/"), api.accept)
    await page.evaluate(CONNECT)
    return page, api


#: From now on `timers` has the delays (ms) of all timers that the page sets.
NOTE_TIMERS = """() => {
  const { setTimeout } = globalThis;
  globalThis.timers = [];
  globalThis.setTimeout = (call, delay, ...more) => {
    globalThis.timers.push(delay);
    return setTimeout(call, delay, ...more);
  };
}"""


async def until(page: Page, ready: Callable[[], bool], step: int = 250) -> None:
    """Let the page's time pass until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not ready():
            await page.clock.run_for(step)
            await asyncio.sleep(0.01)


async def test_a_server_that_is_away_is_no_blocked_websocket(blocked: tuple[Page, Api]) -> None:
    page, api = blocked
    await until(page, lambda: api.asked.count("socket") > 5)
    assert set(api.asked) == {"socket", "healthz"}
    assert await page.evaluate("[socket.state, socket.transport]") == ["offline", None]


async def test_a_blocked_websocket_is_replaced_by_what_the_server_has(
    blocked: tuple[Page, Api],
) -> None:
    page, api = blocked
    api.health = 200
    await until(page, lambda: "jobs?limit=200" in api.asked)
    await hears(page, "snapshot")
    assert await page.evaluate("[socket.state, socket.transport]") == ["live", "waiting"]
    assert await page.evaluate("socket.message") == (
        "Updates come by a slower way, because no WebSocket gets through."
    )
    api.jobs = [frame(3, message="Half way"), frame(job="new")]
    await until(page, lambda: api.asked.count("jobs?limit=200") > 2)
    assert [job["job"] for job in await hears(page, "job", 2)] == ["new", JOB]
    api.refusal = "The proxy has lost it."
    await page.evaluate(START, {"backend": "render", "params": {"seconds": 3}})
    await until(page, lambda: len(api.starts) == 1)
    api.refusal = ""
    await until(page, lambda: len(api.starts) == 2)
    await expect(page).to_have_title(f"started {JOB}")
    first, second = (each.post_data_json for each in api.starts)
    assert (
        first
        == second
        == {
            "backend": "render",
            "params": {"seconds": 3},
            "request": first["request"],
        }
    )
    assert api.starts[0].headers["x-shop"] == "token"
    await page.evaluate("socket.csrf = 'mine'")
    await page.evaluate(START, {})
    await until(page, lambda: len(api.starts) == 3)
    assert api.starts[2].headers["x-shop"] == "mine"
    sockets = api.asked.count("socket")
    await until(page, lambda: api.asked.count("socket") > sockets)
    assert await page.evaluate("socket.transport") == "waiting", "a better way was tried in vain"


@pytest.mark.parametrize("pause", [0, 500])
async def test_a_waiting_request_ends_when_the_reader_is_back(
    blocked: tuple[Page, Api], pause: int
) -> None:
    page, api = blocked
    api.health, api.waits = 200, True
    await until(page, lambda: api.waiting > 0)
    if pause:  # between two requests
        api.jobs = [frame(2)]
        api.release.set()
        await hears(page, "job")
        api.release.clear()
    asked = api.asked.count("jobs?limit=200")
    await page.evaluate(WAKE, "visibilitychange")
    await until(page, lambda: api.asked.count("jobs?limit=200") > asked + 1)
    await page.clock.run_for(6_000)
    assert await page.evaluate("socket.state") == "live"
    assert api.asked.count("backends") == 1, "it has connected anew"
    api.release.set()


@pytest.mark.parametrize("why", ["the visitor must sign in", "the session has ended"])
async def test_a_visitor_who_must_sign_in_is_told_by_other_ways_too(
    blocked: tuple[Page, Api], why: str
) -> None:
    page, api = blocked
    api.health = 200
    if why == "the visitor must sign in":
        api.events = {"status": 401, "json": {"code": "login_required", "detail": "Sign in."}}
        wanted = ["refused", "login_required", "Sign in."]
    else:
        snapshot = {"type": "snapshot", "jobs": [frame()], "backends": []}
        ended = {"type": "error", "code": "session_ended", "message": "Bye.", "request": None}
        stream = "".join(f"data: {json.dumps(each)}\n\n" for each in (snapshot, ended))
        api.events = {"body": stream, "content_type": "text/event-stream"}
        wanted = ["refused", "session_ended", "You have signed out."]
    await until(page, lambda: "events" in api.asked)
    await page.wait_for_function('socket.state === "refused"')
    assert await page.evaluate("[socket.state, socket.code, socket.message]") == wanted
    assert await page.evaluate("socket.jobs.size") == 0
    asked = len(api.asked)
    await page.clock.run_for(60_000)
    assert len(api.asked) == asked


async def test_a_stream_that_a_proxy_holds_back_is_given_up(blocked: tuple[Page, Api]) -> None:
    page, api = blocked
    api.health, api.events = 200, {}
    await until(page, lambda: "jobs?limit=200" in api.asked)
    await hears(page, "snapshot")
    assert await page.evaluate("[socket.state, socket.transport]") == ["live", "waiting"]


async def test_a_websocket_that_gives_the_snapshot_and_nothing_more_is_blocked(
    blocked: tuple[Page, Api],
) -> None:
    page, api = blocked
    api.health, api.mute = 200, True
    await page.evaluate(NOTE_TIMERS)
    for tries in range(4):  # it tries the socket again, which is as mute as before
        seen = api.asked.count("jobs?limit=200")
        await until(page, lambda tries=tries: api.asked.count("backends") > tries, step=2_000)
        await until(page, lambda seen=seen: api.asked.count("jobs?limit=200") > seen, step=2_000)
    # A busy machine makes the page's time pass between two tries, so only its timers can be told.
    timers = await page.evaluate("timers")
    climbs = [each for each in timers if each in (30_000, 60_000, 120_000)]
    assert climbs[:3] == [30_000, 60_000, 120_000], "ever more rarely"
