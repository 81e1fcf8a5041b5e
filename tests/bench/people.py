"""Some browsers whose people start jobs one by one, and then watch them.

It is a program, because the browsers must not share a processor's time with who counts.
"""

import argparse
import asyncio
import json
import random
import time
from typing import Any
from urllib.parse import urlsplit

from tests.bench.sockets import Socket
from tests.bench.tables import MOVING

#: A start is answered within so many seconds.
ANSWER = 60.0


class Person(Socket):
    """A browser's socket; `shown` counts the frames that show a job."""

    def __init__(self, host: str, path: str) -> None:
        super().__init__(host, path, [])
        self.shown = 0
        self._asked = b""
        self._answer: asyncio.Future[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        """Look for what a page would show, and for the answer to a start."""
        self.shown += data.count(b'"type":"job"')
        if self._answer and not self._answer.done() and self._asked in data:
            self._answer.set_result(data)
        super().data_received(data)

    async def start(self, name: str) -> None:
        """Start a job with a progress that moves. Raises RuntimeError where it is not taken."""
        self._asked = f'"request":"{name}"'.encode()
        self._answer = asyncio.get_running_loop().create_future()
        message = {"action": "start", "request": name, "params": json.loads(MOVING)}
        self.send(json.dumps(message))
        async with asyncio.timeout(ANSWER):
            answer = await self._answer
        if b'"type":"job"' not in answer:
            raise RuntimeError(f"a start was not taken: {answer!r}")


async def come(url: str, count: int) -> list[Person]:
    """So many browsers, each with a session of its own and its snapshot."""
    parts, people = urlsplit(url), []
    host, port = parts.hostname or "", parts.port or 80
    for _ in range(count):
        _, person = await asyncio.get_running_loop().create_connection(
            lambda: Person(f"{host}:{port}", parts.path), host, port
        )
        await person.open
        people.append(person)
    return people


async def start_all(people: list[Person], jobs: int, rate: float) -> None:
    """Each starts its part of the jobs, one by one; all together so many a second."""
    pause = len(people) / rate

    async def start_some(n: int, person: Person) -> None:
        begun = time.monotonic() + random.uniform(0.0, pause)
        for k in range(jobs // len(people)):
            await asyncio.sleep(begun + k * pause - time.monotonic())
            await person.start(f"{n}-{k}")

    async with asyncio.TaskGroup() as group:
        for n, person in enumerate(people):
            group.create_task(start_some(n, person))


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start the jobs. At a line on stdin, count the frames of some seconds."""
    people = await come(options.url, options.people)
    begun = time.monotonic()
    await start_all(people, options.jobs, options.rate)
    print(json.dumps({"seconds": time.monotonic() - begun}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    before = sum(person.shown for person in people)
    await asyncio.sleep(options.seconds)
    shown = sum(person.shown for person in people) - before
    closed = sum(person.transport.is_closing() for person in people)
    for person in people:
        person.transport.abort()
    return {"frames": shown / options.seconds, "closed": closed}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--rate", type=float, default=200, help="starts a second, all together")
    parser.add_argument("--seconds", type=float, default=10)
    import uvloop

    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
