"""Admits handshakes to the database: a bounded number at once, the others in the order of coming.

Thousands of browsers come back at once after a restart. Without this, their calls would stand in
line before all others, and so long that they would be answered after their browsers have gone.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from progrock.wire import Change

#: So many handshakes call the database at once. Other calls wait behind these at most.
PLACES = 50
#: So many handshakes may wait for a place. Further ones are told to try again.
MOST_WAITING = 10_000


class Crowded(Exception):
    """Raised when too many handshakes wait already."""


class Gone(Exception):
    """Raised when a browser has left before its handshake got a place."""


class Admission:
    """The places of one web process: `async with admission.place(receive):`."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(PLACES)  # it serves in the order of coming
        self._waiting = 0

    @asynccontextmanager
    async def place(self, receive: Callable[[], Coroutine[Any, Any, Any]]) -> AsyncIterator[None]:
        """Wait for a place, however long that takes, and hold it. Raises Crowded and Gone.

        `receive` is that of ASGI. Before a handshake is answered, it gives nothing but the news
        that the browser has left.
        """
        if self._places.locked():
            await self._wait(receive)
        else:
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _wait(self, receive: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        if self._waiting >= MOST_WAITING:
            raise Crowded
        self._waiting += 1
        admitted = asyncio.create_task(self._places.acquire())
        leaving = asyncio.create_task(receive())
        try:
            await asyncio.wait({admitted, leaving}, return_when=asyncio.FIRST_COMPLETED)
            gone = leaving.done()
        except BaseException:
            gone = True
            raise
        finally:
            self._waiting -= 1
            leaving.cancel()
            if gone and not admitted.cancel():  # the place came at the same moment
                self._places.release()
        if gone:
            raise Gone


class Missed:
    """The changes that come while handshakes read their snapshots.

    A socket is known to the hub only after its snapshot was read. What was delivered in between is
    noted here, and only as long as somebody may ask for it.
    """

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._dropped = 0  # how many changes were noted before the first that is kept
        self._begun: dict[object, int] = {}  # by reader, in the order of coming

    def note(self, change: Change) -> None:
        """Keep a change that is delivered now, if a snapshot is being read."""
        if self._begun:
            self._changes.append(change)

    @contextmanager
    def reading(self) -> Iterator[object]:
        """Note changes while a snapshot is read. Yields a reader, by which `since` finds them."""
        reader = object()
        self._begun[reader] = self._dropped + len(self._changes)
        try:
            yield reader
        finally:
            del self._begun[reader]
            # A dict keeps its order, so its first reader began first.
            oldest = next(iter(self._begun.values()), self._dropped + len(self._changes))
            while self._dropped < oldest:
                self._changes.popleft()
                self._dropped += 1

    def since(self, reader: object) -> list[Change]:
        """The changes that were delivered since this reader began."""
        begun = self._begun[reader] - self._dropped
        return [change for n, change in enumerate(self._changes) if n >= begun]
