"""Waiting requests: a GET with `Prefer: wait=30` (RFC 7240) is answered at the next change.

The plain view gives each answer: first to see whether there is news already, then after a change.
In between the request holds no thread and no connection to the database.
"""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import orjson

from progrock import clock
from progrock.consumers.admission import Gone
from progrock.consumers.answers import (
    Answer,
    Message,
    Receive,
    Scope,
    Send,
    read_body,
    send_response,
    until_gone,
)
from progrock.consumers.entry import enter, leave
from progrock.consumers.hub import hub
from progrock.consumers.sockets import BEAT_KEY, STATUS_KEY, Outbox
from progrock.errors import Refused
from progrock.problems import problem

#: A request waits no longer than so many seconds, whatever it asks for.
LONGEST = 60
#: A change may leave a request's answer as it is. The request then asks again after so many
#: seconds.
PAUSE = 1.0

_WAIT = re.compile(r"wait\s*=\s*([0-9]{1,9})\s*(?:;.*)?", re.IGNORECASE)


def preferred(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """How many seconds a request is willing to wait; 0 for not at all."""
    text = b",".join(value for name, value in headers if name == b"prefer").decode("latin-1")
    found = (_WAIT.fullmatch(each.strip()) for each in text.split(","))
    return next((min(int(each[1]), LONGEST) for each in found if each), 0)


def conditional(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request says which version it knows."""
    return any(name == b"if-none-match" for name, _ in headers)


class Bell(Outbox):
    """Rings when there may be news for a waiting request, in place of sending frames.

    `job_id` is the job that the request waits for; None for all jobs of its audiences.
    """

    __slots__ = ("_job_id", "_rung", "over")

    def __init__(self, job_id: str | None) -> None:
        self.over = False  # whether the request must not wait any longer
        self._job_id = job_id
        self._rung = asyncio.Event()

    def offer(self, key: str, frame: str) -> None:
        """Ring for a frame of the job. Beats and the status are no news."""
        if key == self._job_id or (self._job_id is None and key not in (BEAT_KEY, STATUS_KEY)):
            self._rung.set()

    def restart(self, first: str) -> None:
        """Ring, because everything may have changed."""
        self._rung.set()

    def close(self) -> None:
        """Do nothing, because no frames are sent."""

    async def session_ended(self) -> None:
        """Ring, because the answer to somebody without a session is another one."""
        self._rung.set()

    async def end(self) -> None:
        """Wait no longer, because the server stops, or the browser has left."""
        self.over = True
        self._rung.set()

    def reset(self) -> None:
        """Forget that it rang."""
        if not self.over:
            self._rung.clear()

    async def rings(self, until: float) -> bool:
        """Wait for the next ring; False if none came by that time (`clock.elapsed`)."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - clock.elapsed())):
                await self._rung.wait()
        return self._rung.is_set() and not self.over


class Wait:
    """One waiting request: `await Wait(…).run(scope)`.

    `plain` is the ASGI application that answers it, and `asked` the scope that it gets. `job_id` is
    the job that is asked for, or None for a list.
    """

    def __init__(
        self, plain: Any, asked: Scope, receive: Receive, send: Send, *, job_id: str | None
    ) -> None:
        self._plain, self._asked = plain, asked
        self._receive, self._send = receive, send
        self._seconds = preferred(asked["headers"])
        self._until = clock.elapsed() + self._seconds
        self._conditional = conditional(asked["headers"])
        self._bell = Bell(job_id)

    async def run(self, scope: Scope) -> None:
        """Answer the request. The scope has its session."""
        await read_body(self._receive)
        self._gone = asyncio.create_task(self._notice_leaving())
        try:
            answer = await self._answer(scope)
            if not self._gone.done():
                applied = f"wait={self._seconds}".encode()
                answer.headers.append((b"preference-applied", applied))
                await answer.send(self._send)
        except Gone:
            pass
        except Refused as refused:
            await send_response(self._send, problem(refused.code, refused.message))
        finally:
            self._gone.cancel()

    async def _notice_leaving(self) -> None:
        await until_gone(self._receive)
        await self._bell.end()

    async def _answer(self, scope: Scope) -> Answer:
        """The plain answer, at once or after a change. Raises Gone and Refused."""
        at = hub()
        try:
            entered = await enter(
                at,
                scope,
                self._until_gone,
                outbox=self._bell,
                close=self._bell.session_ended,
                quietly=True,
            )
        except Refused as refused:
            if refused.code in ("too_many_sockets", "busy"):
                raise
            return await self._ask()  # the plain view refuses in its own words
        at.responses.add(self._bell)
        try:
            return await self._news()
        finally:
            at.responses.discard(self._bell)
            leave(at, entered.member)

    async def _news(self) -> Answer:
        """Ask now and after each ring, until the answer is news or the time is over."""
        self._bell.reset()
        first = answer = await self._ask()
        if self._is_news(answer, None):
            return answer
        while await self._bell.rings(self._until):
            self._bell.reset()
            answer = await self._ask()
            if self._is_news(answer, first):
                break
            await asyncio.sleep(min(PAUSE, max(0.0, self._until - clock.elapsed())))
        return answer

    def _is_news(self, answer: Answer, first: Answer | None) -> bool:
        """Whether this is what the request waits for; `first` is the first answer that it got."""
        if self._conditional or answer.status != 200:
            return answer.status != 304
        if first is not None and _tag(answer) != _tag(first):
            return True
        return not _is_active(answer)

    async def _ask(self) -> Answer:
        """The answer of the plain view, as it is now."""
        answer, read = Answer(), False

        async def receive() -> Message:
            nonlocal read
            if not read:
                read = True
                return {"type": "http.request", "body": b"", "more_body": False}
            return await self._until_gone()

        await self._plain(self._asked, receive, answer.keep)
        return answer

    async def _until_gone(self) -> Message:
        await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}


def _tag(answer: Answer) -> bytes:
    return answer.header(b"etag") or answer.body


def _is_active(answer: Answer) -> bool:
    """Whether an answer is the frame of a job that goes on."""
    if not answer.header(b"content-type").startswith(b"application/json"):
        return False
    frame = orjson.loads(answer.body)
    return isinstance(frame, dict) and frame.get("complete") is False
