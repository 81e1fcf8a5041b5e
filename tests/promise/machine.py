"""Everything that may happen to a handful of jobs, and what must be true all the same.

The ledger, the rounds, the sweeper and the marks of what is sent on are real. RabbitMQ, the backend
and time are a model, see `tests.promise.workers`.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from typing import Any, cast

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from progrock import attention, clock, conf, dispatch, ledger
from progrock.backends import Options
from progrock.broker.lanes import lane_for, ttl
from progrock.broker.names import NAMES
from progrock.broker.tasks import Task
from progrock.consumers import sweeper
from progrock.lease import DRAW
from progrock.ledger import Committed, Row
from progrock.lifecycle import MOST_CRASHES
from progrock.models import ENDED, Attention, Job
from tests.promise.workers import HAND, TIMEOUT, WORKER, Gate, Hand, Message, Run, Worker

#: Seconds: the usual interval, that of jobs which nobody watches, and one that takes two lanes and
#: is longer than the sweep's grace.
INTERVAL, UNWATCHED, LONG = 5.0, 20.0, 15.0
#: For so long after its due time a job is not swept (seconds).
GRACE = 10.0
#: From the moment on which a job may be swept, this much passes at most until it is: a silence
#: that is believed, and the time between two sweeps.
SWEPT_WITHIN = 3.0 + 5.0
#: How long a backend may ask to be left alone: longer than one lease, and shorter than another.
PAUSES = (None, 12.0, 45.0)


def _options(name: str, interval: float = INTERVAL, **more: Any) -> Options:
    return Options(name=name, interval=interval, timeout=TIMEOUT, deadline=1e6, shards=1, **more)


#: One with the usual lease, one that also depends on who watches, one with the shortest lease, and
#: one whose looks are all written.
BACKENDS = {
    "render": _options("render", cancels=True),
    "seldom": _options("seldom", cancels=True, unwatched=UNWATCHED),
    "long": _options("long", LONG, cancels=True, lease=4 * LONG),
    "once": _options("once", repeat=False, lease=0.0),
}
WORKERS = (0, 1)
#: What goes well comes more often.
CHOICES = st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2, 3])
WAITS = st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, 6.0, 25.0])
FAULTS = ("crash", "cut", "cut", "empty", "late", "duplicate", "duplicate")


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
    due: float = 0.0  # when the first task of its turn is due, by what was decided
    paused: bool = False  # the backend wants a longer pause than the interval


class Promise(RuleBasedStateMachine):
    """Everything that may happen to a handful of jobs."""

    @initialize(
        jobs=st.lists(
            st.tuples(st.sampled_from([*BACKENDS, "long"]), st.integers(1, 2)),
            min_size=1,
            max_size=2,
        ),
        watched=st.booleans(),
        looks=st.sampled_from([0, 0, 3, 5, 9]),
    )
    def prepare(
        self, jobs: list[tuple[str, int]], *, watched: bool = False, looks: int = 0
    ) -> None:
        """Jobs with so many tasks each, of which each was looked at so often in good times."""
        Job.objects.all().delete()
        Attention.objects.all().delete()
        self.loop = asyncio.new_event_loop()
        self.clock = 1_800_000_000.0
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(sweeper, "OWED", -1.0)  # the database's clock stands still
        for name in ("now", "measured", "elapsed"):
            self.patch.setattr(clock, name, self.now)
        self.patch.setattr(asyncio, "sleep", self.sleep)
        self.patch.setattr(conf, "backends", lambda: BACKENDS)
        self.patch.setattr(dispatch, "unwritten", self.unwritten)
        draws = cycle([0.5, 0.0, 0.99])
        self.draw: Callable[[], float] = lambda: next(draws)
        self.messages: list[Message] = []
        self.runs: dict[str, dict[str, Run]] = {name: {} for name in BACKENDS}
        self.jobs: list[str] = []
        self.kept: dict[str, Kept] = {}
        self.polls: Counter[str] = Counter()
        self.spared: Counter[str] = Counter()  # looks that were not written
        self.broken: list[str] = []
        self.told: set[str] = set()  # the jobs whose `job_finished` was sent
        self.calm = True  # nothing went wrong yet, and nobody was slow
        self.sound = True  # and no message was left out, overtook another, or waited for long
        self.hands: list[Hand] = []
        self.workers = [Worker(self, BACKENDS) for _ in WORKERS]
        if watched:
            self.come(published=True, worker=0, steps=0)
        for backend, tasks in jobs:
            self.start(backend, tasks, given=False)
        self.look_on(worker=0, looks=looks)

    # What the workers' models use

    def now(self) -> float:
        worker = WORKER.get()
        return self.clock if worker is None else worker.now()

    async def sleep(self, seconds: float) -> None:
        """Patience takes no time of its own: the gates do."""

    def pump(self) -> None:
        """Let everything run that need not wait."""
        # asyncio has no public way to ask whether anything is ready.
        while self.loop._ready:  # type: ignore[attr-defined]  # noqa: SLF001
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def rows(self) -> dict[str, Row]:
        return ledger.load(self.jobs)

    def unwritten(self, row: Row, delay: float, now: float) -> Committed:
        """A look that is not written, as `dispatch.unwritten`."""
        self.spared[row.id] += 1
        hand = HAND.get()
        held = hand.tasks.get((row.id, row.turn)) if hand else None
        if not (held and held.only and self.has_lease(row, now)):
            self.broken.append(f"a look that should have been written: {held} {row}")
        if delay < BACKENDS[row.backend].interval - 1e-3:
            self.broken.append("two looks that are not written are nearer than the interval")
        return Committed(row, delay, False, None, now + delay)

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
                kept = self.kept[job]
                assert row.turn not in kept.winners, f"two winners of turn {row.turn}"
                kept.winners.add(row.turn)
                if wanted.error.startswith("given up"):
                    assert kept.risks >= MOST_CRASHES, "given up without its crashes"
                elif not wanted.crashes:
                    kept.risks = 0
                if wanted.state == "starting":
                    kept.intent = self.clock
                    assert row.state != "queued" or not row.cancel_requested, (
                        "started though it was to be cancelled"
                    )
                if row.state == "running" and worker.now() < kept.due - 1e-3:
                    looks = kept.due, worker.now() + BACKENDS[row.backend].interval
                    assert not wanted.asked, "a look before its task was due"
                    due = cast(float, change.due)
                    assert due >= min(looks) - 1e-3, "a look is brought forward"
                    assert due <= max(looks) + 1e-3, "a resumed job waits until its lease ends"
                kept.due = change.row.due_at if change.due is None else change.due
                if wanted.asked:
                    soon = wanted.delay if wanted.soon is None else wanted.soon
                    kept.paused = soon is not None and soon > INTERVAL
        elif function is ledger.sweep:
            for job, turn in answer:
                row = before[job]
                assert turn == row.turn
                assert not self.sound, f"nothing went wrong, and a job is swept: {row}"
                kept = self.kept[job]
                kept.due = min(kept.due, self.clock)
                kept.claimed = turn
                kept.risks += 1
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

    def store(
        self,
        backend: str,
        tasks: Sequence[Task],
        delay: float = 0.0,
        *,
        doubled: Collection[str] = (),
        now: float | None = None,
    ) -> None:
        """RabbitMQ takes a message, into the lane of its delay."""
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
        left = min(task.due for task in tasks) - (self.clock if now is None else now)
        lane = lane_for(delay)
        arrives = self.clock + (ttl(lane, left) if lane else 0.0)
        self.messages.append(Message(backend, list(tasks), arrives, doubled=frozenset(doubled)))
        for row in rows.values():
            self.there_is_one_that_need_not_write(row)

    def deliverable(self, queue: str) -> list[Message]:
        """What waits in a queue, in its order."""
        found = [
            m
            for m in self.messages
            if m.holder is None
            and m.is_ready(self.clock)
            and NAMES.poll_queue(m.backend, 0) == queue
        ]
        return sorted(found, key=lambda message: message.arrives)

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
        self.sound = self.sound and tasks > 0
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
            self.second_task(row, 0.0, published)

    @precondition(lambda self: self.jobs)
    @rule(
        published=st.sampled_from([True, True, False]),
        worker=st.sampled_from(WORKERS),
        steps=st.integers(0, 9),
    )
    def come(self, published: bool, worker: int, steps: int) -> None:
        """Somebody opens the page; mostly somewhere in a worker's round."""
        self.go_on(worker, steps)
        for row, delay, *_ in attention.watch(["user:1"]):
            self.second_task(row, delay or 0.0, published)

    @precondition(lambda self: self.jobs)
    @rule(n=st.integers(0, 3), worker=st.sampled_from(WORKERS), steps=st.integers(0, 9))
    def look_now(self, n: int, worker: int, steps: int) -> None:
        """An operator wants a job to be looked at now; mostly somewhere in a worker's round."""
        self.go_on(worker, steps)
        for row, delay, *_ in ledger.make_due([self.jobs[n % len(self.jobs)]], self.clock):
            self.second_task(row, delay or 0.0)

    def second_task(self, row: Row, delay: float, published: bool = True) -> None:
        """Another task of the same turn, by a web process, which may die before it publishes it."""
        self.kept[row.id].due = min(self.kept[row.id].due, row.due_at)
        self.sound = self.sound and published
        if published:
            self.store(row.backend, [Task(row.id, row.turn, row.due_at)], delay)

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
        queue = NAMES.poll_queue(backend, 0)
        waiting = self.deliverable(queue)
        chosen = waiting[-count:] if last else waiting[:count]
        self.sound = self.sound and chosen == waiting[:count]
        for message in chosen:
            worker.arrived[queue] = self.clock
            worker.marks[queue] = message.arrives
        if chosen:
            worker.begin(worker.work(backend, chosen))
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
        if outcome % len(gate.outcomes):
            self.goes_wrong()
        gate.open.set_result(gate.do(gate.outcomes[outcome % len(gate.outcomes)]))
        self.pump()

    def goes_wrong(self) -> None:
        self.calm = self.sound = False

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
        self.goes_wrong()
        if what == "crash":
            self.crash(worker)
        elif what == "cut":  # it loses its connection, or RabbitMQ gives up a frozen one
            self.workers[worker].cut()
        elif what == "empty":  # RabbitMQ is replaced by an empty one
            self.messages.clear()
            for each in self.workers:
                each.cut()
        elif self.messages:
            message = self.messages[n % len(self.messages)]
            if what == "late":  # it leaves its lane late
                message.arrives = max(message.arrives, self.clock) + 20.0 * (1 + n % 3)
            else:  # it comes twice
                self.double(message, n % 2)

    def double(self, message: Message, deliveries: int = 0) -> None:
        """RabbitMQ makes a second message of one."""
        self.goes_wrong()
        doubled = frozenset(task.job_id for task in message.tasks)
        self.messages.append(
            Message(
                message.backend,
                message.tasks,
                message.arrives,
                message.deliveries + deliveries,
                doubled=doubled,
            )
        )

    def crash(self, worker: int) -> None:
        """A worker ends, and another one takes its place."""
        self.goes_wrong()
        self.workers[worker].end()
        self.workers[worker] = Worker(self, BACKENDS)

    @rule(
        worker=st.sampled_from(WORKERS),
        backend=st.sampled_from(list(BACKENDS)),
        times=st.integers(3, 8),
        steps=st.integers(4, 8),
    )
    def kill(self, worker: int, backend: str, times: int, steps: int) -> None:
        """What comes first kills each worker that takes it, somewhere in its round."""
        for _ in range(times):
            if self.give(self.workers[worker], backend, 1):
                for _ in range(steps):
                    if gates := self.workers[worker].gates:
                        self.let_on(gates[0])
            self.crash(worker)

    @rule(seconds=st.sampled_from([0.5, 5.0, 5.0, 7.0, 12.0, 30.0, 70.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; whoever waits at a gate is slow, or frozen."""
        if seconds and any(worker.gates for worker in self.workers):
            self.goes_wrong()
        self.clock += seconds
        waits = [each.arrives for each in self.messages if each.holder is None]
        self.sound = self.sound and min(waits, default=self.clock) > self.clock - GRACE

    @rule(worker=st.sampled_from(WORKERS), looks=st.integers(1, 8))
    def look_on(self, worker: int, looks: int) -> None:
        """Look after look goes well, each when it is due."""
        for _ in range(looks):
            self.go_on(worker, 40)
            if not any(each.gates for each in self.workers):
                self.clock = max(self.clock, min(self.next_ones(), default=self.clock))

    @rule(worker=st.sampled_from(WORKERS), after=st.sampled_from([0.0, 0.0, 30.0]))
    def sweep(self, worker: int, after: float) -> None:
        """A worker looks for lost jobs, perhaps after a silence."""
        self.wait(after)
        self.workers[worker].sweep()

    @rule(n=st.integers(0, 3), what=st.sampled_from(["moved", "moved", "wants a pause"]))
    def get_on(self, n: int, what: str) -> None:
        """The backend has got on with a job. Until then it answers as before."""
        for run in self.runs_of(n):
            if what == "moved":
                run.progress += 1
            else:
                run.pause = PAUSES[(PAUSES.index(run.pause) + 1) % len(PAUSES)]

    @rule(n=st.integers(0, 3), state=st.sampled_from(["succeeded", "failed"]))
    def finish(self, n: int, state: str) -> None:
        """The backend is done with a job."""
        for run in self.runs_of(n):
            if run.state == "running":
                run.state = state

    def runs_of(self, n: int) -> list[Run]:
        """A job at its backend, if it is there."""
        job = self.jobs[n % len(self.jobs)]
        return [runs[job] for runs in self.runs.values() if job in runs]

    # What must be true

    @invariant()
    def the_promise(self) -> None:
        if not hasattr(self, "jobs"):
            return  # not prepared yet
        assert not self.broken, self.broken
        for job, row in ledger.load(self.jobs, attention=True, large=True).items():
            kept = self.kept[job]
            self.the_story(row, kept)
            self.there_is_one_that_need_not_write(row)
            if BACKENDS[row.backend].unwatched and row.watched and not row.attempts:
                assert row.state != "running" or kept.paused or kept.due <= self.clock + INTERVAL, (
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
            lease = BACKENDS[row.backend].lease * (1 + DRAW)
            latest = max(2 * TIMEOUT + 60, lease if row.state == "running" else 0.0)
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

    def there_is_one_that_need_not_write(self, row: Row) -> None:
        """Of the tasks of a turn that RabbitMQ did not make, at most one may lead to no write."""
        found = self.need_not_write(row)
        assert len(found) <= 1, f"two looks of a turn that need no write: {row} {found}"

    def need_not_write(self, row: Row, *, doubled: bool = False) -> list[object]:
        """The tasks of a job's turn whose next look may write nothing.

        With `doubled`, those that RabbitMQ has made as well.
        """
        if not self.has_lease(row, self.clock):
            return []
        interval = BACKENDS[row.backend].interval
        found: list[object] = [
            message
            for message in self.messages
            for task in message.tasks
            if (task.job_id, task.turn) == (row.id, row.turn)
            and message.holder is None
            and not (message.deliveries or task.again)
            and (doubled or row.id not in message.doubled)
            and max(self.clock, message.arrives, task.due) + interval <= row.due_at
        ]
        for hand in self.hands:
            held = hand.tasks.get((row.id, row.turn))
            if held and held.only and (doubled or not held.doubled):
                found.append(hand)
        return found

    @staticmethod
    def has_lease(row: Row, now: float) -> bool:
        """Whether a look that finds nothing new may leave the row as it is."""
        troubles = row.attempts or row.crashes or row.sweeps or row.cancel_requested
        interval = BACKENDS[row.backend].interval
        return row.state == "running" and not troubles and now + interval <= row.due_at

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
        self.finish_all()
        within = {job: self.latest(row) for job, row in self.rows().items()}
        done = self.quietly(1500, lambda: self.all_live_once(within))
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

    def latest(self, row: Row) -> float:
        """Until when a job that was not swept in vain has one live task again, if all goes well.

        One without a task comes back when its lease is over and it is swept. Of two tasks that
        RabbitMQ made of one, the look after the lease leaves one.
        """
        if row.sweeps:
            return float("inf")
        options = BACKENDS[row.backend]
        lease = max(row.due_at - self.clock, options.lease * (1 + DRAW))
        live = self.live(row)
        if not live:
            return max(row.due_at, self.clock) + GRACE + SWEPT_WITHIN
        arrives = max(message.arrives for message in live)
        return max(arrives, self.clock) + lease + max(options.interval, 45.0)

    def live(self, row: Row) -> list[Message]:
        return [m for m in self.messages for job in self.valid(m, {row.id: row}) if job == row.id]

    def all_live_once(self, within: dict[str, float]) -> bool:
        """Whether each job has one task; not later than `within` says for it."""
        rows = self.rows()
        waiting = [job for job in within if not self.lives_once(rows[job])]
        for job in list(within):
            if job not in waiting:
                del within[job]
            elif self.clock > within[job]:
                self.broken.append(f"a job that comes back too late: {rows[job]}")
        return all(self.lives_once(row) for row in rows.values())

    def lives_once(self, row: Row) -> bool:
        if not row.active:
            return True
        cancelled = self.kept[row.id].cancelled
        return len(self.live(row)) == 1 and row.due_at >= self.clock - 1 and not cancelled

    def next_ones(self) -> list[float]:
        """When the messages are ready that are not."""
        return [
            message.next(self.clock)
            for message in self.messages
            if message.holder is None and not message.is_ready(self.clock)
        ]

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
            self.clock = min([*self.next_ones(), swept + 5.0, end])
        return False

    def finish_all(self) -> None:
        """Both workers step by step, so that two tasks of one turn meet."""
        while any(worker.gates for worker in self.workers):
            for worker in self.workers:
                for gate in list(worker.gates):
                    self.let_on(gate)
