"""How a browser enters, over a socket or a stream: who it is, its place in the hub, its jobs."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from progrock import conf, ledger, wire
from progrock.audiences import identify, known_audiences, not_admitted
from progrock.consumers.admission import Crowded
from progrock.consumers.database import AWAY, database
from progrock.consumers.hub import Hub
from progrock.consumers.sockets import Member, Outbox
from progrock.errors import CANNOT_TELL_WHO, DATABASE_AWAY, Refused
from progrock.ledger import Row
from progrock.own_code import own_code


@dataclass(frozen=True, kw_only=True)
class Entered:
    """A browser that has entered. Its member of the hub must be given to `leave` at the end.

    `cookie` is the value of the Set-Cookie header of a new visitor. `rows` are for the snapshot.
    """

    member: Member
    cookie: str | None
    rows: list[Row]

    def snapshot(self) -> str:
        """The text of the first frame."""
        return wire.encode(wire.snapshot_frame(self.rows, conf.backends()))


async def enter(
    hub: Hub,
    scope: dict[str, Any],
    receive: Callable[[], Coroutine[Any, Any, Any]],
    *,
    outbox: Outbox,
    close: Callable[[], Coroutine[Any, Any, None]],
    quietly: bool = False,
) -> Entered:
    """Register a browser under its audiences, and read its snapshot.

    What changes while the snapshot is read goes into the outbox, so nothing is missed. `scope` has
    a session. `receive` gives nothing but the news that the browser has left. `close` is called
    when the session has ended. `quietly`: read no snapshot, and give no new visitor an id.

    Raises Gone for a browser that has left while it waited for its place, and Refused with the
    code `login_required`, `no_audience`, `too_many_sockets`, `busy`, `unavailable` or
    `misconfigured`.
    """
    try:
        async with hub.admission.place(receive):
            return await _enter(hub, scope, outbox, close, quietly)
    except Crowded:
        raise Refused("busy", "Too many visitors come at once; try again in a moment.") from None
    except AWAY:
        raise Refused("unavailable", DATABASE_AWAY) from None


async def _enter(
    hub: Hub,
    scope: dict[str, Any],
    outbox: Outbox,
    close: Callable[[], Coroutine[Any, Any, None]],
    quietly: bool,
) -> Entered:
    with hub.missed.reading() as reader:
        audiences, cookie, rows = await database(_recognize if quietly else _identify, scope)
        # A project's own audiences may need no session. Then the session has no names.
        sessions = scope["progrock.sessions"]
        if sessions and hub.sockets(sessions[0]) >= conf.max_sockets():
            raise Refused("too_many_sockets", "Too many pages of yours are open; close some.")
        member = Member(audiences, sessions, outbox, close)
        hub.enter(member, rows, hub.missed.since(reader))
    try:
        if not hub.feeds.joined(audiences):  # until now their changes did not arrive
            await hub.feeds.join(audiences)
            if not quietly:
                rows = await database(ledger.snapshot, audiences)
                hub.snapshot_shown(member, rows)
    except BaseException:
        leave(hub, member)
        raise
    return Entered(member=member, cookie=cookie, rows=rows)


def _identify(scope: dict[str, Any]) -> tuple[list[str], str | None, list[Row]]:
    """A browser's audiences, its cookie, and the jobs of these audiences, in one call.

    Raises Refused if there are no audiences, or if PROGROCK_AUDIENCES failed, so that nobody can
    say who the visitor is.
    """
    with own_code("PROGROCK_AUDIENCES", CANNOT_TELL_WHO):
        audiences, cookie = identify(scope)
    if not audiences:
        raise not_admitted(scope.get("user"))
    return audiences, cookie, ledger.snapshot(audiences)


def _recognize(scope: dict[str, Any]) -> tuple[list[str], None, list[Row]]:
    """A browser's audiences, and nothing else. Raises Refused as `_identify` does."""
    with own_code("PROGROCK_AUDIENCES", CANNOT_TELL_WHO):
        audiences = known_audiences(scope)
    if not audiences:
        raise not_admitted(scope.get("user"))
    return audiences, None, []


def leave(hub: Hub, member: Member) -> None:
    """Send nothing more to a browser, and forget it."""
    member.outbox.close()
    hub.unregister(member)
