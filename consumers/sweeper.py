"""Brings back jobs whose poll task was lost, and ends jobs that nobody serves."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

from django.db import close_old_connections

from progrock import clock, conf, dispatch, ledger
from progrock.backends import Options
from progrock.broker.errors import BrokerError
from progrock.broker.publisher import Publisher
from progrock.consumers.worker_database import WorkerDatabase

logger = logging.getLogger(__name__)

#: Seconds between two sweeps.
SWEEP = 5.0
#: A job is swept when it is so many seconds overdue, or twice its backend's timeout if that is
#: longer, measured by the watermark of its queue.
GRACE = 10.0
#: A job of a backend that is not configured here is left to workers that know it until so many
#: seconds after its deadline.
ORPHANED = 60.0
#: If the end of a job is still not told after so many seconds, a sweep tells it.
OWED = 30.0


class Sweeper:
    """Sweeps the queues (backend, shard) of one worker.

    `watermark(queue)` gives the time (epoch seconds) before which all due tasks of a queue have
    arrived, or None while that is unknown. `tell_ended(job_ids)` tells everybody that jobs have
    ended.
    """

    def __init__(
        self,
        queues: Sequence[tuple[str, int]],
        backends: Mapping[str, Options],
        *,
        database: WorkerDatabase,
        publisher: Publisher,
        watermark: Callable[[str], float | None],
        tell_ended: Callable[[Sequence[str]], Awaitable[None]],
    ) -> None:
        self._queues, self._backends = queues, backends
        self._database, self._publisher = database, publisher
        self._watermark, self._tell_ended = watermark, tell_ended

    async def run(self) -> None:
        """Sweep every few seconds."""
        while True:
            await asyncio.sleep(SWEEP * random.uniform(0.9, 1.1))
            try:
                await self._database(clock.measure)  # by this clock jobs are overdue
                await self.sweep()
                # CONN_MAX_AGE and CONN_HEALTH_CHECKS hold in the worker's thread as well
                await self._database(close_old_connections)
                await self._end_orphans()
            except Exception:  # the loop must go on, else no lost job comes back
                logger.exception("a sweep failed, and the next one tries again")

    async def sweep(self) -> None:
        """Bring back overdue jobs that later tasks have overtaken, and tell the ends still owed."""
        for backend, shard in self._queues:
            await self._sweep_queue(backend, shard)
        others = [name for name in conf.backends() if name not in self._backends]
        if owed := await self._database(ledger.claim_owed, others, OWED):
            logger.warning("told the end of %d jobs again, because it was still owed", len(owed))
            await self._tell_ended(owed)

    async def _sweep_queue(self, backend: str, shard: int) -> None:
        if (watermark := self._watermark(conf.names().poll_queue(backend, shard))) is None:
            return
        options, now = self._backends[backend], clock.now()
        claimed = await self._database(
            ledger.sweep,
            backend,
            shard,
            options.shards,
            before=watermark,
            grace=max(GRACE, 2 * options.timeout),
            now=now,
        )
        if not claimed:
            return
        logger.warning(
            "swept %d overdue jobs, which get new tasks, queue=%s.%d", len(claimed), backend, shard
        )
        message = dispatch.swept(backend, shard, claimed, now)
        try:
            await dispatch.publish(self._publisher, [message])
        except BrokerError as error:
            logger.warning(
                "swept jobs wait for the next sweep, because their tasks were not published: %s,"
                " queue=%s.%d",
                error,
                backend,
                shard,
            )
            await self._database(ledger.unsweep, claimed)

    async def _end_orphans(self) -> None:
        """End jobs of backends that are no longer configured. Nobody consumes their queues."""
        before = clock.now() - ORPHANED
        if ended := await self._database(ledger.end_orphans, list(conf.backends()), before=before):
            logger.warning("ended %d jobs of backends that are no longer configured", len(ended))
            await self._tell_ended(ended)
