"""A visitor who listens to `GET events`, with the frames of the stream."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.services import PATIENCE, Stack
from tests.wire import checked

Frame = dict[str, Any]


class Listener:
    """One open stream; `frames` holds all that it has received."""

    def __init__(self, session: aiohttp.ClientSession, answer: aiohttp.ClientResponse) -> None:
        self.session, self.answer = session, answer
        self.frames: list[Frame] = []

    async def until(self, matches: Callable[[Frame], Any], seconds: float = PATIENCE) -> Frame:
        """Receive frames until one matches, and return that one."""
        async with asyncio.timeout(seconds):
            while (frame := await self._next()) is not None:
                self.frames.append(frame)
                if matches(frame):
                    return frame
        raise AssertionError(f"the stream ended after {self.frames[-3:]}")

    async def _next(self) -> Frame | None:
        while line := await self.answer.content.readline():
            if line.startswith(b"data: "):
                return checked(json.loads(line.removeprefix(b"data: ")))
        return None

    async def snapshot(self) -> Frame:
        """The next snapshot."""
        return await self.until(lambda f: f["type"] == "snapshot")

    async def ended(self, job_id: str) -> Frame:
        """Wait until this job has ended; returns its last frame."""
        return await self.until(lambda f: f.get("job") == job_id and f["complete"])

    async def over(self) -> Frame:
        """Read until the stream ends; returns its last frame."""
        async with asyncio.timeout(PATIENCE):
            while (frame := await self._next()) is not None:
                self.frames.append(frame)
        return self.frames[-1]


@asynccontextmanager
async def listen(
    stack: Stack, session: aiohttp.ClientSession | None = None, *, url: str = "", **headers: str
) -> AsyncIterator[Listener]:
    """Open a stream as a new visitor, or as the one of an earlier session.

    `url` is that of another server than the stack's. `answer` has the status, whatever it is.
    """
    own = session or aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
    patient = aiohttp.ClientTimeout(total=None)
    try:
        address = f"{url or stack.url}/events"
        async with own.get(address, headers=headers, timeout=patient, read_bufsize=2**24) as answer:
            yield Listener(own, answer)
    finally:
        if session is None:
            await own.close()
