"""Browsers for chaos: each holds a socket and what its screen shows.

Like the page's own client they reconnect by themselves, and take a frame of a job only if its
version is newer than what the screen shows.
"""

import asyncio
import json
import random
import socket as sockets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Frame = dict[str, Any]

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0  # Between two attempts to connect, as in progrock.js.
SILENCE = 45.0  # After so long without a frame the connection is dead, as in progrock.js.
#: Seconds after which screens must have followed a database that went back.
REWOUND = 90.0
CONNECT = 5.0  # A load balancer gives up on a process that does not answer.


@dataclass(kw_only=True)
class Wish:
    """A job that a visitor wants; `job_id` is None until the visitor is told.

    `cancel_after`: seconds from then until the visitor cancels it, or None. `steps`: in how many
    steps its progress moves; None where each poll finds it moved.
    """

    request: str
    backend: str
    seconds: float
    outcome: str
    cancel_after: float | None
    steps: int | None = None
    job_id: str | None = None


@dataclass
class Visitor:
    """A session. Any of its sockets may send its wishes, and its cancels that are not yet obeyed.

    `cancelled` has all jobs that it ever wanted to cancel.
    """

    jar: aiohttp.CookieJar
    wishes: dict[str, Wish] = field(default_factory=dict)
    cancels: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Rewound:
    """The database lost what was committed between these two times (epoch seconds)."""

    since: float
    until: float

    @property
    def shown(self) -> float:
        """Until then all screens must show what the database holds now (epoch seconds)."""
        return self.until + REWOUND


class Client:
    """One socket and what its screen shows."""

    def __init__(
        self,
        number: int,
        visitor: Visitor,
        webs: Sequence[str],
        rewound: Sequence[Rewound] = (),
    ) -> None:
        self.number, self.visitor, self.webs, self.rewound = number, visitor, webs, rewound
        self.patience = CONNECT
        self.view: dict[str, Frame] = {}
        self.connects = 0
        self.went_back: list[str] = []
        self._turn = number
        self._open: aiohttp.ClientWebSocketResponse | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._later: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether this connection has brought its snapshot."""
        return self._socket is not None

    async def run(self) -> None:
        """Connect, and connect again after each loss, until this task is cancelled."""
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

    def cut(self) -> None:
        """Cut the connection without a word; `run` connects again."""
        if self._open is not None and (plug := self._open.get_extra_info("socket")):
            with suppress(OSError):
                plug.shutdown(sockets.SHUT_RDWR)

    async def start(self, wish: Wish) -> None:
        """Ask for a job; each new connection asks again until the job is known."""
        self.visitor.wishes[wish.request] = wish
        await self._ask(wish)

    async def _connect(self, session: aiohttp.ClientSession) -> None:
        self._turn += 1
        async with asyncio.timeout(self.patience):
            socket = await session.ws_connect(
                f"ws://127.0.0.1:{self.webs[self._turn % len(self.webs)]}/prog/",
                max_msg_size=0,
                timeout=_QUICK,
            )
        self._open = socket
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    received = await socket.receive()
                if received.type != aiohttp.WSMsgType.TEXT:
                    return
                await self.take(json.loads(received.data), socket)
        finally:
            self._open = None
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await socket.close()

    async def take(
        self, frame: Frame, socket: aiohttp.ClientWebSocketResponse | None = None
    ) -> None:
        """Show a frame that came, and note what it answers."""
        if frame["type"] == "snapshot":
            new = {job["job"]: job for job in frame["jobs"]}
            if self._rewound():
                self._forget_lost(new)
            else:
                self.went_back += [
                    job_id
                    for job_id, job in self.view.items()
                    if job_id not in new or new[job_id]["version"] < job["version"]
                ]
            self.view = new
            self.connects += 1
            self._socket = socket
            for job in frame["jobs"]:
                self._settle(job)
            for wish in list(self.visitor.wishes.values()):
                if wish.job_id is None:
                    await self._ask(wish)
            for job_id in list(self.visitor.cancels):
                await self._send({"action": "cancel", "job": job_id})
        elif frame["type"] == "job":
            self._settle(frame)
            if frame["version"] > self.view.get(frame["job"], {"version": 0})["version"]:
                self.view[frame["job"]] = frame
        elif frame["type"] == "error" and frame["request"] in self.visitor.wishes:
            # The database may be away: a person would press the button again.
            self._soon(2.0, self._ask(self.visitor.wishes[frame["request"]]))

    def _rewound(self) -> bool:
        """Whether the database went back so lately that a screen may do so, too."""
        now = time.time()
        return any(each.since <= now <= each.shown for each in self.rewound)

    def _forget_lost(self, new: Frame) -> None:
        """Let the visitor wish again for the jobs that the database has lost."""
        for wish in self.visitor.wishes.values():
            if wish.job_id is not None and wish.job_id not in new:
                self.visitor.cancels.discard(wish.job_id)
                wish.job_id = None

    def _settle(self, frame: Frame) -> None:
        """Note what a job's frame answers: a start, or a cancel."""
        wish = self.visitor.wishes.get(frame["request"] or "")
        if wish and wish.job_id is None:
            wish.job_id = frame["job"]
            if wish.cancel_after is not None:
                self._soon(wish.cancel_after, self._cancel(frame["job"]))
        if frame["cancelling"] or frame["complete"]:
            self.visitor.cancels.discard(frame["job"])

    async def _ask(self, wish: Wish) -> None:
        if wish.job_id is None:
            params: Frame = {"seconds": wish.seconds, "outcome": wish.outcome}
            if wish.steps is not None:
                params["steps"] = wish.steps
            what = {"backend": wish.backend, "params": params, "request": wish.request}
            await self._send({"action": "start", **what})

    async def _cancel(self, job_id: str) -> None:
        self.visitor.cancelled.add(job_id)
        if not self.view.get(job_id, {"complete": False})["complete"]:
            self.visitor.cancels.add(job_id)
            await self._send({"action": "cancel", "job": job_id})

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


async def storm(webs: Sequence[str], count: int, limit: float) -> int:
    """Let so many new visitors connect at once, each again and again until it has a snapshot.

    Returns how many have none after `limit` seconds. Then all of them leave.
    """
    clients = [Client(n, Visitor(aiohttp.CookieJar(unsafe=True)), webs) for n in range(count)]
    for client in clients:
        client.patience = limit  # who gives up sooner would lose its place in the line
    running = [asyncio.create_task(client.run()) for client in clients]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not all(client.connects for client in clients):
                    await asyncio.sleep(0.1)
        return sum(not client.connects for client in clients)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


_QUICK = aiohttp.ClientWSTimeout(ws_close=1.0)
