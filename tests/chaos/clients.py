"""Browsers for chaos: sockets that reconnect by themselves and keep their view by version, as the page's own client does."""

import asyncio
import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Frame = dict[str, Any]

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # progrock.js: between two attempts to connect
SILENCE = 45.0  # progrock.js: without a frame, beats included, the connection is dead
CONNECT = 5.0  # a load balancer gives up on a process that does not answer


@dataclass(kw_only=True)
class Wish:
    """A job that somebody wants; `cancel_after` seconds from when it is known, or never."""

    request: str
    backend: str
    seconds: float
    outcome: str
    cancel_after: float | None
    job: str | None = None


@dataclass
class Visitor:
    """A session, whose wishes any of its sockets may send."""

    jar: aiohttp.CookieJar
    wishes: dict[str, Wish] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)


class Client:
    """One socket and what its screen shows."""

    def __init__(self, number: int, visitor: Visitor, webs: Sequence[str]) -> None:
        self.number, self.visitor, self.webs = number, visitor, webs
        self.view: dict[str, Frame] = {}
        self.connects = 0
        self.went_back: list[str] = []
        self._turn = number
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._later: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether it has had its snapshot on the present connection."""
        return self._socket is not None

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost, until cancelled."""
        attempt = 0
        async with aiohttp.ClientSession(cookie_jar=self.visitor.jar) as session:
            while True:
                before = self.connects
                with suppress(aiohttp.ClientError, OSError, TimeoutError):
                    await self._connect(session)
                self._socket = None
                attempt = 0 if self.connects > before else attempt
                ceiling = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                attempt += 1
                await asyncio.sleep(ceiling * random.uniform(0.5, 1.0))

    async def start(self, wish: Wish) -> None:
        """Ask for a job; asked again on each connect until it is known."""
        self.visitor.wishes[wish.request] = wish
        await self._ask(wish)

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        self._turn += 1
        async with asyncio.timeout(CONNECT):
            socket = await session.ws_connect(
                f"ws://127.0.0.1:{self.webs[self._turn % len(self.webs)]}/prog/",
                max_msg_size=0,
                timeout=_QUICK,
            )
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    received = await socket.receive()
                if received.type != aiohttp.WSMsgType.TEXT:
                    return
                await self._take(json.loads(received.data), socket)
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await socket.close()

    async def _take(self, frame: Frame, socket: aiohttp.ClientWebSocketResponse) -> None:
        if frame["type"] == "snapshot":
            new = {job["job"]: job for job in frame["jobs"]}
            for key, job in self.view.items():
                if key not in new or new[key]["version"] < job["version"]:
                    self.went_back.append(key)
            self.view = new
            self.connects += 1
            self._socket = socket
            for job in frame["jobs"]:
                self._settle(job)
            for wish in list(self.visitor.wishes.values()):
                if wish.job is None:
                    await self._ask(wish)
            for key in list(self.visitor.cancels):
                await self._send({"action": "cancel", "job": key})
        elif frame["type"] == "job":
            self._settle(frame)
            if frame["version"] > self.view.get(frame["job"], {"version": 0})["version"]:
                self.view[frame["job"]] = frame
        elif frame["type"] == "error" and frame["request"] in self.visitor.wishes:
            self._soon(
                2.0, self._ask(self.visitor.wishes[frame["request"]])
            )  # the database is away, say: a person would press the button again

    def _settle(self, frame: Frame) -> None:
        """What a job's frame answers: the start that asked for it, the cancel that was obeyed."""
        wish = self.visitor.wishes.get(frame["request"] or "")
        if wish and wish.job is None:
            wish.job = frame["job"]
            if wish.cancel_after is not None:
                self._soon(wish.cancel_after, self._cancel(frame["job"]))
        if frame["cancelling"] or frame["complete"]:
            self.visitor.cancels.discard(frame["job"])

    async def _ask(self, wish: Wish) -> None:
        if wish.job is None:
            params = {"seconds": wish.seconds, "outcome": wish.outcome}
            await self._send(
                {
                    "action": "start",
                    "backend": wish.backend,
                    "params": params,
                    "request": wish.request,
                }
            )

    async def _cancel(self, job: str) -> None:
        self.visitor.cancelled.add(job)
        if not self.view.get(job, {"complete": False})["complete"]:
            self.visitor.cancels.add(job)
            await self._send({"action": "cancel", "job": job})

    async def _send(self, message: object) -> None:
        if self._socket is not None:
            with suppress(aiohttp.ClientError, OSError):
                await self._socket.send_str(json.dumps(message))

    def _soon(self, seconds: float, doing: Any) -> None:
        async def later() -> None:
            await asyncio.sleep(seconds)
            await doing

        task = asyncio.create_task(later())
        self._later.add(task)
        task.add_done_callback(self._later.discard)
        task.add_done_callback(lambda _: doing.close())


_QUICK = aiohttp.ClientWSTimeout(ws_close=1.0)
