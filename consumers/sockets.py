"""What a web process knows of its open sockets: what each has yet to send, and what each audience was shown."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any


class Outbox:
    """What a socket has yet to send: the newest frame per key, so a slow one gets fewer frames and holds nobody up."""

    __slots__ = ("_frames", "_held", "_send", "_sender")

    def __init__(self, send: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._frames: dict[str, str] = {}
        self._held = True
        self._send = send
        self._sender: asyncio.Task[None] | None = None

    def offer(self, key: str, frame: str) -> None:
        """Send the frame soon, in place of an unsent one of this key."""
        self._frames[key] = frame
        self._start()

    async def open(self, first: str) -> None:
        """Send the first frame, and from then on what was offered meanwhile."""
        await self._send(first)
        self._held = False
        self._start()

    def close(self) -> None:
        """Send nothing more."""
        self._held = True
        if self._sender is not None:
            self._sender.cancel()

    def _start(self) -> None:
        if self._frames and not self._held and self._sender is None:
            self._sender = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._frames and not self._held:
                await self._send(self._frames.pop(next(iter(self._frames))))
        except Exception:  # the socket has gone, however its server puts it; its consumer hears of it, and nobody else
            self._held = True
        finally:
            self._sender = None


class Member:
    """A socket as the hub sees it."""

    __slots__ = ("audiences", "close", "outbox", "session")

    def __init__(
        self,
        audiences: Sequence[str],
        session: str,
        outbox: Outbox,
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.audiences = audiences
        self.session = session
        self.outbox = outbox
        self.close = close


class Audience:
    """The open sockets of one audience in this process, and the versions that they were shown."""

    __slots__ = ("ended", "members", "versions")

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self.versions: dict[str, int] = {}
        self.ended: set[str] = set()

    def fresh(self, job: str, version: int, ended: bool) -> bool:
        """Whether this version is news; notes it."""
        if version <= self.versions.get(job, 0):
            return False
        self.versions[job] = version
        if ended:
            self.ended.add(job)
        return True
