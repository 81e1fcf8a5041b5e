"""Thousands of browsers that come back at once, and when each of them has its snapshot.

It is also a program, because the browsers must not share a processor's time with who counts.
"""

import argparse
import asyncio
import json
import random
import resource
import time
from collections import Counter
from typing import Any
from urllib.parse import urlsplit

from tests.bench.sockets import Socket

#: Browsers wait up to so many seconds before they try again.
LONGEST_WAIT = 10.0


class Browser(Socket):
    """A socket that notes whether it was told that updates are delayed, and why it was refused."""

    def __init__(self, host: str, path: str, told: Counter[str]) -> None:
        super().__init__(host, path, [])
        self.told = told

    def data_received(self, data: bytes) -> None:
        """Look for what a page would show."""
        for word in (b'"live":false', b'"code":"unavailable"', b'"code":"busy"'):
            self.told[word.decode()] += data.count(word)
        super().data_received(data)


async def storm(url: str, count: int, patience: float) -> dict[str, Any]:
    """Connect so many browsers at once; returns what they saw, in seconds.

    `within`: when the last one had its snapshot. `median`: the same of the middle one. `tries`: how
    many connections that took. `missing`: who had none after `patience`. `told`: how often they
    were told of delays and refusals.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 80
    took: list[float] = []
    sockets: list[Browser] = []
    told: Counter[str] = Counter()
    tries = 0
    begun = time.monotonic()

    async def browse() -> None:
        nonlocal tries
        ceiling = 0.5
        while True:
            tries += 1
            try:
                _, socket = await asyncio.get_running_loop().create_connection(
                    lambda: Browser(f"{host}:{port}", parts.path, told), host, port
                )
                await socket.open
            except OSError:
                await asyncio.sleep(ceiling * random.uniform(0.5, 1))
                ceiling = min(LONGEST_WAIT, 2 * ceiling)
            else:
                took.append(time.monotonic() - begun)
                sockets.append(socket)
                return

    tasks = [asyncio.create_task(browse()) for _ in range(count)]
    _, missing = await asyncio.wait(tasks, timeout=patience)
    for task in missing:
        task.cancel()
    await asyncio.sleep(3)  # by then a trouble that began meanwhile would have been told
    for socket in sockets:
        socket.transport.abort()
    took.sort()
    return {
        "within": took[-1] if took else patience,
        "median": took[len(took) // 2] if took else patience,
        "tries": tries,
        "missing": len(missing),
        "told": {word: number for word, number in told.items() if number},
    }


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--browsers", type=int, required=True)
    parser.add_argument("--patience", type=float, default=180)
    options = parser.parse_args()
    room_for_sockets()
    import uvloop

    print(json.dumps(uvloop.run(storm(options.url, options.browsers, options.patience))))


def room_for_sockets() -> None:
    """Let this process, and what it starts, have as many sockets as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
