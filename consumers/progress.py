"""ProgressConsumer: a browser's socket on `/prog/`, which starts and cancels jobs and shows them."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from http.cookies import SimpleCookie
from types import SimpleNamespace
from typing import Any

import orjson
from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user

from progrock import api, conf, ledger, wire
from progrock.audiences import audiences_of, make_visitor, session_mark
from progrock.consumers.database import AWAY, database
from progrock.consumers.hub import hub
from progrock.consumers.sockets import Member, Outbox
from progrock.errors import Refused
from progrock.ledger import Row
from progrock.models import State

#: The longest text frame that is read, in bytes; the server itself closes sockets far above it with 1009.
MAX_FRAME = 65_536
#: Messages of one socket that are read at once, and then each second.
BURST, RATE = 100, 50
LOGIN_REQUIRED = 4401
SESSION_ENDED = 4402
TRY_AGAIN_LATER = 1013
DATABASE_AWAY = "The database is away; try again in a moment."


class ProgressConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # Channels is untyped
    """One browser's socket: a snapshot, then each change of the jobs that it may see (docs/wire.md)."""

    channel_layer_alias = None  # the hub has one channel for all sockets of the process

    member: Member | None = None
    _read = 0.0

    async def connect(self) -> None:
        """Register under the visitor's audiences, then send the snapshot, then what changed meanwhile."""
        try:
            audiences, cookie = await database(_identify, self.scope)
        except AWAY:
            await self._refuse(TRY_AGAIN_LATER, "unavailable", DATABASE_AWAY)
            return
        if not audiences:
            await self._refuse(
                LOGIN_REQUIRED, "login_required", "Sign in to run jobs and to see yours."
            )
            return
        self.hub = hub()
        key = self.scope["session"].session_key
        session = (
            session_mark(key) if key else ""
        )  # none: a project's own audiences may need no session
        if session and self.hub.sockets(session) >= conf.max_sockets():
            await self._refuse(
                TRY_AGAIN_LATER, "too_many_sockets", "Too many pages of yours are open; close some."
            )
            return
        await self.accept(headers=[(b"set-cookie", cookie.encode("latin-1"))] if cookie else None)
        self.member = Member(audiences, session, Outbox(self._send_frame), self._end_session)
        self.hub.register(self.member)
        await self.hub.join(self.member)
        try:
            rows = await database(ledger.snapshot, audiences)
        except AWAY:
            await self.close(TRY_AGAIN_LATER)
            return
        self.hub.saw(self.member, rows)
        await self.member.outbox.open(wire.encode(wire.snapshot_frame(rows, conf.backends())))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Leave the hub at the end, whatever ends it: a send to a browser that has gone raises, and no disconnect is dispatched."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self.member is not None:
                self.member.outbox.close()
                self.hub.unregister(self.member)

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As Channels does, but never behind a silent database: `database` closes old connections, in its own time."""
        await getattr(self, get_handler_name(message))(message)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        """The end."""
        raise StopConsumer

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """One message of the browser. Whatever it is, the answer is a frame, and the socket stays open."""
        await self._pace()
        request = None
        try:
            message = _parse(text_data)
            request = message["request"] if isinstance(message.get("request"), str) else None
            match message.get("action"):
                case "start":
                    await self._start(message)
                case "cancel":
                    await self._cancel(message)
                case action:
                    raise Refused(
                        "unknown_action",
                        f"There is no action {str(action)[:40]!r}; there is: start, cancel.",
                    )
        except Refused as refused:
            await self.send(
                wire.encode(
                    wire.error_frame(refused.code, refused.message, request and request[:100])
                )
            )
        except AWAY:
            await self.send(
                wire.encode(
                    wire.error_frame("unavailable", DATABASE_AWAY, request and request[:100])
                )
            )

    async def _pace(self) -> None:
        """Read `RATE` messages a second after a burst; the rest waits in the browser, and nobody else behind it."""
        now = time.monotonic()
        self._read = max(self._read, now - BURST / RATE) + 1 / RATE
        await asyncio.sleep(max(0.0, self._read - now))

    async def _start(self, message: dict[str, Any]) -> None:
        assert self.member is not None
        backend = message.get("backend") or next(iter(conf.backends()))
        row, created = await database(
            _create,
            self.member.audiences[0],
            backend,
            message.get("params"),
            message.get("request"),
        )
        if created:
            self.hub.later(self.hub.publish(row), self.hub.show(row))
        else:
            self.member.outbox.offer(row.id, wire.encode(wire.job_frame(row)))

    async def _cancel(self, message: dict[str, Any]) -> None:
        assert self.member is not None
        row, asked = await database(_request_cancel, self.member.audiences, message.get("job"))
        if asked:
            self.hub.later(
                self.hub.show(row), *([self.hub.publish(row)] if row.state == State.RUNNING else [])
            )
        else:
            self.member.outbox.offer(row.id, wire.encode(wire.job_frame(row)))

    async def _refuse(self, close: int, code: str, sentence: str) -> None:
        """Accept, tell, and close: a script sees nothing of a refused handshake but 1006."""
        await self.accept()
        await self.send(wire.encode(wire.error_frame(code, sentence)))
        await self.close(close)

    async def _send_frame(self, text: str) -> None:
        """Send past the session's middleware, which asks at each frame whether there is a session to save."""
        if send := self.scope.get("progrock.send"):
            await send({"type": "websocket.send", "text": text})
        else:  # under a stack that did not begin with ours
            await self.send(text)

    async def _end_session(self) -> None:
        await self.close(SESSION_ENDED)


def _parse(text: str | None) -> dict[str, Any]:
    """The message in a text frame. Raises Refused."""
    if text is None:
        raise Refused("bad_frame", "Only text frames are read, and this was a binary one.")
    if len(text) > MAX_FRAME or len(text.encode()) > MAX_FRAME:
        raise Refused(
            "too_large", f"A frame may have {MAX_FRAME} bytes; this one had {len(text.encode())}."
        )
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Refused("bad_json", f"This is not JSON: {error}.") from None
    if not isinstance(message, dict):
        raise Refused(
            "bad_json", f"A message is an object with an action; found {type(message).__name__}."
        )
    return message


def _identify(scope: dict[str, Any]) -> tuple[list[str], str | None]:
    """The audiences of a handshake, and the cookie to set where its session is new."""
    session = scope["session"]
    if "user" not in scope:  # a project's own middleware may have set one
        scope["user"] = get_user(SimpleNamespace(session=session))  # type: ignore[arg-type]  # it reads nothing else
    cookie = None
    if conf.anonymous() and make_visitor(session):
        session.save()
        morsel = SimpleCookie({settings.SESSION_COOKIE_NAME: session.session_key})[
            settings.SESSION_COOKIE_NAME
        ]
        morsel["path"] = settings.SESSION_COOKIE_PATH
        morsel["domain"] = settings.SESSION_COOKIE_DOMAIN or ""
        morsel["secure"] = settings.SESSION_COOKIE_SECURE
        morsel["httponly"] = settings.SESSION_COOKIE_HTTPONLY
        morsel["samesite"] = settings.SESSION_COOKIE_SAMESITE or ""
        if not session.get_expire_at_browser_close():
            morsel["max-age"] = session.get_expiry_age()
        cookie = morsel.OutputString()
    return audiences_of(scope), cookie


def _create(audience: str, backend: Any, params: Any, request: Any) -> tuple[Row, bool]:
    job, created = api.create(audience, backend, params, request)
    key = str(job.pk)
    return ledger.load([key], results=True)[key], created


def _request_cancel(audiences: Sequence[str], job: Any) -> tuple[Row, bool]:
    """Ask for a cancellation in the name of these audiences: the job, and whether this asked first. Raises Refused."""
    try:
        key = str(uuid.UUID(job))
        row = ledger.load([key], results=True)[key]
    except (ValueError, TypeError, AttributeError, KeyError):
        row = None
    if row is None or row.audience not in audiences:
        raise Refused("unknown_job", "There is no such job, or it is not yours.")
    asked = ledger.request_cancel(row.id, time.time())
    return asked or row, asked is not None
