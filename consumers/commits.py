"""Writes what was decided into the ledger, and sends what follows: tasks, changes, signals."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from channels.db import database_sync_to_async

from progrock import dispatch, ledger, lifecycle, wire
from progrock.backends import Options
from progrock.broker.publisher import Publisher
from progrock.consumers.calls import Calls, has_receivers, send_signals
from progrock.consumers.database import WorkerDatabase
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision

T = TypeVar("T")


class Commits:
    """The end of each step of a worker, for the jobs of one backend."""

    def __init__(
        self,
        options: Options,
        calls: Calls,
        *,
        database: WorkerDatabase,
        publisher: Publisher,
        layer: Any,
    ) -> None:
        self.database = database
        self._options, self._calls = options, calls
        self._publisher, self._layer = publisher, layer
        self._backends = {options.name: options}
        self._background: set[asyncio.Task[Any]] = set()

    async def finish(self, decided: Sequence[tuple[Row, Decision]]) -> None:
        """Commit, and send what follows. Raises PublishFailed: then the tasks must come again."""
        if decided:
            await self.follow_up(decided, await self.commit(decided))

    async def commit(self, decided: Sequence[tuple[Row, Decision]]) -> list[Committed]:
        """Write one step of each job; gives those that won."""
        return await self.database.commit(decided, time.time())

    async def follow_up(
        self, decided: Sequence[tuple[Row, Decision]], committed: Sequence[Committed]
    ) -> None:
        """Send what follows these commits. Raises PublishFailed."""
        outbound = dispatch.after(committed, self._backends)
        work: list[Coroutine[Any, Any, None]] = []
        if outbound.messages:
            work.append(dispatch.publish(self._publisher, outbound.messages))
        if shown := [each.row for each in committed if each.visible]:
            work.append(self._show(shown, outbound.feeds))
            for row in shown:
                if lifecycle.owes_cancel(row, self._options):
                    self.in_background(self._calls.cancel_expired(row))
        if len(committed) < len(decided):
            won = {each.row.id for each in committed}
            work.append(self.tell_cancelled([row.id for row, _ in decided if row.id not in won]))
        if work:
            await dispatch.to_the_end(work)

    async def resume(self, rows: Iterable[Row]) -> None:
        """Publish the present tasks of jobs once more. Raises PublishFailed."""
        again = [Committed(row, 0.0, visible=False) for row in rows]
        await dispatch.publish(self._publisher, dispatch.after(again, self._backends).messages)

    async def tell_ended(self, job_ids: Iterable[str]) -> None:
        """Show jobs that ended, and send their `job_finished`."""
        rows = await self.database(ledger.load, job_ids, results=True)
        await self.show(list(rows.values()))

    async def tell_cancelled(self, lost: Sequence[str]) -> None:
        """Of the jobs whose step lost, show those that were cancelled in the line meanwhile.

        Nobody has sent their `job_finished` yet.
        """
        if lost:
            rows = (await self.database(ledger.load, lost)).values()
            await self.show([row for row in rows if lifecycle.cancelled_in_line(row)])

    async def show(self, rows: Sequence[Row]) -> None:
        """Show jobs to the browsers and to this process's signal receivers.

        A push that is lost here is repaired by the web processes.
        """
        if rows:
            await self._show(rows, dispatch.feeds(rows))

    async def _show(self, rows: Sequence[Row], feeds: Mapping[str, list[wire.Change]]) -> None:
        await dispatch.push(self._layer, feeds)
        if has_receivers():
            await database_sync_to_async(send_signals)([wire.job_frame(row) for row in rows])

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run as a background task; the caller may await it."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
