"""The Poller: a worker process, which consumes poll queues until it is stopped."""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from channels.layers import get_channel_layer

from progrock import clock, conf, installation, journal, ledger
from progrock.backends import Options, build
from progrock.broker.due import Due, DueTasks
from progrock.broker.errors import BrokerError
from progrock.broker.publisher import Publisher
from progrock.broker.subscriber import Subscriber
from progrock.broker.tasks import MAX_TASKS
from progrock.broker.topology import Topology
from progrock.consumers.lateness import Lateness
from progrock.consumers.receivers import Receivers
from progrock.consumers.retention import Retention
from progrock.consumers.rounds import Rounds
from progrock.consumers.sweeper import Sweeper
from progrock.consumers.watchdog import watch
from progrock.consumers.worker_database import WorkerDatabase
from progrock.ledger import Row

logger = logging.getLogger(__name__)

#: So many rounds of one queue may be under way at once: while one waits, others go on.
ROUNDS = 8
#: Seconds that rounds under way get to finish when the process is told to stop.
FINISH = 30.0
#: Seconds that each backend then gets to tell the ends of its jobs. The ledger remembers the rest.
TELL = 2.0


class Poller:
    """Consumes the poll queues (backend, shard). `backends` has the options by the backend's name.

    `declare` is the topology to make on connecting, or None if the user may not configure anything.
    """

    def __init__(
        self,
        queues: Sequence[tuple[str, int]],
        backends: Mapping[str, Options],
        *,
        declare: Topology | None,
    ) -> None:
        url, name = conf.amqp_url(), f"runworker {_title(queues)}"
        names = [conf.names().poll_queue(backend, shard) for backend, shard in queues]
        served = {backend: backends[backend] for backend, _ in queues}
        self.queues = queues
        self.database = WorkerDatabase()
        self.layer: Any = get_channel_layer(conf.channel_layer())
        self.receivers = Receivers()
        self.publisher = Publisher(url, name, names=conf.names(), clock=clock.now)
        self.due = DueTasks(self.publisher, clock=clock.now)
        self.subscriber = Subscriber(
            url, name, names, self.publisher, self.due.add, declare=declare, clock=clock.now
        )
        self.rounds = {backend: self._rounds(options) for backend, options in served.items()}
        self.sweeper = Sweeper(
            queues,
            served,
            database=self.database,
            publisher=self.publisher,
            watermark=self.subscriber.watermark,
            tell_ended=self.tell_ended,
        )
        self.retention = Retention()
        self.lateness = Lateness()
        self._stopping = asyncio.Event()
        self._under_way: set[asyncio.Task[None]] = set()

    def _rounds(self, options: Options) -> Rounds:
        return Rounds(
            build(options),
            options,
            database=self.database,
            publisher=self.publisher,
            layer=self.layer,
            receivers=self.receivers,
            draw=random.random,
        )

    def stop(self) -> None:
        """Take no more deliveries; `run` returns when the rounds under way are finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called. Raises what a duty raises.

        At the end, finish the rounds under way, and leave what was not begun to other workers.
        """
        self.publisher.start()
        stopping = asyncio.create_task(self._stopping.wait())
        consuming = asyncio.create_task(self._consume())
        duties = [
            asyncio.create_task(duty)
            for duty in (
                *(self._serve(backend, shard) for backend, shard in self.queues),  # runs rounds
                self.sweeper.run(),  # brings back jobs whose task was lost
                self.retention.run(),  # deletes jobs that ended long ago
                self.lateness.report(),  # logs how late tasks are
                watch(),  # names in the log what holds the event loop
            )
        ]
        try:
            ended, _ = await asyncio.wait(
                [stopping, consuming, *duties], return_when=asyncio.FIRST_COMPLETED
            )
            for task in ended - {stopping}:
                task.result()  # a duty that ends by itself ended by an error
            await self.subscriber.stop_delivering()
        finally:
            await _cancel(stopping, *duties)
            await self._finish()
            await self.subscriber.close()
            await _cancel(consuming)  # perhaps it still waits for the database
            await self._close()

    async def _finish(self) -> None:
        """Finish the rounds under way, and send what they have left to send."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=FINISH)
        for rounds in self.rounds.values():
            await rounds.commits.drain(TELL)
        self.receivers.close()
        await self.publisher.close()

    async def _close(self) -> None:
        if close := getattr(self.layer, "close", None):  # not every layer has one
            await close()
        for rounds in self.rounds.values():
            await rounds.backend.aclose()

    async def _consume(self) -> None:
        """Read the database's time and the id of this installation, and then consume."""
        await self.database(clock.measure)
        await self.database(installation.read)
        await self.subscriber.run()

    async def tell_ended(self, job_ids: Sequence[str]) -> None:
        """Tell the end of jobs, each by the rounds of its backend.

        If its backend is no longer configured, any rounds tell it.
        """
        rows = await self.database(ledger.load, job_ids, results=True)
        by_backend: dict[str, list[Row]] = defaultdict(list)
        for row in rows.values():
            by_backend[row.backend].append(row)
        for backend, some in by_backend.items():
            if backend not in conf.backends():  # a sweep has ended them, and has not logged it
                for row in some:
                    journal.ended(row)
            rounds = self.rounds.get(backend) or next(iter(self.rounds.values()))
            rounds.commits.in_background(rounds.commits.tell_ended(some))

    async def _serve(self, backend: str, shard: int) -> None:
        """Run rounds of one queue. Each gets the tasks that are due, but no more than MAX_TASKS."""
        room = asyncio.Semaphore(ROUNDS)

        def over(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            room.release()

        while True:
            await room.acquire()
            parts = await self.due.take(conf.names().poll_queue(backend, shard), MAX_TASKS)
            task = asyncio.create_task(self.work(backend, shard, parts))
            self._under_way.add(task)
            task.add_done_callback(over)

    async def work(self, backend: str, shard: int, parts: Sequence[Due]) -> None:
        """One round of tasks that are due. Their messages are acked, or all is delivered again."""
        now = clock.now()
        for part in parts:
            self.lateness.count(now - part.tasks[0].due, len(part.tasks))
        try:
            await self.rounds[backend].work(parts)
        except* BrokerError as errors:
            self.subscriber.restart(str(_first(errors)))
        # The worker lives on, and the tasks come again when the connection starts over.
        except* Exception:
            logger.exception(
                "a round failed, and its tasks come again, queue=%s.%d", backend, shard
            )
            self.subscriber.restart("a round failed")
        else:
            for part in parts:
                await part.ack()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _first(error: BaseException) -> BaseException:
    """The first error of a group of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _title(queues: Sequence[tuple[str, int]]) -> str:
    """The queues, as the connection's name lists or counts them."""
    if len(queues) < 5:
        return " ".join(f"{backend}.{shard}" for backend, shard in queues)
    return f"{len(queues)} queues"
