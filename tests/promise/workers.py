"""Workers in the model of the promise, and all that they talk to.

Their rounds, their sweeps, and how they cut a delivery are real. RabbitMQ, the backend and time are
a model. Each await of a worker is a gate. The machine opens it when it likes, with the outcome that
it likes. So rounds of two workers mix in any order, a worker freezes by not being let on, and it
crashes between any two steps.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from django.db import OperationalError

from progrock import ledger
from progrock.backends import BackendError, JobView, Options
from progrock.backends.base import Status
from progrock.broker.due import DueTasks
from progrock.broker.errors import PublishFailed
from progrock.broker.lanes import SHORTEST
from progrock.broker.names import NAMES
from progrock.broker.tasks import Task
from progrock.consumers.lateness import Lateness
from progrock.consumers.poller import Poller
from progrock.consumers.rounds import Rounds
from progrock.consumers.sweeper import Sweeper
from progrock.consumers.worker_database import WorkerDatabase
from progrock.ledger import Row
from progrock.lifecycle import one_by_one

if TYPE_CHECKING:
    from tests.promise.machine import Promise

TIMEOUT = 5.0
#: More tasks than there ever are.
ALL = 10_000


@dataclass(eq=False)
class Message:
    """A message of poll tasks, in a lane until it arrives, and then in its queue.

    `holder` is the worker that has it and has not acked it. `doubled` are the jobs whose task here
    exists because RabbitMQ had made a second message of one.
    """

    backend: str
    tasks: list[Task]
    arrives: float
    deliveries: int = 0
    holder: "Worker | None" = None
    doubled: frozenset[str] = frozenset()

    def is_ready(self, now: float) -> bool:
        """Whether it can be worked. A rest shorter than the shortest lane is waited for first."""
        return self.arrives <= now and not any(0 < task.due - now < SHORTEST for task in self.tasks)

    def next(self, now: float) -> float:
        """When it is ready next, if it is not."""
        if self.arrives > now:
            return self.arrives
        return min(task.due for task in self.tasks if task.due > now)


@dataclass
class Held:
    """A task in the hands of a worker: whether no delivery of it may be a copy, and `doubled`."""

    only: bool
    doubled: bool


@dataclass(eq=False)
class Hand:
    """What a worker works on at once, by job and turn, until it publishes what follows."""

    worker: "Worker"
    tasks: dict[tuple[str, int], Held] = field(default_factory=dict)

    def take(self, message: Message, tasks: Iterable[Task]) -> None:
        """Take tasks of a message; those that are worked one by one are taken last."""
        for task in tasks:
            only = not (message.deliveries or task.again)
            doubled = task.job_id in message.doubled
            held = self.tasks.setdefault((task.job_id, task.turn), Held(only, doubled))
            if not one_by_one(message.deliveries):
                held.only, held.doubled = held.only and only, held.doubled and doubled


#: What is being worked on where the code runs now; None in a sweep.
HAND: ContextVar[Hand | None] = ContextVar("hand", default=None)
#: Which worker the code runs in; None in the machine itself.
WORKER: ContextVar["Worker | None"] = ContextVar("worker", default=None)


@dataclass(eq=False)
class Gate:
    """Where a worker waits to be let on, and what may come of it, the good outcome first."""

    where: str
    outcomes: Sequence[str]
    open: "asyncio.Future[Any]"
    do: Callable[[str], Any]


@dataclass(eq=False)
class Delivered:
    """A message in the hands of a worker, as `broker.consumer.Delivery`."""

    worker: "Worker"
    message: Message
    epoch: int
    deliveries: int
    shard: int = 0

    @property
    def backend(self) -> str:
        return self.message.backend

    @property
    def queue(self) -> str:
        return NAMES.poll_queue(self.backend, 0)

    @property
    def tasks(self) -> list[Task]:
        return self.message.tasks

    async def ack(self) -> None:
        await self.worker.pause("ack")
        if self.epoch == self.worker.epoch and self.message in self.worker.world.messages:
            self.worker.world.messages.remove(self.message)

    def redeliver(self, reason: str) -> None:
        self.worker.restart(reason)


@dataclass(eq=False)
class Run:
    """A job at the backend, and how often its start arrived there.

    `pause` is how long the backend asks to be left alone after a look (seconds), if it does.
    """

    state: str = "running"
    progress: float = 0.0
    pause: float | None = None
    arrivals: int = 0


class Worker:
    """A worker process: real rounds and sweeps, on a model of everything that they talk to."""

    def __init__(self, world: "Promise", backends: Mapping[str, Options]) -> None:
        self.world = world
        self.behind = 0.0  # so many seconds is its clock behind the others
        self.gates: list[Gate] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.sweeping: asyncio.Task[None] | None = None
        self.epoch = 0
        self.since = world.clock
        self.waiting: dict[str, list[Message]] = {}  # at the last look at the watermark
        self.arrived: dict[str, float] = {}
        self.marks: dict[str, float] = {}
        self.dead = False
        self.due = DueTasks(cast(Any, self), clock=self.now)
        self.poller = cast(Any, Poller.__new__(Poller))
        self.poller.queues = [(name, 0) for name in backends]
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
                draw=lambda: world.draw(),
            )
            for name, options in backends.items()
        }
        self.sweeper = Sweeper(
            self.poller.queues,
            backends,
            database=self.database,
            publisher=cast(Any, self),
            watermark=self.watermark,
            tell_ended=self.poller.tell_ended,
        )

    def now(self) -> float:
        return self.world.clock - self.behind

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
        token = WORKER.set(self)
        task = self.world.loop.create_task(doing)
        WORKER.reset(token)
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
        self.world.hands = [hand for hand in self.world.hands if hand.worker is not self]

    def cut(self) -> None:
        """The connection is lost: what was not acked comes again, and acks for it mean nothing."""
        self.epoch += 1
        self.since = self.world.clock
        self.marks.clear()
        for message in self.world.messages:
            if message.holder is self:
                message.holder = None
                message.deliveries += 1

    # What arrives

    async def work(self, backend: str, messages: Sequence[Message]) -> None:
        """Send on what has come early, and make a round of the rest."""
        hand = Hand(self)
        for message in sorted(messages, key=lambda message: message.deliveries):
            message.holder = self
            early = [task for task in message.tasks if task.due - self.now() >= SHORTEST]
            hand.take(message, [task for task in message.tasks if task not in early])
            sent_on = Hand(self)
            sent_on.take(message, early)
            self.world.hands.append(sent_on)
            HAND.set(sent_on)  # for what `add` does beside this
            self.due.add(cast(Any, Delivered(self, message, self.epoch, message.deliveries)))
        if hand.tasks:
            HAND.set(hand)
            with self.holds(hand):
                parts = await self.due.take(NAMES.poll_queue(backend, 0), ALL)
                await self.poller.work(backend, 0, parts)

    @contextmanager
    def holds(self, hand: Hand) -> Iterator[None]:
        self.world.hands.append(hand)
        try:
            yield
        finally:
            if hand in self.world.hands:
                self.world.hands.remove(hand)

    # As the subscriber

    def restart(self, reason: str) -> None:
        if reason == "a round failed":
            self.world.broken.append(f"{reason}: {sys.exc_info()[1]!r}")
        self.cut()

    def watermark(self, queue: str) -> float | None:
        now, self.waiting[queue] = self.world.clock, self.world.deliverable(queue)
        if now - max(self.since, self.arrived.get(queue, 0.0)) >= 3 and not self.waiting[queue]:
            return self.now()
        return self.marks.get(queue)

    # As the publisher

    async def ready(self) -> None:
        if await self.pause("ready", ("connected", "not connected")) != "connected":
            raise PublishFailed("not connected")

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float, spread: float = 0.0
    ) -> None:
        hand = HAND.get()

        def store(outcome: str) -> str:
            doubled = set()
            for task in tasks:  # from here on its worker does no more with it
                held = hand.tasks.pop((task.job_id, task.turn), None) if hand else None
                if held and held.doubled:
                    doubled.add(task.job_id)
            if outcome != "lost":
                self.world.store(backend, tasks, delay, doubled=doubled, now=self.now())
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
        if outcome == "late":
            return {job.id: BackendError("late") for job in jobs}
        runs = world.runs[self.options.name]
        answers: dict[str, Status | BackendError] = {
            job.id: Status(
                state=run.state,  # type: ignore[arg-type]  # one of the states
                progress=run.progress,
                retry_after=run.pause,
            )
            for job in jobs
            for run in [runs[job.id]]
        }
        await self.worker.pause("polled")
        return answers

    async def cancel(self, job: JobView) -> Status | None:
        outcome = await self.worker.pause("cancel", ("cancelled", "answer lost", "late"))
        run = self.worker.world.runs[self.options.name][job.id]
        if outcome != "late" and run.state == "running":
            run.state = "cancelled"
        if outcome != "cancelled":
            raise BackendError(outcome)
        return None if run.state == "cancelled" else Status(state=run.state)  # type: ignore[arg-type]  # as above
