"""Somebody else's page with progrock.js, and the server's side of it, which the test plays."""

import asyncio
import json
from pathlib import Path
from typing import Any, Self

from playwright.async_api import Locator, Page, WebSocketRoute

from tests.services import PATIENCE

STATIC = Path(__file__).resolve().parents[2] / "site" / "progrock" / "static"
HOST = "http://host.test"
JOB = "3f2a0000-0000-4000-8000-000000000001"
IMPORT = """<!doctype html><html lang="en"><title>Somebody's page</title>
<link rel="icon" href="/static/progrock/favicon.svg">
<script type="module" src="/static/progrock/progrock.js"></script>
<main><h1>Somebody's page</h1>%s</main></html>"""
CONNECT = """async () => {
  const { ProgressSocket } = await import("/static/progrock/progrock.js");
  window.socket = new ProgressSocket(); window.heard = [];
  for (const type of ["job", "snapshot", "status", "error", "state"])
    socket.addEventListener(type, ({ detail }) => heard.push([type, detail]));
}"""
START = """options => {
  socket.start(options).then(
    job => document.title = "started " + job.job,
    error => document.title = error.name + " " + error.code); }"""
WAKE = """type => (type === "visibilitychange" ? document : window).dispatchEvent(
  new PageTransitionEvent(type, { persisted: type === "pageshow" }))"""


def frame(version: int = 1, **fields: Any) -> dict[str, Any]:
    """A job's frame as the server would send it."""
    state = fields.get("state", "running")
    complete = state not in ("queued", "starting", "running")
    created = "2026-01-02T03:04:05Z"
    base = {
        "type": "job",
        "job": JOB,
        "request": None,
        "backend": "render",
        "version": version,
        "state": state,
    }
    more = {
        "progress": None,
        "complete": complete,
        "message": "",
        "cancelling": False,
        "created": created,
        "ended": None,
    }
    return {**base, **more, **fields}


class Server:
    """The server's side of `/prog/`, played by the test."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[WebSocketRoute] = asyncio.Queue()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.socket: WebSocketRoute

    def accept(self, socket: WebSocketRoute) -> None:
        """A browser has connected."""
        socket.on_message(lambda text: self.messages.put_nowait(json.loads(text)))
        self.sockets.put_nowait(socket)

    async def connected(self, *jobs: dict[str, Any], cancel: bool = True) -> Self:
        """Wait for the next connection and send it a snapshot."""
        self.socket = await asyncio.wait_for(self.sockets.get(), PATIENCE)
        backends = [{"name": "render", "progress": True, "cancel": cancel}]
        self.send({"type": "snapshot", "jobs": list(jobs), "backends": backends})
        return self

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame."""
        self.socket.send(json.dumps(message))

    async def message(self) -> dict[str, Any]:
        """What the browser sends next."""
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


async def comes_back(page: Page, server: Server) -> None:
    """Let the page's time pass until it tries to connect again, and no longer."""
    async with asyncio.timeout(PATIENCE):
        while server.sockets.empty():
            await page.clock.run_for(500)


async def hears(page: Page, type_: str, count: int = 1) -> list[Any]:
    """Wait until the socket has emitted so many events of a type; their details."""
    found = await page.evaluate(
        """async ([type, count]) => {
          const found = () => heard.filter(([each]) => each === type).map(([, detail]) => detail);
          const next = () => new Promise(
            done => socket.addEventListener(type, done, { once: true }));
          while (found().length < count) await next();
          return found(); }""",
        [type_, count],
    )
    assert isinstance(found, list)
    return found


def element(page: Page) -> Locator:
    """The card of a job."""
    return page.locator("job-progress")
