"""The promise, by a state machine.

The ledger, the rounds and the sweeper are real; RabbitMQ, the backend and time are a model.

Each await of a worker is a gate. The machine opens it when it likes, with the outcome that it
likes. So rounds of two workers mix in any order, a worker freezes by not being let on, and it
crashes between any two steps.
"""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import pytest
from django.db import OperationalError
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from progrock import attention, clock, conf, ledger
from progrock.backends import BackendError, JobView, Options
from progrock.backends.base import Status
from progrock.broker.errors import PublishFailed
from progrock.broker.names import NAMES
from progrock.broker.tasks import Task
from progrock.consumers import sweeper
from progrock.consumers.database import WorkerDatabase
from progrock.consumers.lateness import Lateness
from progrock.consumers.poller import Poller
from progrock.consumers.rounds import Rounds
from progrock.consumers.sweeper import Sweeper
from progrock.ledger import Row
from progrock.lifecycle import LEASE_DRAW, MOST_CRASHES
from progrock.models import ENDED, Attention, Job
from tests.ledgers import own_database

INTERVAL, TIMEOUT, GRACE, UNWATCHED = 5.0, 5.0, 10.0, 20.0
BACKENDS = {
    "render": Options(
        name="render",
        interval=INTERVAL,
        timeout=TIMEOUT,
        deadline=1e6,
        shards=1,
        cancels=True,
        unwatched=UNWATCHED,
    ),
    "once": Options(
        name="once", interval=INTERVAL, timeout=TIMEOUT, deadline=1e6, shards=1, repeat=False
    ),
}
WORKERS = (0, 1)
#: What goes well comes more often.
CHOICES = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 3])
WAITS = st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, 6.0, 25.0])
FAULTS = ("crash", "cut", "cut", "empty", "duplicate", "duplicate")


@dataclass(eq=False)
class Message:
    """A message of poll tasks, in a lane until it is due and then in its queue.

    `holder` is the worker that has it and has not acked it.
    """

    backend: str
    tasks: list[Task]
    deliveries: int = 0
    holder: "Worker | None" = None

    @property
    def due(self) -> float:
        return max(task.due for task in self.tasks)


@dataclass(eq=False)
class Gate:
    """Where a worker waits to be let on, and what may come of it, the good outcome first."""

    where: str
    outcomes: Sequence[str]
    open: "asyncio.Future[Any]"
    do: Callable[[str], Any]


@dataclass(eq=False)
class Part:
    """A delivery as a round sees it."""

    worker: "Worker"
    message: Message
    epoch: int
    deliveries: int

    @property
    def tasks(self) -> list[Task]:
        return self.message.tasks

    async def ack(self) -> None:
        await self.worker.pause("ack")
        if self.epoch == self.worker.epoch and self.message in self.worker.world.messages:
            self.worker.world.messages.remove(self.message)


@dataclass(eq=False)
class Run:
    """A job at the backend, and how often its start arrived there."""

    state: str = "running"
    progress: float = 0.0
    arrivals: int = 0


class Worker:
    """A worker process: real rounds and sweeps, on a model of everything that they talk to."""

    def __init__(self, world: "Promise") -> None:
        self.world = world
        self.gates: list[Gate] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.sweeping: asyncio.Task[None] | None = None
        self.epoch = 0
        self.since = world.clock
        self.waiting: dict[str, list[Message]] = {}  # at the last look at the watermark
        self.arrived: dict[str, float] = {}
        self.marks: dict[str, float] = {}
        self.dead = False
        self.poller = cast(Any, Poller.__new__(Poller))
        self.poller.queues = [(name, 0) for name in BACKENDS]
        self.poller.publisher = self.poller.subscriber = self
        self.poller.database = self.database = Database(self)
        self.poller.lateness = Lateness()
        self.poller.rounds = {
            name: Rounds(
                cast(Any, Backend(self, options)),
                options,
                database=self.database,
                publisher=cast(Any, self),
                layer=self,
                receivers=cast(Any, self),
                draw=lambda: 0.5,
            )
            for name, options in BACKENDS.items()
        }
        self.sweeper = Sweeper(
            self.poller.queues,
            BACKENDS,
            database=self.database,
            publisher=cast(Any, self),
            watermark=self.watermark,
            tell_ended=self.poller.tell_ended,
        )

    async def pause(
        self,
        where: str,
        outcomes: Sequence[str] = ("on",),
        do: Callable[[str], Any] = lambda outcome: outcome,
    ) -> Any:
        """Wait until the machine lets this worker on.

        Returns what `do` made of the outcome that the machine chose, outside the loop.
        """
        if self.dead:
            raise asyncio.CancelledError
        gate = Gate(where, outcomes, asyncio.get_running_loop().create_future(), do)
        self.gates.append(gate)
        try:
            return await gate.open
        finally:
            self.gates.remove(gate)

    def begin(self, doing: Any) -> "asyncio.Task[None]":
        """Something of the worker's own to do, beside what it does."""
        task = self.world.loop.create_task(doing)
        self.tasks.add(task)
        task.add_done_callback(self.over)
        self.world.pump()
        return task

    def sweep(self) -> None:
        """Look for lost jobs, where the look before is over."""
        if self.sweeping is None or self.sweeping.done():
            self.sweeping = self.begin(self.sweeper.sweep())

    def over(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.world.broken.append(f"a worker's loop ended: {error!r}")

    def end(self) -> None:
        """kill -9: nothing more happens here, and what was not acked goes back."""
        self.dead = True
        rounds = self.poller.rounds.values()
        for task in self.tasks.union(*(each.commits.background for each in rounds)):
            task.cancel()
        self.world.pump()
        self.cut()

    def cut(self) -> None:
        """The connection is lost: what was not acked comes again, and acks for it mean nothing."""
        self.epoch += 1
        self.since = self.world.clock
        self.marks.clear()
        for message in self.world.messages:
            if message.holder is self:
                message.holder = None
                message.deliveries += 1

    # As the subscriber

    def restart(self, reason: str) -> None:
        if reason == "a round failed":
            self.world.broken.append(f"{reason}: {sys.exc_info()[1]!r}")
        self.cut()

    def watermark(self, queue: str) -> float | None:
        now, self.waiting[queue] = self.world.clock, self.world.deliverable(queue)
        if now - max(self.since, self.arrived.get(queue, 0.0)) >= 3 and not self.waiting[queue]:
            return now
        return self.marks.get(queue)

    # As the publisher

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float, spread: float = 0.0
    ) -> None:
        def store(outcome: str) -> str:
            if outcome != "lost":
                self.world.store(backend, tasks)
            return outcome

        outcome = await self.pause("publish", ("confirmed", "stored, not confirmed", "lost"), store)
        if outcome != "confirmed":
            raise PublishFailed(outcome)
        await self.pause("published")

    # As the channel layer

    async def group_send(self, group: str, message: Mapping[str, Any]) -> bool:
        await self.pause("push")
        return True

    # As the signal receivers

    exist = True

    async def send(self, rows: Sequence[Row]) -> list[str]:
        await self.pause("signals")
        self.world.told |= {row.id for row in rows if not row.active}
        return [row.id for row in rows]


class Database(WorkerDatabase):
    """The database as one worker reaches it, with the real patience.

    It may be away, and the answer of what was done may be lost.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.worker = worker

    async def _run(self, function: Any) -> Any:
        if not isinstance(function, partial):
            return None  # its connection is let go of
        name = function.func.__name__

        def do(outcome: str) -> tuple[str, Any]:
            if outcome == "away":
                return outcome, None
            asked = function
            if function.func is ledger.commit and outcome == "answer lost":
                decided = [(replace(row), decision) for row, decision in function.args[0]]
                asked = partial(
                    ledger.commit, decided, *function.args[1:]
                )  # its rows stay as they are
            return outcome, self.worker.world.call(self.worker, asked)

        outcome, answer = await self.worker.pause(name, ("done", "answer lost", "away"), do)
        await self.worker.pause(f"{name} {outcome}")
        if outcome != "done":
            raise OperationalError(outcome)
        return answer


class Backend:
    """The backend as one worker reaches it."""

    def __init__(self, worker: Worker, options: Options) -> None:
        self.worker, self.options = worker, options

    async def start(self, job: JobView) -> str:
        world = self.worker.world
        asked = world.clock
        if asked > world.kept[job.id].intent + TIMEOUT:
            world.broken.append("a start that a sweep may have given to somebody else")
        outcome = await self.worker.pause(
            "start", ("taken", "answer lost", "never came", "refused")
        )
        if outcome == "refused":
            raise BackendError(outcome, sent=False)
        if outcome != "never came":
            run = world.runs[self.options.name].setdefault(job.id, Run())
            run.arrivals += 1
            if outcome == "taken":
                await self.worker.pause("started")
        if outcome != "taken" or world.clock > asked + TIMEOUT:
            raise BackendError("late", sent=True)
        return f"handle-{job.id}"

    async def poll(self, jobs: Sequence[JobView]) -> dict[str, Status | BackendError]:
        outcome = await self.worker.pause("poll", ("answered", "late"))
        world = self.worker.world
        for job in jobs:
            assert job.handle == f"handle-{job.id}", "polled before it was started"
            world.polls[job.id] += 1
        runs = world.runs[self.options.name]
        if outcome == "late":
            return {job.id: BackendError("late") for job in jobs}
        answers: Any = {
            job.id: Status(state=runs[job.id].state, progress=runs[job.id].progress) for job in jobs
        }  # type: ignore[arg-type]  # one of the states
        await self.worker.pause("polled")
        return dict(answers)

    async def cancel(self, job: JobView) -> Status | None:
        outcome = await self.worker.pause("cancel", ("cancelled", "answer lost", "late"))
        run = self.worker.world.runs[self.options.name][job.id]
        if outcome != "late" and run.state == "running":
            run.state = "cancelled"
        if outcome != "cancelled":
            raise BackendError(outcome)
        return None if run.state == "cancelled" else Status(state=run.state)  # type: ignore[arg-type]  # as above


@dataclass
class Kept:
    """What was seen of a job before; it only grows, and ends once."""

    version: int = 0
    turn: int = 0
    end: Any = None
    intent: float = 0.0
    cancelled: bool = False
    claimed: int = 0
    story: str = ""
    risks: int = 0  # crashes that were counted, and claims, since a round committed
    winners: set[int] = field(default_factory=set)
    due: float = 0.0  # when the task of its turn is due, by what was decided


class Promise(RuleBasedStateMachine):
    """Everything that may happen to a handful of jobs."""

    @initialize(
        jobs=st.lists(
            st.tuples(st.sampled_from(list(BACKENDS)), st.integers(1, 2)), min_size=1, max_size=2
        )
    )
    def prepare(self, jobs: list[tuple[str, int]]) -> None:
        Job.objects.all().delete()
        Attention.objects.all().delete()
        self.loop = asyncio.new_event_loop()
        self.clock = 1_800_000_000.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sweeper, "OWED", -1.0)  # the database's clock stands still
        for name in ("now", "measured", "elapsed"):
            self.patch.setattr(clock, name, lambda: self.clock)
        self.patch.setattr(asyncio, "sleep", self.sleep)
        self.patch.setattr(conf, "backends", lambda: BACKENDS)
        self.messages: list[Message] = []
        self.runs: dict[str, dict[str, Run]] = {name: {} for name in BACKENDS}
        self.jobs: list[str] = []
        self.kept: dict[str, Kept] = {}
        self.polls: Counter[str] = Counter()
        self.broken: list[str] = []
        self.told: set[str] = set()  # the jobs whose `job_finished` was sent
        self.calm = True  # nothing went wrong yet, and nobody was slow
        self.workers = [Worker(self) for _ in WORKERS]
        for backend, tasks in jobs:
            self.start(backend, tasks, given=False)

    # What the workers' models use

    async def sleep(self, seconds: float) -> None:
        """Patience takes no time of its own: the gates do."""

    def pump(self) -> None:
        """Let everything run that need not wait."""
        while self.loop._ready:  # type: ignore[attr-defined]  # there is no public way to ask
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def rows(self) -> dict[str, Row]:
        return ledger.load(self.jobs)

    def call(self, worker: Worker, call: "partial[Any]") -> Any:
        """A function of the ledger, with what must be true of each commit and each claim."""
        function, args, before = call.func, call.args, self.rows()
        if function is ledger.commit:
            wanted_by_job = {row.id: (row.turn, decision) for row, decision in args[0]}
        answer = call()
        if function is ledger.commit:
            for change in answer:
                job = change.row.id
                row = before[job]
                turn, wanted = wanted_by_job[job]
                if row.turn == turn + 1:  # the answer to its commit was lost, and it asks again
                    assert row.state == wanted.state or not change.visible, (
                        "told to have won, and another did"
                    )
                    continue
                assert row.turn not in self.kept[job].winners, f"two winners of turn {row.turn}"
                self.kept[job].winners.add(row.turn)
                if wanted.error.startswith("given up"):
                    assert self.kept[job].risks >= MOST_CRASHES, "given up without its crashes"
                elif not wanted.crashes:
                    self.kept[job].risks = 0
                if wanted.state == "starting":
                    self.kept[job].intent = self.clock
                    assert row.state != "queued" or not row.cancel_requested, (
                        "started though it was to be cancelled"
                    )
                due = self.kept[job].due
                if row.state == "running" and self.clock < due - 1e-3:
                    resumed = min(due, self.clock + BACKENDS[row.backend].interval)
                    assert not wanted.asked, "a look before its task was due"
                    assert cast(float, change.due) >= resumed - 1e-3, "a look is brought forward"
                self.kept[job].due = change.row.due_at if change.due is None else change.due
        elif function is ledger.sweep:
            for job, turn in answer:
                row = before[job]
                self.kept[job].due = self.clock
                assert turn == row.turn
                self.kept[job].claimed = turn
                self.kept[job].risks += 1
                arrived = max(
                    (w.arrived.get(NAMES.poll_queue(row.backend, 0), 0.0) for w in self.workers),
                    default=0.0,
                )
                waits = any(
                    self.valid(message, {job: row})
                    for message in worker.waiting[NAMES.poll_queue(row.backend, 0)]
                )
                assert not (waits and arrived < row.due_at + GRACE), "a backlog bred a duplicate"
        elif function is ledger.count_crash and answer:
            self.kept[args[0]].risks += 1
        return answer

    def store(self, backend: str, tasks: Sequence[Task]) -> None:
        rows = self.rows()
        for task in tasks:
            row = rows[task.job_id]
            assert task.turn <= row.turn, "a task was published before its turn was committed"
            opened = (
                row.state == "starting" and task.turn == row.turn and not BACKENDS[backend].repeat
            )
            assert not opened or self.kept[row.id].claimed == row.turn, (
                "only a sweep brings a task to an open intent"
            )
        self.messages.append(Message(backend, list(tasks)))

    def deliverable(self, queue: str) -> list[Message]:
        """What waits in a queue, in its order."""
        found = [
            m
            for m in self.messages
            if m.holder is None and m.due <= self.clock and NAMES.poll_queue(m.backend, 0) == queue
        ]
        return sorted(found, key=lambda message: message.due)

    @staticmethod
    def valid(message: Message, rows: Mapping[str, Row]) -> list[str]:
        """The jobs for which a message still means something."""
        return [
            t.job_id
            for t in message.tasks
            if t.job_id in rows and rows[t.job_id].active and rows[t.job_id].turn == t.turn
        ]

    # What may happen

    @rule(
        backend=st.sampled_from(list(BACKENDS)),
        tasks=st.sampled_from([0, 1, 1, 2]),
        given=st.booleans(),
    )
    def start(self, backend: str, tasks: int, given: bool) -> None:
        """A visitor starts a job.

        The web process may die before it publishes the task, or publish it twice.
        """
        if len(self.jobs) >= 4:
            return
        key = uuid.UUID(int=len(self.jobs) + 1)
        now = datetime.fromtimestamp(self.clock, UTC)
        deadline = datetime.fromtimestamp(self.clock + BACKENDS[backend].deadline, UTC)
        Job(
            id=key, bucket=0, audience="user:1", backend=backend, due_at=now, deadline_at=deadline
        ).save(force_insert=True)  # fmt: skip
        self.jobs.append(str(key))
        self.kept[str(key)] = Kept()
        for n in range(tasks):
            self.store(backend, [Task(str(key), 1, self.clock)])
            if given:
                self.give(self.workers[n], backend, 1, last=True)

    @precondition(lambda self: self.jobs)
    @rule(
        n=st.integers(0, 3),
        published=st.sampled_from([True, True, False]),
        worker=st.sampled_from(WORKERS),
        steps=st.integers(0, 9),
    )
    def cancel(self, n: int, published: bool, worker: int, steps: int) -> None:
        """A visitor cancels, as `ProgressConsumer` does; mostly somewhere in a worker's round."""
        self.go_on(worker, steps)
        row = ledger.request_cancel(self.jobs[n % len(self.jobs)], self.clock)
        if row is not None:
            self.kept[row.id].cancelled = True
        if row is not None and row.state == "running":
            self.second_task(row, published)

    @precondition(lambda self: self.jobs)
    @rule(
        published=st.sampled_from([True, True, False]),
        worker=st.sampled_from(WORKERS),
        steps=st.integers(0, 9),
    )
    def come(self, published: bool, worker: int, steps: int) -> None:
        """Somebody opens the page; mostly somewhere in a worker's round."""
        self.go_on(worker, steps)
        for row, *_ in attention.watch(["user:1"]):
            self.second_task(row, published)

    @precondition(lambda self: self.jobs)
    @rule(n=st.integers(0, 3), worker=st.sampled_from(WORKERS), steps=st.integers(0, 9))
    def look_now(self, n: int, worker: int, steps: int) -> None:
        """An operator wants a job to be looked at now; mostly somewhere in a worker's round."""
        self.go_on(worker, steps)
        for row, *_ in ledger.make_due([self.jobs[n % len(self.jobs)]], self.clock):
            self.second_task(row)

    def second_task(self, row: Row, published: bool = True) -> None:
        """Another task of the same turn, by a web process, which may die before it publishes it."""
        self.kept[row.id].due = min(self.kept[row.id].due, row.due_at)
        if published:
            self.store(row.backend, [Task(row.id, row.turn, row.due_at)])

    @rule(
        worker=st.sampled_from(WORKERS),
        backend=st.sampled_from(list(BACKENDS)),
        count=st.integers(1, 3),
        last=st.booleans(),
    )
    def deliver(self, worker: int, backend: str, count: int, last: bool) -> None:
        """A worker gets what waits, or what came last of it, and begins a round."""
        self.give(self.workers[worker], backend, count, last)

    def give(self, worker: Worker, backend: str, count: int, last: bool = False) -> bool:
        waiting = self.deliverable(NAMES.poll_queue(backend, 0))
        chosen = waiting[-count:] if last else waiting[:count]
        for message in chosen:
            message.holder = worker
            worker.arrived[NAMES.poll_queue(backend, 0)] = self.clock
            worker.marks[NAMES.poll_queue(backend, 0)] = min(message.due, self.clock)
        if chosen:
            parts = [Part(worker, message, worker.epoch, message.deliveries) for message in chosen]
            worker.begin(worker.poller._round(backend, 0, parts))
        return bool(chosen)

    @rule(
        moves=st.lists(
            st.tuples(st.sampled_from(WORKERS), st.integers(0, 3), CHOICES, WAITS),
            min_size=1,
            max_size=12,
        )
    )
    def step(self, moves: list[tuple[int, int, int, float]]) -> None:
        """Some of the things that workers wait for happen, with time between them."""
        for worker, gate, outcome, seconds in moves:
            if gates := self.workers[worker].gates:
                self.let_on(gates[gate % len(gates)], outcome)
                self.wait(seconds)

    def let_on(self, gate: Gate, outcome: int = 0) -> None:
        self.calm = self.calm and not outcome % len(gate.outcomes)
        gate.open.set_result(gate.do(gate.outcomes[outcome % len(gate.outcomes)]))
        self.pump()

    @rule(worker=st.sampled_from(WORKERS), steps=st.integers(2, 40))
    def go_on(self, worker: int, steps: int) -> None:
        """All goes well for a while with one worker, which takes what waits; the other is idle."""
        for _ in range(steps):
            if not self.workers[worker].gates and not any(
                self.give(self.workers[worker], name, 1) for name in BACKENDS
            ):
                return
            if self.workers[worker].gates:
                self.let_on(self.workers[worker].gates[0])

    @rule(worker=st.sampled_from(WORKERS), n=st.integers(0, 20), what=st.sampled_from(FAULTS))
    def disturb(self, worker: int, n: int, what: str) -> None:
        """One of the faults."""
        self.calm = False
        if what == "crash":
            self.crash(worker)
        elif what == "cut":  # it loses its connection, or RabbitMQ gives up a frozen one
            self.workers[worker].cut()
        elif what == "empty":  # RabbitMQ is replaced by an empty one
            self.messages.clear()
            for each in self.workers:
                each.cut()
        elif self.messages:  # a message comes twice
            message = self.messages[n % len(self.messages)]
            self.messages.append(
                Message(message.backend, message.tasks, message.deliveries + n % 2)
            )

    def crash(self, worker: int) -> None:
        """A worker ends, and another one takes its place."""
        self.workers[worker].end()
        self.workers[worker] = Worker(self)

    @rule(
        worker=st.sampled_from(WORKERS),
        backend=st.sampled_from(list(BACKENDS)),
        times=st.integers(3, 8),
        steps=st.integers(4, 8),
    )
    def kill(self, worker: int, backend: str, times: int, steps: int) -> None:
        """What comes first kills each worker that takes it, somewhere in its round."""
        self.calm = False
        for _ in range(times):
            if self.give(self.workers[worker], backend, 1):
                for _ in range(steps):
                    if gates := self.workers[worker].gates:
                        self.let_on(gates[0])
            self.crash(worker)

    @rule(seconds=st.sampled_from([0.5, 5.0, 5.0, 7.0, 12.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; whoever waits at a gate is slow, or frozen."""
        self.calm = self.calm and not (seconds and any(worker.gates for worker in self.workers))
        self.clock += seconds

    @rule(worker=st.sampled_from(WORKERS), after=st.sampled_from([0.0, 0.0, 30.0]))
    def sweep(self, worker: int, after: float) -> None:
        """A worker looks for lost jobs, perhaps after a silence."""
        self.wait(after)
        self.workers[worker].sweep()

    @rule(n=st.integers(0, 3))
    def move(self, n: int) -> None:
        """The backend gets on with a job. Else it answers as before."""
        for runs in self.runs.values():
            for job, run in runs.items():
                run.progress += job == self.jobs[n % len(self.jobs)]

    @rule(n=st.integers(0, 3), state=st.sampled_from(["succeeded", "failed"]))
    def finish(self, n: int, state: str) -> None:
        """The backend is done with a job."""
        for runs in self.runs.values():
            for job, run in runs.items():
                if job == self.jobs[n % len(self.jobs)] and run.state == "running":
                    run.state = state

    # What must be true

    @invariant()
    def the_promise(self) -> None:
        if not hasattr(self, "jobs"):
            return  # not prepared yet
        assert not self.broken, self.broken
        for job, row in ledger.load(self.jobs, attention=True, large=True).items():
            kept = self.kept[job]
            self.the_story(row, kept)
            free = row.state != "running" or row.attempts or not row.watched
            assert free or kept.due <= self.clock + INTERVAL + 1e-3, (
                "watched, and looked at as if nobody were there"
            )
            assert row.version >= kept.version, "a version fell"
            assert row.turn >= kept.turn, "a turn fell"
            end = (
                (row.state, row.version, row.turn, row.message, row.error, row.ended)
                if row.state in ENDED
                else None
            )
            assert kept.end in (None, end), "a change after the end"
            assert row.state != "cancelled" or kept.cancelled, (
                "cancelled, and nobody had asked for it"
            )
            kept.version, kept.turn, kept.end = row.version, row.turn, end
            latest = max(2 * TIMEOUT + 60, BACKENDS[row.backend].lease * (1 + LEASE_DRAW))
            assert not row.active or row.due_at <= self.clock + latest, (
                "due so late that no sweep will come"
            )
        for run in self.runs["once"].values():
            assert run.arrivals <= 1, "started twice where the backend takes no repeat"

    def the_story(self, row: Row, kept: Kept) -> None:
        """Milestones are only ever added, each once, and they say what the row says."""
        assert row.milestones.startswith(kept.story), "a milestone was taken back"
        kept.story = row.milestones
        seen = [event.what for event in row.story]
        assert len(seen) == len(set(seen)), f"a milestone twice: {row.story}"
        assert ("cancel_asked" in seen) is row.cancel_requested
        assert ("started" in seen) is bool(row.handle)
        assert "refused" in seen or not row.attempts
        assert (row.state in seen) is (row.state in {*ENDED, "queued"})

    # When faults stop

    def teardown(self) -> None:
        try:
            if hasattr(self, "jobs") and not self.broken:
                self.settle()
        finally:
            for worker in getattr(self, "workers", []):
                worker.end()
            if hasattr(self, "loop"):
                for task in asyncio.all_tasks(self.loop):
                    task.cancel()
                self.pump()
                self.loop.close()
                self.patch.undo()

    def settle(self) -> None:
        """Everything is left alone: each job has one live loop, and then its end."""
        done = self.quietly(1500, lambda: all(self.lives_once(row) for row in self.rows().values()))
        self.the_promise()
        assert done, f"a job without a task, or with two for ever: {self.rows()} {self.messages}"
        before = Counter(self.polls)
        for _ in range(4):
            self.quietly(INTERVAL)
        for job, row in self.rows().items():
            assert self.polls[job] - before[job] <= 5, "polled faster than its interval"
            assert not self.kept[job].cancelled or not row.active, "a cancelled job lives on"
            for runs in self.runs.values():
                if job in runs and runs[job].state == "running":
                    runs[job].state = "succeeded"
        done = self.quietly(
            1500, lambda: not any(row.active or row.owed for row in self.rows().values())
        )
        assert done, f"a job without an end, or whose end is owed for ever: {self.rows()}"
        for row in self.rows().values():
            run = self.runs[row.backend].get(row.id)
            if row.state == "succeeded":
                assert run is not None
                assert run.state == "succeeded"
            elif row.state == "failed" and row.error.startswith("outcome unknown"):
                assert (row.backend, self.calm) == ("once", False), (
                    "an outcome unknown without a reason"
                )
            elif row.state == "failed" and not row.error.startswith("given up"):
                assert run, f"failed before it was started: {row.error}"
                assert run.state == "failed", f"failed by nobody's word: {row.error}"
            assert row.id in self.told, f"job_finished was never sent: {row}"
        self.the_promise()

    def lives_once(self, row: Row) -> bool:
        if not row.active:
            return True
        tasks = sum(self.valid(message, {row.id: row}).count(row.id) for message in self.messages)
        return tasks == 1 and row.due_at >= self.clock - 1 and not self.kept[row.id].cancelled

    def quietly(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let it all go well until the condition holds; False when the time was over before."""
        end, swept = self.clock + seconds, self.clock
        while self.clock < end and not self.broken:
            self.finish_all()
            while not self.broken and [
                w for w in self.workers for name in BACKENDS if self.give(w, name, 1)
            ]:
                self.finish_all()
            if until():
                return True
            if self.clock >= swept + 5:
                swept = self.clock
                for worker in self.workers:
                    worker.sweep()
                    self.finish_all()
                continue
            dues = [
                message.due
                for message in self.messages
                if message.holder is None and message.due > self.clock
            ]
            self.clock = min([*dues, swept + 5.0, end])
        return False

    def finish_all(self) -> None:
        """Both workers step by step, so that two tasks of one turn meet."""
        while any(worker.gates for worker in self.workers):
            for worker in self.workers:
                for gate in list(worker.gates):
                    self.let_on(gate)


@pytest.fixture
def database(django_db_blocker: Any) -> Iterator[None]:
    """The default connection of this thread, on a database in memory."""
    with django_db_blocker.unblock(), own_database("sqlite://:memory:"):
        yield


@pytest.mark.usefixtures("database")
def test_the_promise_holds_whatever_happens() -> None:
    run_state_machine_as_test(
        Promise,
        settings=settings(
            max_examples=250,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
