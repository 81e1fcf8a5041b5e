"""The hub of a web process: hands each change of a job to the open sockets of the job's audience.

All sockets of the process share one channel of the channel layer, and this hub reads it.
"""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

from progrock import clock, conf, dispatch, installation, journal, ledger, wire
from progrock.audiences import feed_of
from progrock.broker.nowhere import Nowhere
from progrock.broker.publisher import Publisher
from progrock.consumers.admission import Admission, Missed
from progrock.consumers.attention import Attention
from progrock.consumers.database import AWAY, database
from progrock.consumers.groups import Groups
from progrock.consumers.outgoing import Outgoing
from progrock.consumers.repair import Repair
from progrock.consumers.rewind import Rewind
from progrock.consumers.shutdown import Response, end_with_server
from progrock.consumers.sockets import BEAT_KEY, STATUS_KEY, Audience, Member
from progrock.consumers.watchdog import watch
from progrock.ledger import Row
from progrock.sessions import SESSIONS
from progrock.wire import Change

logger = logging.getLogger(__name__)

#: Seconds between two beats.
BEAT = 20.0


class Hub:
    """Knows the open sockets, delivers changes to them, and tells them when updates are delayed."""

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
        self._epoch = 0  # of the layer's connection; pushes may be lost between two of them
        self._ignores = False  # whether it was logged that another installation's pushes arrive
        self._trouble: str | None = None  # a key of wire.DELAYED
        self._duties: list[asyncio.Task[None]] = []
        #: Streams of events, and other answers that take long. They end when the server stops.
        self.responses: set[Response] = set()
        self.admission = Admission()
        self.missed = Missed()
        self.groups = Groups(self.layer)
        self.outgoing = Outgoing(self.publisher, self.layer)
        self.attention = Attention(self._audiences, self.outgoing.send)
        self.rewind = Rewind(self._audiences, self.show_anew)
        self.repair = Repair(self._audiences, self.deliver, self.rewind)

    def start(self) -> None:
        """Begin all that this web process does in the background."""
        self.publisher.start()
        duties = [
            self._receive(),  # delivers what workers and other web processes push
            self._watch(),  # tells sockets of outages, and joins missing feeds
            self.outgoing.run(),  # publishes again what could not be published
            self.attention.run(),  # tells workers which audiences have open sockets here
            end_with_server(self.responses, self.outgoing.later),  # ends streams, waiting requests
            self._beat(),  # shows scripts that their socket lives
            watch(),  # names in the log what holds the event loop
        ]
        if not conf.in_memory():  # a test: it has one process, and no push is lost
            duties.append(self.repair.run())  # finds changes whose push was lost
        self._duties = [asyncio.create_task(duty) for duty in duties]

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
        self._offer_status(member)

    def _offer_status(self, member: Member) -> None:
        if self._trouble:
            member.outbox.offer(STATUS_KEY, wire.encode(wire.status_frame(self._trouble)))

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
                self._offer_status(member)

    # What arrives on the channel. A handler has its event's name, as in Channels.

    async def _receive(self) -> None:
        channel = await self.groups.open_channel()
        self.outgoing.later(self._read_installation())
        await self.groups.join([SESSIONS])
        handlers = {"job.changed": self.job_changed, "session.ended": self.session_ended}
        while True:
            try:
                message = await self.layer.receive(channel)
            except Exception:  # the loop must go on, else no socket gets a change
                logger.exception("the channel layer could not be read, and is tried again")
                await asyncio.sleep(1)
                continue
            try:
                if reason := conf.names().why_not_ours(message):
                    self._ignore(reason)
                else:
                    await handlers[message["type"]](message)
            except Exception:  # the loop must go on, whatever another release sends
                logger.exception("a message on the feed could not be handled: %.200r", message)

    async def _read_installation(self) -> None:
        """Read the id of this installation, by which pushes of other installations are known."""
        while True:
            try:
                await database(installation.read)
            except AWAY:
                await asyncio.sleep(1)
            else:
                return

    def _ignore(self, reason: str) -> None:
        if not self._ignores:
            logger.error(
                "pushes on the channel layer are ignored: %s; give each installation a virtual"
                " host or a PROGROCK_PREFIX of its own",
                reason,
            )
        self._ignores = True

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

    # The feeds, which are groups of the channel layer

    def joined(self, member: Member) -> bool:
        """Whether changes for the socket's audiences arrive here."""
        return self.groups.joined({feed_of(name) for name in member.audiences})

    async def join(self, member: Member) -> None:
        """Join the feeds of the socket's audiences. What fails is tried again by `_watch`."""
        if self._trouble != "rabbitmq":
            await self.groups.join({feed_of(name) for name in member.audiences})

    # Outages

    async def _watch(self) -> None:
        """Each second, tell of an outage that began or ended, and join missing feeds."""
        while True:
            await asyncio.sleep(1)
            try:
                self._show_trouble()
                await self._rejoin()
            except Exception:  # the loop must go on, else no socket is told of an outage
                logger.exception("the watch for outages failed, and goes on")

    def _show_trouble(self) -> None:
        """Tell the sockets why updates are delayed, if that has changed."""
        trouble = "work" if self.repair.late else None
        # other layers, such as the one in memory for tests, have neither attribute
        if not getattr(self.layer, "connected", True) or getattr(self.layer, "stalled", False):
            trouble = "rabbitmq"
        if database.away:
            trouble = "ledger"
        if trouble != self._trouble:
            self._trouble = trouble
            frame = wire.encode(wire.status_frame(trouble))
            for member in self._members:
                member.outbox.offer(STATUS_KEY, frame)

    async def _rejoin(self) -> None:
        """Join missing feeds. After a new connection, search for the changes lost meanwhile."""
        if getattr(self.layer, "connected", True):
            epoch = getattr(self.layer, "epoch", self._epoch)
            await self.groups.join({*map(feed_of, self._audiences), SESSIONS})
            if epoch != self._epoch:
                self._epoch = epoch
                self.repair.soon()

    async def _beat(self) -> None:
        """Send beats, because scripts never see the pings of the protocol."""
        while True:
            await asyncio.sleep(BEAT)
            frame = wire.encode(wire.beat_frame())
            for n, member in enumerate(list(self._members)):
                member.outbox.offer(BEAT_KEY, frame)
                if n % 200 == 199:
                    await asyncio.sleep(0)


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
