"""Thousands of browsers that come at once, and when each of them has its snapshot.

It is also a program, because the browsers must not share a processor's time with who counts.
"""

import argparse
import asyncio
import json
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.bench.sockets import Socket

#: Browsers wait up to so many seconds before they try again.
LONGEST_WAIT = 10.0
#: One of them starts a job each so many seconds, and waits so long for the answer.
STARTS, ANSWER = 0.5, 30.0

_COOKIE = re.compile(rb"^set-cookie: *([^;\r\n]+)", re.IGNORECASE | re.MULTILINE)


class Connection(Socket):
    """A socket that notes its cookie, and what a page would be told."""

    def __init__(self, browser: "Browser", host: str, path: str) -> None:
        super().__init__(host, path, [])
        self.browser = browser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade, with the cookie of an earlier visit."""
        if self.browser.came is None:
            self.browser.came = self.browser.storm.next_to_come()
        super().connection_made(transport)

    def headers(self) -> list[str]:
        """The cookie of an earlier visit."""
        return [f"Cookie: {self.browser.cookie}"] if self.browser.cookie else []

    def data_received(self, data: bytes) -> None:
        """Look for what a page would show."""
        if found := _COOKIE.search(data):
            self.browser.cookie = found[1].decode()
        told = self.browser.storm.told
        for word in (b'"live":false', b'"code":"unavailable"', b'"code":"busy"'):
            if word in data:
                told[word.decode()] += data.count(word)
        self.browser.hear(data)
        super().data_received(data)


class Browser:
    """A browser with a cookie, and a socket for a while.

    `came`: how many others had connected for the first time before it did.
    """

    def __init__(self, storm: "Storm") -> None:
        self.storm = storm
        self.came: int | None = None
        self.cookie = ""
        self.socket: Connection | None = None
        self.asked = b""
        self.answer: asyncio.Future[bytes] | None = None

    async def connect(self) -> None:
        """Connect, again and again until there is a snapshot; as the page's script does."""
        ceiling, storm = 0.5, self.storm
        while True:
            storm.tries += 1
            with suppress(OSError):
                _, socket = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self, f"{storm.host}:{storm.port}", storm.path),
                    storm.host,
                    storm.port,
                )
                await socket.open
                self.socket = socket
                return
            await asyncio.sleep(ceiling * random.uniform(0.5, 1))
            ceiling = min(LONGEST_WAIT, 2 * ceiling)

    def leave(self) -> None:
        """Close the socket without a word."""
        if self.socket:
            self.socket.transport.abort()
        self.socket = None

    async def start(self, name: str) -> float:
        """Start a job; returns how long the answer took, in seconds.

        Raises TimeoutError and RuntimeError where the job was not started.
        """
        async with asyncio.timeout(ANSWER):
            if self.socket is None or self.socket.transport.is_closing():
                await self.connect()
            assert self.socket
            begun, self.asked = time.monotonic(), f'"request":"{name}"'.encode()
            self.answer = asyncio.get_running_loop().create_future()
            self.socket.send(json.dumps({"action": "start", "request": name, "params": {}}))
            answer = await self.answer
        if b'"type":"job"' not in answer:
            raise RuntimeError(f"a start was not taken: {answer!r}")
        return time.monotonic() - begun

    def hear(self, data: bytes) -> None:
        """Look for the answer to a start."""
        if self.answer and not self.answer.done() and self.asked in data:
            self.answer.set_result(data)


class Storm:
    """Browsers that come at once, as often as `come` is called. Then they have their cookies."""

    def __init__(self, url: str, count: int) -> None:
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "", parts.port or 80, parts.path
        self.browsers = [Browser(self) for _ in range(count)]
        self.starter = Browser(self)

    def next_to_come(self) -> int:
        """The number of a browser that connects, from 0."""
        self._came += 1
        return self._came - 1

    async def come(self, patience: float) -> dict[str, Any]:
        """Connect all at once; returns what they saw, in seconds.

        `within`: when the last one had its snapshot, and `median` when the middle one. `tries`: how
        many connections that took. `missing`: who had none after `patience`. `displaced`: by how
        many places the one that was passed by most others came later than it had connected.
        `told`: how often they were told of delays and refusals. `starts`: how long the answers took
        that one more browser got, which starts a job twice a second meanwhile.
        """
        self.told: Counter[str] = Counter()
        self.tries, self._came = 0, 0
        await self.starter.connect()
        self.tries, self._came = 0, 0
        for each in self.browsers:
            each.came = None
        took: list[float] = []
        order: list[int] = []
        begun = time.monotonic()

        async def browse(browser: Browser) -> None:
            await browser.connect()
            assert browser.came is not None
            took.append(time.monotonic() - begun)
            order.append(browser.came)

        with self._starting() as starts:
            tasks = [asyncio.create_task(browse(each)) for each in self.browsers]
            _, missing = await asyncio.wait(tasks, timeout=patience)
            for task in missing:
                task.cancel()
            await asyncio.sleep(3)  # by then a trouble that began meanwhile would have been told
        for browser in (*self.browsers, self.starter):
            browser.leave()
        return {
            "within": took[-1] if took else patience,
            "median": took[len(took) // 2] if took else patience,
            "tries": self.tries,
            "missing": len(missing),
            "displaced": max((n - came for n, came in enumerate(order)), default=0),
            "told": {word: number for word, number in self.told.items() if number},
            "starts": {
                "taken": sum(each is not None for each in starts),
                "not taken": sum(each is None for each in starts),
                "slowest": max((each for each in starts if each is not None), default=ANSWER),
            },
        }

    @contextmanager
    def _starting(self) -> Iterator[list[float | None]]:
        """Start jobs meanwhile; gives the seconds of each, None for one that was not taken."""
        took: list[float | None] = []

        async def starts() -> None:
            while True:
                try:
                    took.append(await self.starter.start(f"{uuid4()}"))
                except (RuntimeError, TimeoutError):
                    took.append(None)
                await asyncio.sleep(STARTS)

        task = asyncio.create_task(starts())
        try:
            yield took
        finally:
            task.cancel()


async def storm(url: str, count: int, patience: float) -> dict[str, Any]:
    """Let so many new visitors come at once; returns what `Storm.come` does."""
    return await Storm(url, count).come(patience)


async def run(options: argparse.Namespace) -> None:
    """Print the figures of new visitors. Then, at a line on stdin, of the same who come back."""
    browsers = Storm(options.url, options.browsers)
    print(json.dumps(await browsers.come(options.patience)), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    print(json.dumps(await browsers.come(options.patience)), flush=True)


def main() -> None:
    """Run it as a program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--browsers", type=int, required=True)
    parser.add_argument("--patience", type=float, default=180)
    room_for_sockets()
    import uvloop

    uvloop.run(run(parser.parse_args()))


def room_for_sockets() -> None:
    """Let this process, and what it starts, have as many sockets as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
