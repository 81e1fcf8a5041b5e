"""The hub of a web process: hands each change of a job to the open sockets of its audience."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

from progrock import clock, conf, dispatch, journal, ledger, wire
from progrock.broker.nowhere import Nowhere
from progrock.broker.publisher import Publisher
from progrock.consumers.admission import Admission, Missed
from progrock.consumers.attention import Attention
from progrock.consumers.database import database
from progrock.consumers.feeds import Feeds
from progrock.consumers.notices import Notices
from progrock.consumers.outgoing import Outgoing
from progrock.consumers.repair import Repair
from progrock.consumers.rewind import Rewind
from progrock.consumers.shutdown import Response, end_with_server
from progrock.consumers.sockets import Audience, Member
from progrock.consumers.watchdog import watch
from progrock.ledger import Row
from progrock.wire import Change

logger = logging.getLogger(__name__)

#: Seconds between two checks whether updates are delayed.
CHECK = 1.0


class Hub:
    """Knows the open sockets, and delivers changes to them. Its duties have files of their own."""

    def __init__(self) -> None:
        self.layer: Any = get_channel_layer(conf.channel_layer())
        self.publisher = (
            Nowhere()
            if conf.in_memory()
            else Publisher(conf.amqp_url(), "web", names=conf.names(), clock=clock.now)
        )
        self._audiences: dict[str, Audience] = {}
        self._members: set[Member] = set()
        self._sessions: Counter[str] = Counter()  # open sockets by the session's lasting name
        self._duties: list[asyncio.Task[None]] = []
        #: Streams of events, and other answers that take long. They end when the server stops.
        self.responses: set[Response] = set()
        self.admission = Admission()
        self.missed = Missed()
        self.feeds = Feeds(
            self.layer, {"job.changed": self.job_changed, "session.ended": self.session_ended}
        )
        self.notices = Notices(self._members)
        self.outgoing = Outgoing(self.publisher, self.layer)
        self.attention = Attention(self._audiences, self.outgoing.send)
        self.rewind = Rewind(self._audiences, self.show_anew)
        self.repair = Repair(self._audiences, self.deliver, self.rewind)

    def start(self) -> None:
        """Begin all that this web process does in the background."""
        self.publisher.start()
        duties = [
            self.feeds.run(),  # hands on what workers and other web processes push
            self._watch(),  # tells sockets of outages, and joins missing feeds
            self.outgoing.run(),  # publishes again what could not be published
            self.attention.run(),  # tells workers which audiences have open sockets here
            end_with_server(self.responses, self.outgoing.later),  # ends streams, waiting requests
            self.notices.beat(),  # shows scripts that their socket lives
            watch(),  # names in the log what holds the event loop
        ]
        if not conf.in_memory():  # else it is a test with one process, and no push is lost
            duties.append(self.repair.run())  # finds changes whose push was lost
        self._duties = [asyncio.create_task(duty) for duty in duties]
        self.outgoing.later(self.feeds.read_installation())

    async def _watch(self) -> None:
        """Each second, tell of an outage that began or ended, and join missing feeds."""
        while True:
            await asyncio.sleep(CHECK)
            try:
                self.notices.show(self._trouble())
                if await self.feeds.rejoin(self._audiences):
                    self.repair.soon()  # it finds what was pushed between the two connections
            except Exception:  # the loop must go on, else no socket is told of an outage
                logger.exception("the watch for outages failed, and goes on")

    def _trouble(self) -> str | None:
        """Why updates are delayed, as a key of `wire.DELAYED`; None if they are not."""
        if database.away:
            return "ledger"
        if not self.feeds.live:
            return "rabbitmq"
        return "work" if self.repair.late else None

    # The open sockets

    def sockets(self, session: str) -> int:
        """How many sockets of a session, by its lasting name, are open in this process."""
        return self._sessions[session]

    def register(self, member: Member) -> None:
        """From now on, offer this socket the changes of its audiences."""
        self._members.add(member)
        self._sessions.update(member.sessions[:1])
        for name in member.audiences:
            self._audiences.setdefault(name, Audience()).members.add(member)
        self.attention.watch(member.audiences)
        self.notices.welcome(member)

    def unregister(self, member: Member) -> None:
        """Forget a socket."""
        self._members.discard(member)
        for name in member.sessions[:1]:
            self._sessions[name] -= 1
            if not self._sessions[name]:
                del self._sessions[name]
        for name in member.audiences:
            if (audience := self._audiences.get(name)) is not None:
                audience.members.discard(member)
                if not audience.members:
                    del self._audiences[name]

    # Delivery

    def deliver(self, changes: Iterable[Change]) -> None:
        """Offer each change to the sockets of its audience, if it is news to them."""
        for change in changes:
            self.missed.note(change)
            name, job_id, version, ended, frame = change
            audience = self._audiences.get(name)
            if audience is not None and audience.is_news(job_id, version, ended):
                for member in audience.members:
                    member.outbox.offer(job_id, frame)

    def send(self, row: Row) -> None:
        """After a start or a cancel: show the job here, and send what follows to RabbitMQ.

        Returns at once. `dispatch.asked` decides what is sent.
        """
        journal.asked(row)
        outbound = dispatch.after([dispatch.asked(row)], conf.backends())
        for changes in outbound.feeds.values():
            self.deliver(changes)
        self.outgoing.send(outbound)

    def enter(self, member: Member, rows: Iterable[Row], missed: Iterable[Change]) -> None:
        """Register a socket whose snapshot has these rows.

        `missed` are changes that came while the snapshot was read. It gets them after the snapshot.
        """
        self.register(member)
        self.snapshot_shown(member, rows)
        shown = {row.id: row.version for row in rows}
        for name, job_id, version, ended, frame in missed:
            if name in member.audiences and version > shown.get(job_id, 0):
                shown[job_id] = version
                self._audiences[name].is_news(job_id, version, ended)
                member.outbox.offer(job_id, frame)

    def snapshot_shown(self, member: Member, rows: Iterable[Row]) -> None:
        """Note what a socket's snapshot shows. Others of its audience get what is news to them."""
        for row in rows:
            audience = self._audiences.get(row.audience)
            if audience is None:
                continue
            if audience.is_news(row.id, row.version, not row.active):
                for other in audience.members - {member}:
                    other.outbox.offer(row.id, wire.encode(wire.job_frame(row)))
            elif row.version < audience.shown(row.id):
                self.rewind.soon()

    async def show_anew(self, names: Collection[str]) -> None:
        """Send a new snapshot to the sockets of these audiences, one after the other."""
        found = [self._audiences[name] for name in names if name in self._audiences]
        for audience in found:
            audience.forget()
        for member in {member for audience in found for member in audience.members}:
            rows = await database(ledger.snapshot, member.audiences)
            if member in self._members:
                self.snapshot_shown(member, rows)
                frame = wire.snapshot_frame(rows, conf.backends())
                member.outbox.restart(wire.encode(frame))
                self.notices.welcome(member)

    # What arrives on the channel. A handler has its event's name, as in Channels.

    async def job_changed(self, message: dict[str, Any]) -> None:
        """Deliver the changes that were pushed."""
        for change in message["changes"]:
            self.deliver([change])
            await asyncio.sleep(0)  # its frames leave now, and not after all the others

    async def session_ended(self, message: dict[str, Any]) -> None:
        """Close the sockets of a session that has ended, whatever its key was when they opened."""
        ended = set(message["sessions"])
        lasting = {
            each.sessions[0] for each in self._members if not ended.isdisjoint(each.sessions)
        }
        for member in self._members:
            if member.sessions and member.sessions[0] in lasting:
                self.outgoing.later(member.close())


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """The hub of this process (of this event loop). The first socket starts it."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        # Keep the garbage collector from looking through all that was imported again and again,
        # because that would delay every socket.
        if not conf.in_memory():  # in a test each loop has a hub, and its memory must come back
            gc.freeze()
        _hubs[loop] = Hub()
        _hubs[loop].start()
    return _hubs[loop]
