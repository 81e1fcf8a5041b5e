"""Writes what was decided into the ledger, and sends what follows: tasks, changes, signals."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from progrock import clock, dispatch, journal, ledger, lifecycle
from progrock.backends import Options
from progrock.broker.publisher import Publisher
from progrock.consumers.calls import Calls, Decided
from progrock.consumers.receivers import Receivers
from progrock.consumers.worker_database import WorkerDatabase
from progrock.lease import lease_of, needs_no_write, resumed
from progrock.ledger import Committed, Row

T = TypeVar("T")

#: A job's end is shown when its receivers have run, so that a page which then reloads its own row
#: finds it changed. Browsers wait no longer than so many seconds for that.
RECEIVERS_FIRST = 1.0


class Commits:
    """Commits the steps of one backend's jobs, and sends what follows.

    `draw` gives random numbers in [0, 1) for the leases.
    """

    def __init__(
        self,
        options: Options,
        calls: Calls,
        *,
        database: WorkerDatabase,
        publisher: Publisher,
        layer: Any,
        receivers: Receivers,
        draw: Callable[[], float],
    ) -> None:
        self.database, self._draw = database, draw
        self._options, self._calls = options, calls
        self._publisher, self._layer, self._receivers = publisher, layer, receivers
        self._backends = {options.name: options}
        self.background: set[asyncio.Task[Any]] = set()

    async def finish(self, decided: Decided) -> None:
        """Commit steps that are no looks, such as starts, and send what follows.

        Raises PublishFailed: then the tasks must come again.
        """
        if decided:
            await self.follow_up(decided, await self.commit(decided))

    async def finish_looks(self, decided: Decided, copies: Collection[str]) -> None:
        """The same for looks. `copies` is that of `commit_looks`."""
        if decided:
            await self.follow_up(decided, await self.commit_looks(decided, copies))

    async def commit(self, decided: Decided) -> list[Committed]:
        """Write one step of each job, and log it. Returns the steps that won.

        Only a look begins a lease. So if the task of a start or a resume is never published,
        because the worker dies or RabbitMQ is away, a sweep need not wait for a lease to end.
        """
        now = clock.now()
        return await self._write(self._paced(decided, now), now, lease=0.0)

    async def commit_looks(self, decided: Decided, copies: Collection[str]) -> list[Committed]:
        """The same for looks. Also returns the looks that found nothing new and are not written.

        `copies` are the ids of jobs whose task may not be the only one of its turn. Their looks are
        written in any case.
        """
        now = clock.now()
        unwritten: list[Committed] = []
        steps: Decided = []
        for row, decision in self._paced(decided, now):
            if (
                row.id not in copies
                and decision.delay is not None
                and needs_no_write(row, decision, now)
            ):
                unwritten.append(dispatch.unwritten(row, decision.delay, now))
            else:
                steps.append((row, decision))
        if not steps:
            return unwritten
        lease = lease_of(self._options, self._draw())
        return unwritten + await self._write(steps, now, lease)

    def _paced(self, decided: Decided, now: float) -> Decided:
        """The decisions, with the next look of jobs that nobody watches as late as it may be."""
        if self._options.unwatched is None:
            return decided
        return [
            (row, lifecycle.paced(row, decision, self._options, now)) for row, decision in decided
        ]

    async def _write(self, steps: Decided, now: float, lease: float) -> list[Committed]:
        committed = await self.database.commit(steps, now, lease)
        journal.stepped(committed)
        return committed

    async def follow_up(self, decided: Decided, committed: Sequence[Committed]) -> None:
        """Send what follows these commits. Raises PublishFailed.

        Ends are told in the background, because the ledger remembers that they are owed.
        """
        outbound = dispatch.after([each for each in committed if each.row.active], self._backends)
        work: list[Coroutine[Any, Any, None]] = []
        if outbound.messages:
            work.append(dispatch.publish(self._publisher, outbound.messages))
        if outbound.feeds:
            work.append(dispatch.push(self._layer, outbound.feeds))
            if self._receivers.exist:
                changed = [each.row for each in committed if each.visible and each.row.active]
                self.in_background(self._receivers.send(changed))
        if ended := [each.row for each in committed if not each.row.active]:
            self.in_background(self.tell_ended(ended))
        if len(committed) < len(decided):
            won = {each.row.id for each in committed}
            lost = [row.id for row, _ in decided if row.id not in won]
            self.in_background(self.tell_cancelled(lost))
        if work:
            await dispatch.to_the_end(work)

    async def resume(self, rows: Iterable[Row]) -> None:
        """Give each of these jobs a new turn and its task. Raises PublishFailed.

        It waits for a connection first, because jobs that got a turn and no task could not be
        resumed once more when the same message comes again.
        """
        await self._publisher.ready()
        now = clock.now()
        await self.finish([(row, resumed(row, self._options, now)) for row in rows])

    async def tell_owed(self, job_ids: Iterable[str]) -> None:
        """Load these jobs, and tell the ends that are still owed."""
        rows = await self.database(ledger.load, job_ids, results=True)
        await self.tell_ended([row for row in rows.values() if row.owed])

    async def tell_cancelled(self, job_ids: Sequence[str]) -> None:
        """Load these jobs, and tell the end of each that was cancelled before its start.

        Their steps have lost, so no other commit tells it.
        """
        rows = (await self.database(ledger.load, job_ids)).values()
        await self.tell_ended([row for row in rows if lifecycle.cancelled_in_line(row)])

    async def tell_ended(self, rows: Sequence[Row]) -> None:
        """Tell the end of jobs: to receivers, to browsers, and to the backend of an expired job.

        Then nothing is owed any more. A push that is lost is repaired by the web processes.
        """
        if not rows:
            return
        signals = self.in_background(self._receivers.send(rows))
        await asyncio.wait([signals], timeout=RECEIVERS_FIRST)
        work = [dispatch.push(self._layer, dispatch.feeds(rows))]
        work += [self._calls.cancel_expired(row) for row in rows if self._owes_cancel(row)]
        await dispatch.to_the_end(work)
        if sent := await signals:
            await self.database(ledger.settle, sent)

    def _owes_cancel(self, row: Row) -> bool:
        # if a job's backend is no longer configured, there is nobody to ask for a cancel
        return row.backend == self._options.name and lifecycle.owes_cancel(row, self._options)

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run `work` as a background task, which the caller may await."""
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)
        return task

    async def drain(self, seconds: float) -> None:
        """Wait for the background tasks, but no longer than so many seconds."""
        if self.background:
            await asyncio.wait(self.background, timeout=seconds)
