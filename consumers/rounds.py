"""A round: what a worker does with due poll tasks of one backend.

Load the jobs, see what each task means, ask the backend, decide, commit, and send what follows.
"""

from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

from progrock import clock, ledger, lifecycle
from progrock.backends import Backend, Options
from progrock.broker.due import Due
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task
from progrock.consumers.calls import Calls, Decided
from progrock.consumers.commits import Commits
from progrock.consumers.receivers import Receivers
from progrock.consumers.starts import Starts
from progrock.consumers.worker_database import WorkerDatabase
from progrock.dispatch import to_the_end
from progrock.ledger import Row
from progrock.lifecycle import Standing, Step
from progrock.models import State


class Rounds:
    """Works on the tasks of one backend; `draw` gives random numbers in [0, 1) for the backoff."""

    def __init__(
        self,
        backend: Backend,
        options: Options,
        *,
        database: WorkerDatabase,
        publisher: Publisher,
        layer: Any,
        receivers: Receivers,
        draw: Callable[[], float],
    ) -> None:
        self.backend, self.options, self.database = backend, options, database
        self.calls = Calls(backend, options, draw)
        self.commits = Commits(
            options,
            self.calls,
            database=database,
            publisher=publisher,
            layer=layer,
            receivers=receivers,
            draw=draw,
        )
        self.starts = Starts(options, self.calls, self.commits)

    async def work(self, parts: Sequence[Due]) -> None:
        """Take one step of each job whose task is valid.

        The tasks of a message that was delivered too often get a round each, and each is counted as
        a crash of its worker until that round commits.
        Raises BrokerError: then the tasks must come again.
        """
        together = [part for part in parts if not lifecycle.one_by_one(part.deliveries)]
        if together:
            redelivered = {task for part in together if part.deliveries for task in part.tasks}
            await self._round([task for part in together for task in part.tasks], redelivered)
        for part in parts:
            if lifecycle.one_by_one(part.deliveries):
                for task in part.tasks:
                    await self._round([task], {task}, careful=True)

    async def _round(
        self, tasks: Sequence[Task], redelivered: Collection[Task], *, careful: bool = False
    ) -> None:
        """Take one step for each of the tasks; `redelivered` are those that were delivered before.

        `careful`: count a crash of the worker before each step.
        """
        rows = await self.database(
            ledger.load_for_looks,
            {task.job_id for task in tasks},
            params=self.options.reads_params,
            attention=self.options.unwatched is not None,
        )
        valid: dict[str, Row] = {}
        copies: set[str] = set()  # ids of jobs whose task may not be the only one of its turn
        resumed: list[Row] = []
        owed: list[str] = []
        for task in tasks:
            row = rows.get(task.job_id)
            came_before = bool(redelivered) and task in redelivered
            standing = lifecycle.standing(row, task.turn, again=came_before)
            if row is None or standing is Standing.STALE:
                continue
            if standing is Standing.VALID:
                valid[row.id] = row
                if came_before or task.again:
                    copies.add(row.id)
            elif standing is Standing.RESUME:
                resumed.append(row)
            else:
                owed.append(row.id)
        if careful:
            await self._count_crashes(valid)
        running = [row for row in valid.values() if row.state == State.RUNNING]
        waiting = [row for row in valid.values() if row.state != State.RUNNING]
        if waiting:
            waiting = await self._whole(waiting)
        work: list[Coroutine[Any, Any, None]] = []
        if owed:
            self.commits.in_background(self.commits.tell_owed(owed))
        if resumed:
            work.append(self.commits.resume(resumed))
        if running:
            work.append(self._look(running, copies))
        if waiting:
            work.append(self.starts.start(waiting))
        if work:
            await to_the_end(work)

    async def _whole(self, rows: Sequence[Row]) -> list[Row]:
        """Read all fields of these jobs, because a start needs more than a look.

        A job that has moved on meanwhile is left out. If it was cancelled, its end is told.
        """
        whole = await self.database(ledger.load, [row.id for row in rows])
        pairs = [(row, whole.get(row.id)) for row in rows]
        if gone := [found for row, found in pairs if found and found.turn != row.turn]:
            cancelled = [row for row in gone if lifecycle.cancelled_in_line(row)]
            self.commits.in_background(self.commits.tell_ended(cancelled))
        return [found for row, found in pairs if found and found.turn == row.turn]

    async def _look(self, rows: Sequence[Row], copies: Collection[str]) -> None:
        """Poll running jobs, and cancel those whose cancellation was asked for.

        A look at one of `copies` is written in any case.
        """
        decided: Decided = []
        polls: list[Row] = []
        work: list[Coroutine[Any, Any, Decided]] = []
        now = clock.now()
        for row in rows:
            step = lifecycle.next_step(row, now=now, options=self.options)
            if step is Step.POLL:
                polls.append(row)
            elif step is Step.CANCEL:
                work.append(self.calls.cancel(row))
            elif not isinstance(step, Step):
                decided.append((row, step))
        if polls:
            work.append(self.calls.poll(polls))
        for outcome in await to_the_end(work):
            decided += outcome
        await self.commits.finish_looks(decided, copies)

    async def _count_crashes(self, rows: dict[str, Row]) -> None:
        """Count a crash of each job before its step, and drop the jobs that have moved on."""
        for row in list(rows.values()):
            crashes = await self.database(ledger.count_crash, row.id, row.turn)
            if crashes is None:
                del rows[row.id]
                await self.commits.tell_cancelled([row.id])
            else:
                row.crashes = crashes
