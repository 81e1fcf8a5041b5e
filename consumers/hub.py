"""The hub of a web process: one channel for the whole process, from which each change goes to the sockets of its audience."""

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from channels.layers import get_channel_layer

from progrock import conf, ledger, wire
from progrock.audiences import SESSIONS, feed_of
from progrock.broker.errors import BrokerError
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task, shard_of
from progrock.consumers.database import AWAY, database
from progrock.consumers.sockets import Audience, Member
from progrock.ledger import Row

logger = logging.getLogger(__name__)

BEAT = 20.0
REPAIR = 5.0
MOST_UNPUBLISHED = 1000
#: How far each repair looks back beyond the one before: longer than a commit takes.
OVERLAP = 10.0
#: A job that is overdue by more waits for workers that have too much to do.
LATE = 10.0


class Hub:
    """Delivers changes to sockets, repairs what was lost on the way, and tells when updates are delayed."""

    def __init__(self) -> None:
        self.layer: Any = get_channel_layer()
        self.publisher = Publisher(conf.amqp_url(), "web")
        self._channel: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._audiences: dict[str, Audience] = {}
        self._members: set[Member] = set()
        self._sessions: Counter[str] = Counter()
        self._unpublished: dict[str, Row] = {}
        self._publishing: asyncio.Task[None] | None = None
        self._later: set[asyncio.Task[None]] = set()
        self._groups: dict[str, asyncio.Task[None]] = {}
        self._epoch = 0
        self._lost = asyncio.Event()
        self._late = False
        self._trouble: str | None = None
        self._repaired = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to receive, repair and beat; once a process."""
        if not self._tasks:
            gc.freeze()  # all that was imported: to look through it again and again would hold every socket up
            self.publisher.start()
            self._tasks = [
                asyncio.create_task(work())
                for work in (self._receive, self._watch, self._repair, self._beat)
            ]

    # Sockets

    def sockets(self, session: str) -> int:
        """How many sockets of a session are open in this process."""
        return self._sessions[session]

    def register(self, member: Member) -> None:
        """Let a socket have the changes of its audiences from now on."""
        self._members.add(member)
        self._sessions[member.session] += 1
        for audience in member.audiences:
            self._audiences.setdefault(audience, Audience()).members.add(member)
        if self._trouble:
            member.outbox.offer("status", wire.encode(wire.status_frame(self._trouble)))

    async def join(self, member: Member) -> None:
        """Be in the groups that the socket's audiences need; while RabbitMQ is away, `_watch` does it later."""
        if self._trouble != "rabbitmq":
            await asyncio.gather(
                *map(self._join, {feed_of(audience) for audience in member.audiences})
            )

    def unregister(self, member: Member) -> None:
        """Forget a socket."""
        self._members.discard(member)
        self._sessions[member.session] -= 1
        if not self._sessions[member.session]:
            del self._sessions[member.session]
        for name in member.audiences:
            if (audience := self._audiences.get(name)) is not None:
                audience.members.discard(member)
                if not audience.members:
                    del self._audiences[name]

    def saw(self, member: Member, rows: Iterable[Row]) -> None:
        """Note what a socket's snapshot shows; what is news, the audience's other sockets get as well."""
        for row in rows:
            audience = self._audiences.get(row.audience)
            if audience is not None and audience.fresh(row.id, row.version, not row.active):
                for other in audience.members - {member}:
                    other.outbox.offer(row.id, wire.encode(wire.job_frame(row)))

    # Jobs

    async def publish(self, row: Row) -> None:
        """Publish the job's present task, due now; where that fails, again each second, and at last a worker's sweep does it."""
        if (options := conf.backends().get(row.backend)) is None:
            return  # no longer configured: there is no queue, and a worker's sweep ends the job
        task = Task(job_id=row.id, turn=row.turn, due=row.due_at)
        try:
            await self.publisher.publish(
                row.backend, shard_of(row.id, options.shards), [task], delay=0.0
            )
        except BrokerError as error:
            if not self._unpublished:
                logger.warning(
                    "jobs are kept in the ledger while their tasks cannot be published: %s", error
                )
            if len(self._unpublished) < MOST_UNPUBLISHED:
                self._unpublished[row.id] = row

    def later(self, *work: Coroutine[Any, Any, None]) -> None:
        """Do it beside whatever goes on: no socket waits for RabbitMQ."""
        for each in work:
            task = asyncio.create_task(each)
            self._later.add(task)
            task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._later.discard(task)
        if (
            not task.cancelled()
            and (error := task.exception())
            and not isinstance(error, OSError | RuntimeError)
        ):
            logger.error(
                "what was left for later failed", exc_info=error
            )  # but for sockets that have gone

    async def _publish_again(self) -> None:
        """What could not be published, when RabbitMQ is back; twice does no harm, the second is stale."""
        rows = list(self._unpublished.values())
        self._unpublished.clear()
        await asyncio.gather(*map(self.publish, rows))

    async def show(self, row: Row) -> None:
        """Show a job to its audience, here and in the other web processes."""
        change = wire.change_of(row)
        self._deliver([change])
        await self.layer.group_send(
            feed_of(row.audience), {"type": "job.changed", "changes": [change]}
        )

    # What arrives on the channel: the handler's name is the event's

    async def job_changed(self, message: dict[str, Any]) -> None:
        """Hand each change to the sockets of its audience."""
        for change in message["changes"]:
            self._deliver([change])
            await asyncio.sleep(0)  # its frames leave now, and not with those of all the others

    async def session_ended(self, message: dict[str, Any]) -> None:
        """Close the sockets of a session that logged out."""
        self.later(
            *(member.close() for member in self._members if member.session == message["session"])
        )

    def _deliver(self, changes: Iterable[Sequence[Any]]) -> None:
        for name, job, version, ended, frame in changes:
            audience = self._audiences.get(name)
            if audience is not None and audience.fresh(job, version, ended):
                for member in audience.members:
                    member.outbox.offer(job, frame)

    # The loops

    async def _receive(self) -> None:
        channel = await self.layer.new_channel()
        self._channel.set_result(channel)
        await self._join(SESSIONS)
        while True:
            message = await self.layer.receive(channel)
            try:
                await {"job.changed": self.job_changed, "session.ended": self.session_ended}[
                    message["type"]
                ](message)
            except Exception:  # the loop lives on whatever another release sends
                logger.exception("a message on the feed could not be handled: %.200r", message)

    async def _join(self, group: str) -> None:
        """Join a group; whoever comes meanwhile waits as well. The layer keeps it over its own reconnects."""
        if group not in self._groups:
            self._groups[group] = asyncio.create_task(self._bind(group))
        await asyncio.shield(self._groups[group])

    async def _bind(self, group: str) -> None:
        """Wait a little for a connection, then leave it to `_watch`."""
        try:
            async with asyncio.timeout(2):
                await self.layer.group_add(group, await asyncio.shield(self._channel))
        except Exception as error:
            del self._groups[group]
            if not isinstance(error, TimeoutError):
                logger.exception("the group %s could not be joined", group)

    async def _watch(self) -> None:
        """Each second see to what an outage left undone, and tell the sockets when one begins or ends."""
        while True:
            await asyncio.sleep(1)
            try:
                self._tell()
                await self._recover()
            except Exception:  # the loop lives on: without it nobody is told anything
                logger.exception("the watch failed")

    def _tell(self) -> None:
        trouble = "work" if self._late else None
        if not self.layer.connected or getattr(self.layer, "stalled", False):
            trouble = "rabbitmq"
        if database.away:
            trouble = "ledger"
        if trouble != self._trouble:
            self._trouble = trouble
            frame = wire.encode(wire.status_frame(trouble))
            for member in self._members:
                member.outbox.offer("status", frame)

    async def _recover(self) -> None:
        if (
            self._unpublished
            and self.publisher.connected
            and (self._publishing is None or self._publishing.done())
        ):
            self._publishing = asyncio.create_task(self._publish_again())
        if self.layer.connected:
            epoch = self.layer.epoch
            await asyncio.gather(*map(self._join, {*map(feed_of, self._audiences), SESSIONS}))
            if epoch != self._epoch:  # what was pushed between two connections is lost
                self._epoch = epoch
                self._lost.set()

    async def _repair(self) -> None:
        """Look in the ledger for changes whose push did not arrive: one query for all sockets of the process."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(REPAIR):
                    await self._lost.wait()
            self._lost.clear()
            try:
                await self._repair_once()
            except AWAY:
                continue  # that was said, and `_watch` tells the sockets
            except Exception:  # the loop lives on: without it a lost push stays lost
                logger.exception("the repair failed")

    async def _repair_once(self) -> None:
        begun = time.monotonic()
        names = list(self._audiences)
        self._late = bool(names) and await database(ledger.late, names, list(conf.backends()), LATE)
        if names:
            changed = await database(ledger.changed_since, names, begun - self._repaired + OVERLAP)
            lost = [
                job
                for job, (name, version) in changed.items()
                if name in self._audiences and version > self._audiences[name].versions.get(job, 0)
            ]
            if lost:
                rows = await database(ledger.load, lost, results=True)
                self._deliver([wire.change_of(row) for row in rows.values()])
            for audience in self._audiences.values():
                for job in audience.ended - changed.keys():
                    audience.ended.discard(job)
                    audience.versions.pop(job, None)
        self._repaired = begun

    async def _beat(self) -> None:
        """Scripts never see protocol pings, so a frame shows them that the socket lives."""
        while True:
            await asyncio.sleep(BEAT)
            for n, member in enumerate(list(self._members)):
                member.outbox.offer("beat", '{"type":"beat"}')
                if n % 200 == 199:
                    await asyncio.sleep(0)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """The hub of this process (of this event loop), started at the first socket."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
        _hubs[loop].start()
    return _hubs[loop]
