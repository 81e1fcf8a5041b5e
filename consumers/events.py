"""Server-sent events: a stream of the same frames as on a socket, for `GET events`.

A stream is an ASGI application before Django, because a view would keep a thread and a connection
to the database for each open stream, and a host's middleware could hold its frames back.
"""

import random

from progrock import wire
from progrock.consumers.admission import Gone
from progrock.consumers.answers import Receive, Scope, Send, read_body, send_response, until_gone
from progrock.consumers.entry import enter, leave
from progrock.consumers.hub import hub
from progrock.consumers.sockets import Member, Outbox
from progrock.errors import Refused
from progrock.problems import problem

#: A browser whose stream has ended connects again after a random time between these, in
#: milliseconds, so that not all come at once when a server starts again.
RETRY_MS = (1000, 5000)
HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would keep the frames until it has many
    (b"x-content-type-options", b"nosniff"),
]


def _event(frame: str) -> str:
    """A frame as an event of a stream. JSON has no line breaks of its own."""
    return f"data: {frame}\n\n"


SESSION_ENDED = _event(wire.encode(wire.error_frame("session_ended", "You have signed out.")))


class Stream:
    """One browser's stream: `await Stream(receive, send).run(scope)`.

    It ends when the browser leaves, when its session ends, and with the server.
    """

    __slots__ = ("_hub", "_last", "_member", "_receive", "_send", "_shown")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._hub = hub()
        self._member: Member | None = None
        self._receive, self._send = receive, send
        self._shown = False  # whether the snapshot was sent
        self._last: str | None = None  # the text to end with; None while the stream goes on

    async def run(self, scope: Scope) -> None:
        """Answer the request. The scope has a session."""
        await read_body(self._receive)
        try:
            await self._open(scope)
            await until_gone(self._receive)
        except Gone:
            return
        except Refused as refused:
            await send_response(self._send, problem(refused.code, refused.message))
        finally:
            self._leave()

    async def _open(self, scope: Scope) -> None:
        """Enter, and send the snapshot. Raises Gone and Refused."""
        outbox = Outbox(self._send_frame)
        entered = await enter(
            self._hub, scope, self._receive, outbox=outbox, close=self._end_session
        )
        self._member = entered.member
        self._hub.responses.add(self)
        cookie = [(b"set-cookie", entered.cookie.encode("latin-1"))] if entered.cookie else []
        start = {"type": "http.response.start", "status": 200, "headers": HEADERS + cookie}
        await self._send(start)
        await self._write(f"retry: {random.randint(*RETRY_MS)}\n\n")
        await outbox.open(entered.snapshot())
        self._shown = True
        if self._last is not None:
            await self.end(self._last)

    async def end(self, last: str = "") -> None:
        """End the stream with `last`. A browser connects again, unless that text tells it not to.

        If the snapshot was not sent yet, the stream ends right after it.
        """
        self._last = last
        if self._shown and self._member is not None:
            self._leave()
            await self._write(last, more=False)

    async def _end_session(self) -> None:
        await self.end(SESSION_ENDED)

    def _leave(self) -> None:
        if self._member is not None:
            self._hub.responses.discard(self)
            leave(self._hub, self._member)
            self._member = None

    async def _send_frame(self, frame: str) -> None:
        await self._write(_event(frame))

    async def _write(self, text: str, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})
