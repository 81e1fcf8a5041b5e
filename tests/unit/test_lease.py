"""Traces of looks that write nothing: one for each safeguard of the rule.

Each is played by the state machine of the promise, whose invariants hold after each step, and which
then sees that all jobs settle. Each trace fails without its safeguard.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from progrock import attention
from progrock.lease import DRAW
from progrock.ledger import Row
from tests.ledgers import own_database
from tests.promise.machine import (
    BACKENDS,
    GRACE,
    INTERVAL,
    LONG,
    SWEPT_WITHIN,
    UNWATCHED,
    Promise,
)
from tests.promise.workers import Gate

#: The usual lease of a job with the usual interval, at its longest (seconds).
LEASE = BACKENDS["render"].lease * (1 + DRAW)


@pytest.fixture(scope="module")
def database(django_db_blocker: Any) -> Iterator[None]:
    """The default connection of this thread, on a database in memory."""
    with django_db_blocker.unblock(), own_database("sqlite://:memory:"):
        yield


@pytest.fixture
def world(database: None) -> Iterator[Promise]:
    """The machine. When the trace is over, all jobs must settle."""
    machine = Promise()
    yield machine
    machine.teardown()


def leased(world: Promise, backend: str = "render", looks: int = 3, **more: Any) -> None:
    """A job that runs, whose lease is of the mean length; its next task is due now."""
    world.prepare([(backend, 1)], **more)
    world.draw = lambda: 0.5
    world.look_on(worker=0, looks=looks)
    world.the_promise()


def job(world: Promise) -> Row:
    [row] = world.rows().values()
    return row


def at(world: Promise, worker: int, where: str) -> Gate:
    """The gate of this name, when the worker has come to it."""
    here = world.workers[worker]
    for _ in range(50):
        if found := [gate for gate in here.gates if gate.where == where]:
            return found[0]
        if here.gates:
            world.let_on(here.gates[0])
        else:
            any(world.give(here, name, 1) for name in BACKENDS)
    raise AssertionError(f"the worker never came to {where}: {here.gates}")


def let(world: Promise, worker: int, where: str, outcome: str) -> None:
    """Wait until the worker is at this gate, and let the call there end with this outcome."""
    gate = at(world, worker, where)
    world.let_on(gate, gate.outcomes.index(outcome))


def unpublished(world: Promise) -> int:
    """A leased job whose step was committed, and whose next task was lost. Returns its turn."""
    leased(world)
    world.get_on(n=0, what="moved")
    let(world, 0, "publish", "lost")
    world.finish_all()
    return job(world).turn


def live(world: Promise) -> int:
    return len(world.live(job(world)))


# No fault


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("backend", ["render", "long"])
def test_no_look_without_a_write_leads_behind_the_end_of_the_lease(
    world: Promise, backend: str, draw: float
) -> None:
    """Else a sweep would take a job for lost whose task is on its way."""
    world.prepare([(backend, 1)])
    world.draw = lambda: draw
    world.quietly(20 * LONG)
    assert world.sound
    assert not job(world).sweeps
    assert world.spared[job(world).id] > 5


def test_a_longer_pause_than_the_lease_is_written(world: Promise) -> None:
    leased(world)
    [run] = world.runs_of(0)
    run.pause = LEASE + GRACE + 2 * SWEPT_WITHIN
    world.quietly(3 * run.pause)
    assert world.sound
    polls = world.polls[job(world).id]
    world.quietly(2 * run.pause - 1)
    assert world.polls[job(world).id] - polls <= 2


def test_the_writes_are_what_the_lease_leaves_of_them(world: Promise) -> None:
    leased(world)
    before, turn = world.polls[job(world).id], job(world).turn
    world.quietly(100 * INTERVAL)
    looks, writes = world.polls[job(world).id] - before, job(world).turn - turn
    assert looks >= 99
    assert writes <= looks / 4


# One fault


@pytest.mark.parametrize("lost", ["the confirm", "the ack"])
def test_a_task_that_comes_again_after_its_commit_takes_a_new_turn(
    world: Promise, lost: str
) -> None:
    """The task that follows may be there or not. Two of one turn would both need no write."""
    leased(world)
    world.get_on(n=0, what="moved")
    if lost == "the confirm":
        let(world, 0, "publish", "stored, not confirmed")
    else:
        at(world, 0, "ack")
        world.workers[0].cut()
    turn = job(world).turn
    world.finish_all()
    assert live(world) == 1
    world.go_on(1, 40)
    assert job(world).turn == turn + 1, "it is resumed"
    assert live(world) == 1
    world.look_on(worker=1, looks=3)
    world.the_promise()
    assert live(world) == 1


def test_a_resumed_job_is_looked_at_when_it_would_have_been(world: Promise) -> None:
    """It is not left alone until its lease ends."""
    unpublished(world)
    assert not live(world)
    world.go_on(1, 40)
    [message] = world.live(job(world))
    assert message.tasks[0].due == pytest.approx(world.clock + INTERVAL)


def test_a_resumed_job_keeps_a_pause_that_its_backend_wants(world: Promise) -> None:
    leased(world)
    [run] = world.runs_of(0)
    run.pause = LEASE + 20.0
    let(world, 0, "publish", "lost")
    world.finish_all()
    world.wait(1.0)
    world.go_on(1, 40)
    [message] = world.live(job(world))
    assert message.tasks[0].due == pytest.approx(world.clock - 1.0 + run.pause, abs=0.2)


def test_a_resumed_job_that_nobody_watched_is_looked_at_when_somebody_comes(world: Promise) -> None:
    leased(world, "seldom", looks=1)
    let(world, 0, "publish", "lost")
    world.finish_all()
    assert not live(world)
    world.go_on(1, 40)
    assert job(world).due_at == pytest.approx(world.clock + UNWATCHED)
    world.wait(1.0)
    world.come(published=True, worker=1, steps=0)
    looks = world.polls[job(world).id]
    world.go_on(1, 40)
    assert world.polls[job(world).id] == looks + 1
    world.the_promise()


@pytest.mark.parametrize("lost", ["the confirm", "the ack"])
def test_a_task_that_comes_again_after_a_look_without_a_write_is_written(
    world: Promise, lost: str
) -> None:
    leased(world)
    spared, turn = world.spared[job(world).id], job(world).turn
    if lost == "the confirm":
        let(world, 0, "publish", "stored, not confirmed")
    else:
        at(world, 0, "ack")
        world.workers[0].cut()
    assert (world.spared[job(world).id], job(world).turn) == (spared + 1, turn)
    world.finish_all()
    world.go_on(1, 40)
    assert (world.spared[job(world).id], job(world).turn) == (spared + 1, turn + 1)
    world.the_promise()
    assert live(world) == 1


def test_an_early_task_that_is_sent_on_twice_is_marked(world: Promise) -> None:
    """A message that comes again may have been sent on. The mark makes the copy's look write."""
    leased(world, "long", looks=2)
    turn = job(world).turn
    let(world, 0, "publish", "stored, not confirmed")
    world.go_on(1, 40)
    found = [task for message in world.live(job(world)) for task in message.tasks]
    assert sorted(task.again for task in found) == [False, True]
    assert {task.turn for task in found} == {turn}
    world.the_promise()
    world.look_on(worker=1, looks=2)
    world.look_on(worker=0, looks=2)
    assert job(world).turn > turn
    assert live(world) == 1


def test_a_marked_task_that_is_sent_on_keeps_its_mark(world: Promise) -> None:
    leased(world, "long", looks=2)
    let(world, 0, "publish", "stored, not confirmed")
    for message in world.messages:
        message.arrives = world.clock  # once more too early, all of them
    world.go_on(1, 40)
    found = [task for message in world.live(job(world)) for task in message.tasks]
    assert sorted(task.again for task in found) == [False, True]


def test_a_job_that_was_swept_while_it_lived_is_written(world: Promise) -> None:
    """Its task was late, so it has two now. A clock may be an interval behind the sweeper's."""
    leased(world)
    world.goes_wrong()
    [late] = world.messages
    late.arrives = job(world).due_at + GRACE + 3.0
    world.wait(late.arrives - world.clock)
    world.workers[0].behind = INTERVAL + 1
    late.arrives += 0.5  # so that it is no backlog
    world.workers[1].sweep()
    while world.workers[1].gates:
        world.let_on(world.workers[1].gates[0])
    assert job(world).sweeps == 1
    assert live(world) == 2
    world.wait(0.5)
    spared = world.spared[job(world).id]
    world.the_promise()
    for _ in range(3):
        world.look_on(worker=0, looks=1)
        assert live(world) == 1 or world.spared[job(world).id] == spared
    assert live(world) == 1
    world.workers[0].behind = 0.0


# Second tasks


@pytest.mark.parametrize("where", ["load_for_looks", "poll", "polled", "publish", "ack"])
@pytest.mark.parametrize("who", ["an operator", "a visitor who cancels"])
def test_who_makes_a_second_task_ends_the_lease(world: Promise, who: str, where: str) -> None:
    """A look is under way meanwhile, which may have read the row before."""
    leased(world)
    at(world, 0, where)
    if who == "an operator":
        world.look_now(n=0, worker=1, steps=0)
    else:
        world.cancel(n=0, published=True, worker=1, steps=0)
    assert job(world).due_at <= world.clock
    world.the_promise()
    world.go_on(0, 40)
    world.the_promise()
    world.go_on(1, 40)
    world.the_promise()


def test_who_comes_to_watch_ends_the_lease(world: Promise) -> None:
    """Their job has a lease from the time when somebody watched it before."""
    leased(world, "seldom", looks=0, watched=True)
    world.draw = lambda: 0.99
    came = world.clock
    while world.clock + INTERVAL < came + attention.GOOD_FOR:
        world.look_on(worker=0, looks=1)
    world.wait(came + attention.GOOD_FOR + 0.5 - world.clock)
    assert job(world).due_at > world.clock + INTERVAL
    world.come(published=True, worker=1, steps=0)
    assert job(world).due_at <= world.clock
    assert live(world) == 2
    world.the_promise()
    world.go_on(0, 40)
    world.the_promise()
    world.wait(INTERVAL)
    world.go_on(0, 40)
    assert live(world) == 1


def test_a_cancel_whose_task_was_lost_is_swept_before_the_lease_would_end(world: Promise) -> None:
    leased(world)
    world.disturb(worker=0, n=0, what="empty")
    world.cancel(n=0, published=False, worker=0, steps=0)
    assert world.quietly(GRACE + SWEPT_WITHIN, lambda: job(world).state == "cancelled")


# What it costs


@pytest.mark.parametrize("twice", [False, True])
def test_two_tasks_that_rabbitmq_makes_of_one_are_one_again_within_a_lease(
    world: Promise, twice: bool
) -> None:
    leased(world, looks=2)
    [message] = world.live(job(world))
    world.double(message)
    if twice:
        world.double(message)
    assert len(world.need_not_write(job(world), doubled=True)) == 2 + twice
    version, looks = job(world).version, world.polls[job(world).id]
    began = world.clock
    assert world.quietly(LEASE + INTERVAL, lambda: live(world) == 1 and world.clock > began)
    took = world.clock - began
    assert job(world).version == version, "nothing is pushed"
    more = world.polls[job(world).id] - looks - took / INTERVAL
    assert more <= (1 + twice) * (LEASE / INTERVAL) + 1


def test_a_lost_task_comes_back_within_a_lease_the_grace_and_a_sweep(world: Promise) -> None:
    leased(world, looks=1)  # the lease has just begun
    world.disturb(worker=0, n=0, what="empty")
    assert not live(world)
    looks = world.polls[job(world).id]
    assert world.quietly(LEASE + GRACE + SWEPT_WITHIN, lambda: world.polls[job(world).id] > looks)


def test_a_job_is_resumed_when_there_is_a_connection_again(world: Promise) -> None:
    """RabbitMQ is away for a while. No turn is taken for a task that could not be published."""
    turn = unpublished(world)
    for worker in (0, 1, 0):
        let(world, worker, "ready", "not connected")
        world.finish_all()
        assert not live(world)
        world.wait(1.0)
    world.go_on(1, 40)
    assert job(world).turn == turn + 1
    assert live(world) == 1


def test_a_job_whose_resume_was_not_published_comes_back_by_a_sweep(world: Promise) -> None:
    turn = unpublished(world)
    let(world, 1, "publish", "lost")
    world.finish_all()
    assert job(world).turn == turn + 1
    assert world.quietly(INTERVAL + GRACE + SWEPT_WITHIN, lambda: live(world) == 1)


def test_a_job_that_was_just_started_comes_back_without_waiting_for_a_lease(world: Promise) -> None:
    """Its task was never published, and the task of its start is two turns behind."""
    world.prepare([("render", 1)])
    let(world, 0, "publish", "lost")
    world.finish_all()
    assert job(world).state == "running"
    assert world.quietly(INTERVAL + GRACE + SWEPT_WITHIN, lambda: live(world) == 1)
    assert world.polls[job(world).id]


# The end of the lease at each step, and frozen workers

STEPS = ["load_for_looks", "load_for_looks done", "poll", "polled", "publish", "published", "ack"]


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("where", STEPS)
def test_a_worker_may_freeze_until_its_jobs_are_swept(
    world: Promise, where: str, cut: bool, changed: bool
) -> None:
    """At each step of a look. Its task comes again, or only the sweep brings one."""
    leased(world)
    if changed:
        world.get_on(n=0, what="moved")
    at(world, 0, where)
    world.wait(job(world).due_at + GRACE + 1 - world.clock)
    if cut:
        world.workers[0].cut()
    world.workers[1].sweep()
    world.go_on(1, 40)
    world.the_promise()
    world.look_on(worker=1, looks=2)
    world.go_on(0, 40)
    world.the_promise()
    world.look_on(worker=1, looks=2)
    world.the_promise()


@pytest.mark.parametrize("where", STEPS)
def test_a_frozen_worker_whose_task_comes_again_publishes_nothing_that_counts(
    world: Promise, where: str
) -> None:
    leased(world)
    at(world, 0, where)
    world.workers[0].cut()
    world.go_on(1, 40)
    world.the_promise()
    world.finish_all()
    world.the_promise()
    assert live(world) == 1


def test_a_commit_whose_answer_was_lost_is_known_by_its_lease(world: Promise) -> None:
    leased(world)
    world.get_on(n=0, what="moved")
    let(world, 0, "commit", "answer lost")
    world.finish_all()
    assert live(world) == 1, "its task was published"
    assert not job(world).sweeps


# Who has no lease


def test_each_look_at_a_job_that_nobody_watches_is_written(world: Promise) -> None:
    leased(world, "seldom", looks=4)
    assert not world.spared
    world.come(published=True, worker=0, steps=0)
    world.look_on(worker=0, looks=4)
    assert world.spared


def test_without_a_lease_each_look_is_written(world: Promise) -> None:
    leased(world, "once", looks=6)
    assert not world.spared
    assert job(world).due_at == pytest.approx(world.clock, abs=1e-3)


def test_a_job_whose_calls_fail_has_no_lease(world: Promise) -> None:
    leased(world)
    let(world, 0, "poll", "late")
    world.finish_all()
    assert job(world).attempts == 1
    [message] = world.live(job(world))
    assert job(world).due_at == pytest.approx(message.tasks[0].due, abs=1e-3)
