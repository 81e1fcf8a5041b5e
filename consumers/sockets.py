"""What a web process knows of its open sockets.

What each has yet to send, and which versions of jobs each audience was shown.
"""

import asyncio
from collections.abc import Callable, Container, Coroutine, Sequence, Set
from typing import Any

#: The keys of frames that are about no job. The key of a job's frame is the job's id.
BEAT_KEY, STATUS_KEY, SNAPSHOT_KEY = "beat", "status", "snapshot"


class Outbox:
    """What a socket has yet to send: the newest frame of each key, which is a job's id or a kind.

    So a slow socket gets fewer frames, always the newest, and nobody waits for it. `send` sends a
    text frame.
    """

    __slots__ = ("_frames", "_held", "_send", "_sender")

    def __init__(self, send: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self._frames: dict[str, str] = {}
        self._held = True
        self._send = send
        self._sender: asyncio.Task[None] | None = None

    def offer(self, key: str, frame: str) -> None:
        """Send the frame soon. It replaces an unsent one of the same key."""
        self._frames[key] = frame
        self._start()

    async def open(self, first: str) -> None:
        """Send the first frame, and after it what was offered in the meantime."""
        await self._send(first)
        self._held = False
        self._start()

    def close(self) -> None:
        """Send nothing more."""
        self._held = True
        if self._sender is not None:
            self._sender.cancel()

    def restart(self, first: str) -> None:
        """Send this frame next, and nothing of what waited.

        A socket whose first frame is still to come needs no other one.
        """
        if not self._held:
            self._frames.clear()
            self.offer(SNAPSHOT_KEY, first)

    def _start(self) -> None:
        if self._frames and not self._held and self._sender is None:
            self._sender = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._frames and not self._held:
                await self._send(self._frames.pop(next(iter(self._frames))))
        except Exception:  # the socket has closed; each server raises an error of its own for that
            self._held = True  # nothing is lost: the page connects again
        finally:
            self._sender = None


class Member:
    """A socket as the hub sees it: a member of its audiences.

    `sessions` are the names of its session, the lasting one first. `close` closes the socket
    because the session has ended.
    """

    __slots__ = ("audiences", "close", "outbox", "sessions")

    def __init__(
        self,
        audiences: Sequence[str],
        sessions: Sequence[str],
        outbox: Outbox,
        close: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self.audiences = audiences
        self.sessions = sessions
        self.outbox = outbox
        self.close = close


class Audience:
    """The open sockets of one audience in this process, and the versions that they were shown."""

    __slots__ = ("_ended", "_versions", "members")

    def __init__(self) -> None:
        self.members: set[Member] = set()
        self._versions: dict[str, int] = {}
        self._ended: set[str] = set()

    def shown(self, job_id: str) -> int:
        """The latest version of a job that these sockets were shown; 0 if none was."""
        return self._versions.get(job_id, 0)

    def shown_ended(self, job_id: str) -> bool:
        """Whether that version was the job's end."""
        return job_id in self._ended

    def jobs(self) -> Set[str]:
        """The ids of the jobs that were shown, but for those that ended a while ago."""
        return self._versions.keys()

    def forget(self) -> None:
        """Forget what was shown, because a new snapshot follows."""
        self._versions.clear()
        self._ended.clear()

    def is_news(self, job_id: str, version: int, ended: bool) -> bool:
        """Whether this version of a job is newer than what was shown. It counts as shown then."""
        if version <= self._versions.get(job_id, 0):
            return False
        self._versions[job_id] = version
        if ended:
            self._ended.add(job_id)
        return True

    def forget_ended(self, keep: Container[str]) -> None:
        """Drop the versions of ended jobs, which change no more; `keep`: ids of recent ones."""
        for job_id in [each for each in self._ended if each not in keep]:
            self._ended.discard(job_id)
            self._versions.pop(job_id, None)
