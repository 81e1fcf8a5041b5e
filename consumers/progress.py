"""ProgressConsumer: a browser's socket on `/prog/`, which starts, cancels and shows jobs."""

import asyncio
import reprlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer

from progrock import doors, wire
from progrock.attempts import NoAnswer
from progrock.consumers.admission import Gone
from progrock.consumers.database import AWAY, database
from progrock.consumers.entry import enter, leave
from progrock.consumers.hub import hub
from progrock.consumers.sockets import BEAT_KEY, Member, Outbox
from progrock.errors import DATABASE_AWAY, NO_ANSWER, Refused
from progrock.gate import MAX_REQUEST
from progrock.ledger import Row
from progrock.storable import read_leniently, read_strictly

#: The longest text frame that is read, in bytes. The server itself closes a socket with 1009 when a
#: frame is far longer.
MAX_FRAME = 65_536
#: So many messages of one socket are read at once, and then so many each second.
BURST, RATE = 100, 50
#: So many starts and cancels of one socket are with the database at once.
AT_ONCE = 10
# Close codes; those below 4000 are from the IANA registry.
LOGIN_REQUIRED = 4401
SESSION_ENDED = 4402
NO_AUDIENCE = 4403
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013
#: How the socket of a browser that may not enter closes, by the code of the reason.
CLOSE_CODES = {
    "login_required": LOGIN_REQUIRED,
    "no_audience": NO_AUDIENCE,
    "misconfigured": INTERNAL_ERROR,
}

#: Carries out a start, a cancel or the like, as its message says.
_Act = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class ProgressConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels is untyped
    """One browser's socket: a snapshot, then each change of the jobs that it may see.

    docs/wire.md describes the frames.
    """

    member: Member | None = None  # as the hub knows this socket, once it is accepted
    _read_at = 0.0  # monotonic: when the next message may be read (`_pace`)

    def __init__(self) -> None:
        super().__init__()
        self._room = asyncio.Semaphore(AT_ONCE)

    async def connect(self) -> None:
        """Register the socket under the visitor's audiences, and send the snapshot.

        What changes while the snapshot is read is sent after it, so nothing is missed.
        """
        self.hub = hub()
        outbox = Outbox(self._send_text)
        try:
            entered = await enter(
                self.hub, self.scope, self._receive, outbox=outbox, close=self._end_session
            )
        except Gone:
            raise StopConsumer from None
        except Refused as refused:
            await self._refuse(refused)
        else:
            self.member, cookie = entered.member, entered.cookie
            await self.accept(headers=[(b"set-cookie", cookie.encode("latin-1"))] if cookie else ())
            await outbox.open(entered.snapshot())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Read the messages of one socket, and leave the hub at the end, whatever ends it.

        A send to a browser that has gone raises, and then no disconnect is dispatched.
        Channels' own loop would wait for a channel layer as well, with a task for each message.
        """
        self.scope, self.base_send, self._receive = scope, send, receive
        try:
            while True:
                await self.dispatch(await receive())
        except StopConsumer:
            pass
        finally:
            if self.member is not None:
                leave(self.hub, self.member)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """Call the handler of a message.

        Channels' own `dispatch` calls close_old_connections in the database thread first. That
        would block every frame while the database hangs. `database` closes old connections itself.
        """
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        """The browser has gone."""
        raise StopConsumer

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Read one message. Whatever it is, the answer is a frame and the socket stays open.

        Starts and cancels reach the database in their order, and nothing here waits for it, so that
        a ping has its answer even while the database hangs.
        """
        await self._pace()
        try:
            message = _parse(text_data)
            match message.get("action"):
                case "start":
                    await self._soon(self._start, message)
                case "cancel":
                    await self._soon(self._cancel, message)
                case "again":
                    await self._soon(self._start_again, message)
                case "ping":
                    self._beat()
                case action:
                    known = "start, cancel, again, ping"
                    sentence = f"There is no action {reprlib.repr(action)}; there is: {known}."
                    raise Refused("unknown_action", sentence)
        except Refused as refused:
            await self._send_error(refused.code, refused.message, _request_in(text_data))

    async def _soon(self, act: _Act, message: dict[str, Any]) -> None:
        """Run it as a background task, once fewer than AT_ONCE of this socket are under way."""
        await self._room.acquire()
        self.hub.outgoing.later(self._do(act, message))

    async def _do(self, act: _Act, message: dict[str, Any]) -> None:
        request = _request_of(message)
        try:
            await act(message)
        except Refused as refused:
            await self._send_error(refused.code, refused.message, request)
        except NoAnswer:
            await self._send_error("outcome_unknown", NO_ANSWER, request)
        except AWAY:
            await self._send_error("unavailable", DATABASE_AWAY, request)
        except Exception:  # a mistake of ours, which `later` logs; the client connects again
            await self.close(INTERNAL_ERROR)
            raise
        finally:
            self._room.release()

    async def _pace(self) -> None:
        """Read `RATE` messages a second after a burst.

        The rest waits in the browser and delays no other socket.
        """
        now = time.monotonic()
        self._read_at = max(self._read_at, now - BURST / RATE) + 1 / RATE
        await asyncio.sleep(max(0.0, self._read_at - now))

    async def _start(self, message: dict[str, Any]) -> None:
        assert self.member is not None
        audiences = self.member.audiences
        asked = [message.get(key) for key in ("backend", "params", "request")]
        row, created = await database(doors.start, self.scope, audiences, *asked)
        self._answer(row, changed=created)

    async def _start_again(self, message: dict[str, Any]) -> None:
        assert self.member is not None
        audiences = self.member.audiences
        asked = [message.get(key) for key in ("job", "request")]
        row, created = await database(doors.again, self.scope, audiences, *asked)
        self._answer(row, changed=created)

    async def _cancel(self, message: dict[str, Any]) -> None:
        assert self.member is not None
        audiences, job_id = self.member.audiences, message.get("job")
        row, asked = await database(doors.cancel, audiences, job_id)
        self._answer(row, changed=asked)

    def _beat(self) -> None:
        """Answer a ping, which shows the client that its connection lives."""
        assert self.member is not None
        self.member.outbox.offer(BEAT_KEY, wire.encode(wire.beat_frame()))

    def _answer(self, row: Row, *, changed: bool) -> None:
        """Show the job: to all who may see it when it has changed, else to this socket alone."""
        assert self.member is not None
        if changed:
            self.hub.send(row)
        else:
            self.member.outbox.offer(row.id, wire.encode(wire.job_frame(row)))

    async def _refuse(self, refused: Refused) -> None:
        """Accept the socket, say why, and close it.

        A script that was refused in the handshake would see nothing but 1006.
        """
        await self.accept()
        await self._send_error(refused.code, refused.message)
        await self.close(CLOSE_CODES.get(refused.code, TRY_AGAIN_LATER))

    async def _send_error(self, code: str, sentence: str, request: str | None = None) -> None:
        frame = wire.error_frame(code, sentence, request and request[:MAX_REQUEST])
        await self.send(wire.encode(frame))

    async def _send_text(self, text: str) -> None:
        """Send past the session middleware, which would check at each frame what to save."""
        if send := self.scope.get("progrock.send"):
            await send({"type": "websocket.send", "text": text})
        else:  # a stack of middleware that does not begin with ours
            await self.send(text)

    async def _end_session(self) -> None:
        await self.close(SESSION_ENDED)


def _parse(text: str | None) -> dict[str, Any]:
    """The message in a text frame. Raises Refused."""
    if text is None:
        raise Refused("bad_frame", "Only text frames are read, and this was a binary one.")
    if len(text) > MAX_FRAME or len(text.encode()) > MAX_FRAME:
        sentence = f"A frame may have {MAX_FRAME} bytes; this one had {len(text.encode())}."
        raise Refused("too_large", sentence)
    try:
        message = read_strictly(text.encode())
    except ValueError as error:
        raise Refused("bad_json", f"This is not JSON: {error}.") from None
    if not isinstance(message, dict):
        found = type(message).__name__
        raise Refused("bad_json", f"A message is an object with an action; found {found}.")
    return message


def _request_of(message: Any) -> str | None:
    """The id that a client gave its request, if there is one."""
    request = message.get("request") if isinstance(message, dict) else None
    return request if isinstance(request, str) else None


def _request_in(text: str | None) -> str | None:
    """The id in a text that was refused, if it can be found, so that its client need not guess."""
    if text is None or len(text) > MAX_FRAME:
        return None
    try:
        return _request_of(read_leniently(text))
    except (ValueError, RecursionError):
        return None
