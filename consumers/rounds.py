"""A round: what a worker does with the due poll tasks of one queue, from the ledger's rows to the next tasks and the pushes."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from channels.db import database_sync_to_async

from progrock import ledger, policy, wire
from progrock.audiences import feed_of
from progrock.backends import Backend, BackendError, JobView, Options
from progrock.broker.due import Due
from progrock.broker.lanes import SHORTEST, Lane, lane_for
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task
from progrock.consumers.database import WorkerDatabase
from progrock.ledger import Row, Update
from progrock.models import State
from progrock.policy import Decision
from progrock.signals import job_changed, job_finished

logger = logging.getLogger(__name__)

T = TypeVar("T")
V = TypeVar("V")

#: So many workers may die of one job before it is given up.
MOST_CRASHES = 5
#: Seconds between two tracebacks of a backend's class.
SAY_AGAIN = 10.0
#: One draw of up to this part of the interval on top of each message's delay, so that messages do not grow into herds; never
#: more than what is slept out, for a further lane costs more messages than a wider draw is worth.
SPREAD = 0.05


class Rounds:
    """Works on the tasks of one backend; `draw` gives numbers in [0, 1) for the backoff's jitter."""

    def __init__(
        self,
        backend: Backend,
        options: Options,
        *,
        database: WorkerDatabase,
        publisher: Publisher,
        layer: Any,
        draw: Callable[[], float],
    ) -> None:
        self.backend = backend
        self.options = options
        self.database = database
        self.publisher = publisher
        self.layer = layer
        self.draw = draw
        self._calls = asyncio.Semaphore(options.concurrency)
        self._starting = asyncio.Lock()
        self._beside: set[asyncio.Task[Any]] = set()
        self._said = 0.0  # when a failure of the backend's class was logged

    async def work(self, shard: int, parts: Sequence[Due]) -> None:
        """Take one step of each job whose task is valid. Raises BrokerError: then the tasks must come again.

        The tasks of a message that was delivered twice before are worked one by one, and each is counted as a crash of its
        worker until its round commits.
        """
        if calm := [part for part in parts if part.deliveries < 2]:
            again = {task for part in calm if part.deliveries for task in part.tasks}
            await self._step(shard, [task for part in calm for task in part.tasks], again)
        for part in parts:
            if part.deliveries >= 2:
                for task in part.tasks:
                    await self._step(shard, [task], {task}, careful=True)

    async def _step(
        self, shard: int, tasks: Sequence[Task], again: Collection[Task], *, careful: bool = False
    ) -> None:
        """One step for each of the tasks; `again` holds those that were delivered before."""
        rows = await self.database(ledger.load, {task.job_id for task in tasks})
        current: dict[str, Row] = {}
        resumed: list[Row] = []
        ended: list[str] = []
        for task in tasks:
            row = rows.get(task.job_id)
            if row is None:
                continue
            if not row.active:
                # its round died after the commit, or it was cancelled while it waited in line: job_finished is owed
                if task.turn == row.turn - 1 and (
                    task in again or (row.state == State.CANCELLED and not row.handle)
                ):
                    ended.append(row.id)
            elif task.turn == row.turn:
                current[row.id] = row
            elif task.turn == row.turn - 1 and task in again and row.state != State.STARTING:
                resumed.append(row)  # its round died between the commit and the publish
        if careful:
            await self._count_crashes(current)
        waiting = [row for row in current.values() if row.state in (State.QUEUED, State.STARTING)]
        others = [row for row in current.values() if row.state == State.RUNNING]
        work: list[Coroutine[Any, Any, None]] = []
        if ended:
            rows = await self.database(ledger.load, ended, results=True)
            work.append(self.push(list(rows.values())))
        if resumed:
            work.append(self._publish(shard, resumed, delay=0.0))
        if others:
            work.append(self._look(shard, others))
        if waiting:
            work.append(self._start(shard, waiting))
        await _all(work)

    # Deciding: one call of the backend for each kind of step

    async def _look(self, shard: int, rows: Sequence[Row]) -> None:
        """Poll the running jobs, and cancel those whose cancellation was asked for."""
        polls: list[Row] = []
        cancels: list[Row] = []
        decisions: dict[str, Decision] = {}
        for row in rows:
            if row.crashes >= MOST_CRASHES:
                decisions[row.id] = _give_up(row)
            elif not row.cancel_requested:
                polls.append(row)
            elif self.options.cancels:
                cancels.append(row)
            else:
                decisions[row.id] = _end(row, State.CANCELLED, "")
        work = [self._cancel(row, decisions) for row in cancels]
        if polls:
            work.append(self._poll(polls, decisions))
        await _all(work)
        await self._finish(shard, rows, decisions)

    async def _poll(self, rows: Sequence[Row], decisions: dict[str, Decision]) -> None:
        answers = await self._ask(self.backend.poll, [_view(row) for row in rows])
        silence = BackendError("the backend said nothing of this job")
        if not isinstance(answers, Mapping):
            nonsense = BackendError("the backend's class gave no mapping")
            silence, answers = (answers if isinstance(answers, BackendError) else nonsense), {}
        for row in rows:
            decisions[row.id] = self._decide(policy.decide_poll, row, answers.get(row.id, silence))

    async def _cancel(self, row: Row, decisions: dict[str, Decision]) -> None:
        async with self._calls:
            outcome = await self._ask(self.backend.cancel, _view(row))
        decisions[row.id] = self._decide(policy.decide_cancel, row, outcome)

    async def _ask(self, call: Callable[[V], Awaitable[Any]], about: V) -> Any:
        """What the backend says, or the BackendError. What a class of the project's own does wrong is its failure, not the round's."""
        try:
            # the generic backend keeps its timeout by itself
            async with asyncio.timeout(2 * self.options.timeout + 1.0):
                return await call(about)
        except BackendError as error:
            return error
        except TimeoutError:
            return BackendError(f"the backend did not answer within {self.options.timeout:g} s")
        except Exception as error:
            return self._mishap(error)

    def _decide(self, decide: Callable[..., Decision], row: Row, outcome: Any) -> Decision:
        about = {"now": time.time(), "options": self.options, "draw": self.draw()}
        try:
            return decide(row, outcome, **about)
        except Exception as error:  # as above: it answered with what is no Status
            return decide(row, self._mishap(error), **about)

    def _mishap(self, error: Exception) -> BackendError:
        if time.time() > self._said + SAY_AGAIN:
            self._said = time.time()
            logger.error("the class of backend %s failed", self.options.name, exc_info=error)
        return BackendError(f"the backend's class failed: {type(error).__name__}")

    async def _start(self, shard: int, rows: Sequence[Row]) -> None:
        """Start queued jobs, as many at once as the backend takes, so that no intent is open for longer than its call.

        One whose start may have killed a worker is started by itself: the others of its batch do not die with it again.
        """
        calm = [row for row in rows if not row.crashes]
        parts = [
            calm[i : i + self.options.concurrency]
            for i in range(0, len(calm), self.options.concurrency)
        ]
        telling: list[asyncio.Task[None]] = []
        for some in [*parts, *([row] for row in rows if row.crashes)]:
            async with self._starting:
                decisions = await self._start_some(some, telling)
            await self._finish(shard, some, decisions)
        await asyncio.gather(*telling)

    async def _start_some(
        self, rows: Sequence[Row], telling: list[asyncio.Task[None]]
    ) -> dict[str, Decision]:
        """Commit the intent, then start: a worker that dies between the two leaves an open intent, which only a sweep brings back."""
        decisions: dict[str, Decision] = {}
        ready: list[Row] = []
        repeated = {row.id for row in rows if row.state == State.STARTING}
        now = time.time()
        for row in rows:
            if row.state == State.STARTING and row.sweeps:
                row.crashes += 1
            if row.crashes >= MOST_CRASHES:
                decisions[row.id] = _give_up(row)
            elif (
                row.state == State.QUEUED and row.cancel_requested
            ):  # while a start that failed was under way
                decisions[row.id] = _end(row, State.CANCELLED, "")
            elif now >= row.deadline_at:
                decisions[row.id] = _end(
                    row,
                    State.EXPIRED,
                    "the deadline passed before the backend had confirmed the job",
                )
            elif row.state == State.STARTING and not self.options.repeat:
                decisions[row.id] = _end(
                    row, State.FAILED, "outcome unknown: the start may or may not have arrived"
                )
            else:
                ready.append(row)
        due = (
            now + 2 * self.options.timeout
        )  # a call may end later: the sweep's grace is at least as long again
        intents = [
            _update(row, state=State.STARTING, due_at=due, visible=row.state == State.QUEUED)
            for row in ready
        ]
        opened = time.monotonic()
        won = await self.database.commit(intents, now) if intents else {}
        telling.append(
            self._aside(self._tell_cancelled([row.id for row in ready if row.id not in won]))
        )
        ready = [row for row in ready if row.id in won]
        for row in ready:
            row.turn, row.version = won[row.id].turn, won[row.id].version
            row.cancel_requested, row.state = won[row.id].cancel_requested, State.STARTING

        async def start(row: Row) -> None:
            if time.monotonic() - opened > self.options.timeout:
                # this process was frozen, or the ledger away: where no sweep has given the job to somebody else, once more
                decision = _end(row, State.QUEUED, "")._replace(delay=0.0)
            else:
                decision = self._decide(
                    policy.decide_start, row, await self._ask(self.backend.start, _view(row))
                )
            if row.id in repeated and decision.state == State.QUEUED:
                decision = decision._replace(
                    state=State.STARTING
                )  # an earlier try may have arrived
            decisions[row.id] = decision

        shown = [row for row in ready if row.id not in repeated]
        telling.append(self._aside(self.push(shown)))  # no start waits for it
        await _all([start(row) for row in ready])
        return decisions

    async def _count_crashes(self, rows: dict[str, Row]) -> None:
        for row in list(rows.values()):
            crashes = await self.database(ledger.count_crash, row.id, row.turn)
            if crashes is None:
                del rows[row.id]
                await self._tell_cancelled([row.id])
            else:
                row.crashes = crashes

    async def _tell_cancelled(self, lost: Sequence[str]) -> None:
        """Of the jobs whose turn is gone, show those that were cancelled in the line meanwhile: `job_finished` is owed."""
        if lost:
            rows = (await self.database(ledger.load, lost)).values()
            await self.push(
                [row for row in rows if row.state == State.CANCELLED and not row.handle]
            )

    def _aside(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do it beside the round; who must, waits for it."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task

    # Acting: commit, then publish and push

    async def _finish(
        self, shard: int, rows: Sequence[Row], decisions: Mapping[str, Decision]
    ) -> None:
        """Write the decisions; then, for those that won, publish the next tasks and show what changed."""
        if not decisions:
            return
        now = time.time()
        updates = {
            row.id: _decided(row, decisions[row.id], now) for row in rows if row.id in decisions
        }
        won = await self.database.commit(list(updates.values()), now)
        delays: dict[float, list[Row]] = defaultdict(list)
        changed: list[Row] = []
        for row in rows:
            if (new := won.get(row.id)) is None:
                continue
            update, delay = updates[row.id], decisions[row.id].delay
            row.turn, row.version, row.due_at, row.cancel_requested, row.ended = new
            if update.visible:
                row.state, row.handle, row.progress, row.message = (
                    update.state,
                    update.handle,
                    update.progress,
                    update.message,
                )
                row.error, row.result = update.error, update.result
                changed.append(row)
            if delay is not None:
                delays[0.0 if new.cancel_requested and not update.cancel_seen else delay].append(
                    row
                )
            if row.state == State.EXPIRED and row.handle and self.options.cancels:
                self._aside(
                    self._ask(self.backend.cancel, _view(row))
                )  # once; nobody waits for this job any more
        work = [*self._next(shard, delays)]
        if changed:
            work.append(self.push(changed))
        if len(won) < len(updates):
            work.append(self._tell_cancelled([job for job in updates if job not in won]))
        await _all(work)

    def _next(
        self, shard: int, delays: Mapping[float, Sequence[Row]]
    ) -> Iterable[Coroutine[Any, Any, None]]:
        """Publish the next tasks: one message for all that goes into one lane, but regular polls by themselves."""
        lanes: dict[tuple[Lane | None, bool], list[float]] = defaultdict(list)
        for delay in delays:
            lanes[lane_for(delay), delay == self.options.interval].append(delay)
        for (_, regular), some in lanes.items():
            rows = [row for delay in some for row in delays[delay]]
            spread = min(SPREAD * self.options.interval, SHORTEST) if regular else 0.0
            yield self._publish(shard, rows, delay=min(some), spread=spread)

    async def _publish(
        self, shard: int, rows: Iterable[Row], *, delay: float, spread: float = 0.0
    ) -> None:
        tasks = [Task(job_id=row.id, turn=row.turn, due=row.due_at) for row in rows]
        await self.publisher.publish(self.options.name, shard, tasks, delay=delay, spread=spread)

    async def push(self, rows: Sequence[Row]) -> None:
        """Show changes to the browsers and to this process's signal receivers; what is lost here, the hubs repair."""
        if not rows:
            return
        feeds: dict[str, list[list[Any]]] = defaultdict(list)
        for row in rows:
            feeds[feed_of(row.audience)].append(wire.change_of(row))
        messages = (
            (feed, {"type": "job.changed", "changes": changes}) for feed, changes in feeds.items()
        )
        await _all([self.layer.group_send(*message) for message in messages])
        if job_changed.has_listeners() or job_finished.has_listeners():
            await database_sync_to_async(_send_signals)([wire.job_frame(row) for row in rows])


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Do it all at once and each part to its end; then raise what failed: a publish that fails must not break off a start."""
    if len(work) == 1:
        await work[0]
        return
    done = await asyncio.gather(*work, return_exceptions=True)
    if failed := [each for each in done if isinstance(each, BaseException)]:
        raise (
            failed[0] if len(failed) == 1 else BaseExceptionGroup("parts of a round failed", failed)
        )


def _view(row: Row) -> JobView:
    return JobView(row.id, row.handle, row.params)


def _give_up(row: Row) -> Decision:
    return _end(
        row, State.FAILED, f"given up: {row.crashes} workers crashed while they handled this job"
    )


def _end(row: Row, state: str, error: str) -> Decision:
    return Decision(
        state=state,
        handle=row.handle,
        progress=row.progress,
        message="",
        result=None,
        error=error,
        attempts=row.attempts,
        delay=None,
    )


def _update(row: Row, *, state: str, due_at: float, visible: bool) -> Update:
    """An update that keeps all but the state; the cancel flag waits for the step after."""
    return Update(
        id=row.id, turn=row.turn, state=state, handle=row.handle, progress=row.progress, message=row.message, error=row.error,
        result=None, attempts=row.attempts, crashes=row.crashes, due_at=due_at, visible=visible, cancel_seen=True,
    )  # fmt: skip


def _decided(row: Row, decision: Decision, now: float) -> Update:
    message, handle = (
        decision.message or "",
        row.handle if decision.handle is None else decision.handle,
    )
    shown = (row.state, row.handle, row.progress, row.message)
    visible = (
        decision.delay is None or (decision.state, handle, decision.progress, message) != shown
    )
    return Update(
        id=row.id, turn=row.turn, state=decision.state, handle=handle, progress=decision.progress, message=message,
        error=decision.error or "", result=decision.result, attempts=decision.attempts, crashes=0,
        due_at=now + (decision.delay or 0.0), visible=visible,
        cancel_seen=row.cancel_requested and row.state == State.RUNNING,
    )  # fmt: skip


def _send_signals(frames: Sequence[dict[str, Any]]) -> None:
    for frame in frames:
        answers = job_changed.send_robust(sender=None, job=frame)
        if frame["complete"]:
            answers += job_finished.send_robust(sender=None, job=frame)
        for receiver, answer in answers:
            if isinstance(answer, Exception):
                logger.error(
                    "a signal receiver failed: %r, job=%s", receiver, frame["job"], exc_info=answer
                )
