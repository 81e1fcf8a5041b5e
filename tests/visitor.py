"""A visitor for tests: an HTTP session with its cookies, and a socket on /prog/ with its frames."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.services import PATIENCE, Stack
from tests.wire import checked

Frame = dict[str, Any]


class Visitor:
    """One visitor with one socket; `frames` holds all that it has received."""

    def __init__(
        self, stack: Stack, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.stack, self.session, self.socket = stack, session, socket
        self.frames: list[Frame] = []

    async def send(self, message: object) -> None:
        """Send a text as it is, or anything else as JSON."""
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def until(self, matches: Callable[[Frame], Any], seconds: float = PATIENCE) -> Frame:
        """Receive frames until one matches, and return that one."""
        async with asyncio.timeout(seconds):
            while True:
                received = await self.socket.receive()
                assert received.type == aiohttp.WSMsgType.TEXT, (
                    f"{received} after {self.frames[-3:]}"
                )
                frame: Frame = checked(json.loads(received.data))
                self.frames.append(frame)
                if matches(frame):
                    return frame

    async def error(self) -> Frame:
        """The next frame that is an error."""
        return await self.until(lambda f: f["type"] == "error")

    async def start(self, backend: str = "render", **params: Any) -> Frame:
        """Start a job; returns the first frame about it."""
        request = str(uuid.uuid4())
        await self.send(
            {"action": "start", "backend": backend, "params": params, "request": request}
        )
        return await self.until(lambda f: f.get("request") == request)

    async def starts(self, count: int, backend: str = "render", **params: Any) -> set[str]:
        """Start several jobs; returns their ids."""
        return {(await self.start(backend, **params))["job"] for _ in range(count)}

    async def running(self) -> Frame:
        """Wait until some job is running; returns its frame."""
        return await self.until(lambda f: f.get("state") == "running")

    async def snapshot(self) -> Frame:
        """The next snapshot."""
        return await self.until(lambda f: f["type"] == "snapshot")

    async def ended(self, job_id: str, seconds: float = PATIENCE) -> Frame:
        """Wait until this job has ended; returns its last frame."""
        return await self.until(lambda f: f.get("job") == job_id and f["complete"], seconds)

    async def ends(self, job_ids: set[str], seconds: float = PATIENCE) -> dict[str, Frame]:
        """Wait until all of these jobs have ended, now or earlier; returns their last frames."""
        ended = {f["job"]: f for f in self.frames if f.get("complete")}
        async with asyncio.timeout(seconds):
            while not job_ids <= ended.keys():
                frame = await self.until(lambda f: f.get("complete"), seconds)
                ended[frame["job"]] = frame
        return {job_id: ended[job_id] for job_id in job_ids}

    async def end_states(self, job_ids: set[str], seconds: float = PATIENCE) -> set[str]:
        """Wait until all of these jobs have ended; returns the states that they ended in."""
        return {frame["state"] for frame in (await self.ends(job_ids, seconds)).values()}


@asynccontextmanager
async def browse(
    stack: Stack, session: aiohttp.ClientSession | None = None, **headers: str
) -> AsyncIterator[Visitor]:
    """Open a socket as a new visitor, or as the one of an earlier session."""
    own = session or aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    try:
        async with own.ws_connect(stack.ws_url, headers=headers, max_msg_size=0) as socket:
            yield Visitor(stack, own, socket)
    finally:
        if session is None:
            await own.close()


class Got:
    """An answer: its status, its headers, and its JSON."""

    def __init__(self, answer: aiohttp.ClientResponse, json: Any) -> None:
        self.status, self.headers, self.json = answer.status, answer.headers, json


async def get(visitor: Visitor, path: str, **headers: str) -> Got:
    """Ask for a path of the visitor's server."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    patient = aiohttp.ClientTimeout(total=3 * PATIENCE)
    url = visitor.stack.url + path
    async with visitor.session.get(url, headers=names, timeout=patient) as answer:
        found = await answer.json(content_type=None) if answer.status != 304 else None
        return Got(answer, found)
