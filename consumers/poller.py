"""The Poller: a worker process's consumer of poll queues, with its sweeper; one for all the queues that it was given."""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

from channels.layers import get_channel_layer
from django.db import IntegrityError, close_old_connections

from progrock import conf, ledger
from progrock.backends import Options, build
from progrock.broker.due import Due, DueTasks
from progrock.broker.errors import BrokerError
from progrock.broker.publisher import Publisher
from progrock.broker.subscriber import Subscriber
from progrock.broker.tasks import MAX_TASKS, Task
from progrock.broker.topology import Topology, poll_queue
from progrock.consumers.database import WorkerDatabase, one_line
from progrock.consumers.rounds import Rounds

logger = logging.getLogger(__name__)

#: Rounds under way at once for one queue: while one waits for its backend, others go on.
ROUNDS = 8
SWEEP = 5.0
#: A job is swept when it is so many seconds overdue, or twice its backend's timeout, measured by its queue's watermark.
GRACE = 10.0
#: A job whose backend is not configured here is left to workers that know it until so many seconds after its deadline.
ORPHANED = 60.0
#: Seconds that rounds under way get to finish when the process is told to stop.
FINISH = 30.0
REPORT = 60.0


class Poller:
    """Consumes the poll queues (backend, shard); `declare`: the topology that may be declared on connecting, or None."""

    def __init__(
        self,
        queues: Sequence[tuple[str, int]],
        backends: Mapping[str, Options],
        *,
        declare: Topology | None,
    ) -> None:
        names = [poll_queue(backend, shard) for backend, shard in queues]
        title = (
            " ".join(f"{backend}.{shard}" for backend, shard in queues)
            if len(queues) < 5
            else f"{len(queues)} queues"
        )
        self.queues = queues
        self.publisher = Publisher(conf.amqp_url(), f"runworker {title}")
        self.due = DueTasks(self.publisher)
        self.subscriber = Subscriber(
            conf.amqp_url(),
            f"runworker {title}",
            names,
            self.publisher,
            self.due.add,
            declare=declare,
        )
        self.database = WorkerDatabase()
        self.layer: Any = get_channel_layer()
        self.rounds = {
            name: Rounds(
                build(options),
                options,
                database=self.database,
                publisher=self.publisher,
                layer=self.layer,
                draw=random.random,
            )
            for name, options in backends.items()
            if name in {backend for backend, _ in queues}
        }
        self._stopping = asyncio.Event()
        self._rounds_under_way: set[asyncio.Task[None]] = set()
        self._forgets = True
        self._lateness: Counter[int] = (
            Counter()
        )  # tasks by whole milliseconds, since the last report

    def stop(self) -> None:
        """Take no more deliveries; `run` returns when the rounds under way are finished."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop` is called; then finish the rounds under way, and leave what was not begun to others."""
        self.publisher.start()
        stopping = asyncio.create_task(self._stopping.wait())
        loops = [
            asyncio.create_task(loop)
            for loop in (self.subscriber.run(), self._sweep(), self._report())
        ]
        for backend, shard in self.queues:
            loops.append(asyncio.create_task(self._serve(backend, shard)))
        try:
            done, _ = await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()  # a loop that ends by itself ended by an error
            await self.subscriber.stop_taking()
        finally:
            for task in (stopping, *loops[1:]):
                task.cancel()
            await asyncio.gather(stopping, *loops[1:], return_exceptions=True)
            if self._rounds_under_way:
                await asyncio.wait(self._rounds_under_way, timeout=FINISH)
            await self.publisher.close()
            await self.subscriber.close()
            await asyncio.gather(loops[0], return_exceptions=True)
            await self.layer.close()
            for rounds in self.rounds.values():
                await rounds.backend.aclose()

    async def _serve(self, backend: str, shard: int) -> None:
        """Round after round of one queue: all that is due there, up to a message's worth of tasks."""
        room = asyncio.Semaphore(ROUNDS)

        def over(task: asyncio.Task[None]) -> None:
            self._rounds_under_way.discard(task)
            room.release()

        while True:
            await room.acquire()
            parts = await self.due.take(poll_queue(backend, shard), MAX_TASKS)
            task = asyncio.create_task(self._round(backend, shard, parts))
            self._rounds_under_way.add(task)
            task.add_done_callback(over)

    async def _round(self, backend: str, shard: int, parts: Sequence[Due]) -> None:
        now = time.time()
        for part in parts:
            self._lateness[int((now - part.tasks[0].due) * 1e3)] += len(part.tasks)
        try:
            await self.rounds[backend].work(shard, parts)
        except* BrokerError as errors:
            self.subscriber.restart(str(errors.exceptions[0]))
        except* (
            Exception
        ):  # the worker lives on; the tasks come again when the connection starts over
            logger.exception("a round failed, queue=%s.%d", backend, shard)
            self.subscriber.restart("a round failed")
        else:
            for part in parts:
                await part.ack()

    async def _sweep(self) -> None:
        """Bring back the jobs whose task was lost: overdue, and overtaken by their queue's later tasks. And forget old ones."""
        while True:
            await asyncio.sleep(SWEEP * random.uniform(0.9, 1.1))
            try:
                for backend, shard in self.queues:
                    await self._sweep_queue(backend, shard)
                await self.database(
                    close_old_connections
                )  # CONN_MAX_AGE and CONN_HEALTH_CHECKS hold here as well
                await self._end_orphans()
                if conf.keep_days() and self._forgets:
                    await self.database(ledger.forget, conf.keep_days())
            except IntegrityError as error:
                self._forgets = False
                logger.error(
                    "ended jobs are kept for ever, since something points at one of them: %s",
                    one_line(error),
                )
            except (
                Exception
            ):  # what one sweep could not do, the next one does; without the loop nobody would
                logger.exception("a sweep failed")

    async def _sweep_queue(self, backend: str, shard: int) -> None:
        if (watermark := self.subscriber.watermark(poll_queue(backend, shard))) is None:
            return
        options = self.rounds[backend].options
        now = time.time()
        claimed = await self.database(
            ledger.sweep, backend, shard, options.shards,
            before=watermark, grace=max(GRACE, 2 * options.timeout), now=now,
        )  # fmt: skip
        if claimed:
            logger.warning("swept %d overdue jobs, queue=%s.%d", len(claimed), backend, shard)
            tasks = [Task(job_id=job_id, turn=turn, due=now) for job_id, turn in claimed]
            try:
                await self.publisher.publish(backend, shard, tasks, delay=0.0)
            except BrokerError as error:
                logger.warning("swept jobs wait for the next sweep: %s", error)
                await self.database(ledger.unsweep, claimed)

    async def _end_orphans(self) -> None:
        """Jobs of backends that are no longer configured have no queue that anybody consumes: any worker ends them."""
        if ended := await self.database(
            ledger.end_orphans, list(conf.backends()), before=time.time() - ORPHANED
        ):
            logger.warning("ended %d jobs of backends that are no longer configured", len(ended))
            rows = await self.database(ledger.load, ended)
            await next(iter(self.rounds.values())).push(list(rows.values()))

    async def _report(self) -> None:
        """Say once a minute how late the tasks were."""
        while True:
            await asyncio.sleep(REPORT)
            late, self._lateness = self._lateness, Counter()
            if tasks := late.total():
                middle, p99 = (_quantile(late, part) for part in (0.5, 0.99))
                logger.info("late by %d ms median, %d ms p99, tasks=%d", middle, p99, tasks)


def _quantile(counts: Counter[int], part: float) -> int:
    """The smallest value that so large a part of all is not above."""
    below = accumulate(count for _, count in sorted(counts.items()))
    return next(
        value
        for value, sum_ in zip(sorted(counts), below, strict=True)
        if sum_ >= part * counts.total()
    )
