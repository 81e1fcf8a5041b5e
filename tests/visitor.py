"""A visitor's socket on /prog/ for tests: an HTTP session with its cookies, and the frames that came."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.services import PATIENCE, Stack

Frame = dict[str, Any]


class Visitor:
    """A visitor: a cookie jar, and the frames of one socket."""

    def __init__(
        self, stack: Stack, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse
    ) -> None:
        self.stack, self.session, self.socket = stack, session, socket
        self.frames: list[Frame] = []

    async def send(self, message: object) -> None:
        await self.socket.send_str(message if isinstance(message, str) else json.dumps(message))

    async def until(self, matches: Callable[[Frame], Any], seconds: float = PATIENCE) -> Frame:
        """The first frame from now on that matches."""
        async with asyncio.timeout(seconds):
            while True:
                received = await self.socket.receive()
                assert received.type == aiohttp.WSMsgType.TEXT, (
                    f"{received} after {self.frames[-3:]}"
                )
                frame: Frame = json.loads(received.data)
                self.frames.append(frame)
                if matches(frame):
                    return frame

    async def error(self) -> Frame:
        return await self.until(lambda f: f["type"] == "error")

    async def start(self, backend: str = "render", **params: Any) -> Frame:
        request = str(uuid.uuid4())
        await self.send(
            {"action": "start", "backend": backend, "params": params, "request": request}
        )
        return await self.until(lambda f: f.get("request") == request)

    async def starts(self, count: int, backend: str = "render", **params: Any) -> set[str]:
        """Start several jobs; returns their ids."""
        return {(await self.start(backend, **params))["job"] for _ in range(count)}

    async def ended(self, job: str, seconds: float = PATIENCE) -> Frame:
        return await self.until(lambda f: f.get("job") == job and f["complete"], seconds)

    async def ends(self, jobs: set[str], seconds: float = PATIENCE) -> dict[str, Frame]:
        """The last frame of each of these jobs, some of which may have come already."""
        ended = {f["job"]: f for f in self.frames if f.get("complete")}
        async with asyncio.timeout(seconds):
            while not jobs <= ended.keys():
                frame = await self.until(lambda f: f.get("complete"), seconds)
                ended[frame["job"]] = frame
        return {job: ended[job] for job in jobs}


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
