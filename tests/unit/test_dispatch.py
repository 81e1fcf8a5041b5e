"""What follows a commit, by table: which tasks in which messages, which changes on which feeds."""

import asyncio
import time
from typing import Any

import pytest

from progrock import dispatch, wire
from progrock.audiences import feed_of
from progrock.backends import Options
from progrock.broker.lanes import spread_of
from progrock.broker.tasks import Task, shard_of
from progrock.dispatch import Committed, Message
from progrock.ledger import Row
from tests.jobs import row as any_row

BACKENDS = {"render": Options(name="render", shards=4), "report": Options(name="report", shards=1)}
NOW = 1_800_000_000.0
JOB_ID = "00000000-0000-4000-8000-000000000001"


def row(**changes: Any) -> Row:
    """A running job with a known id and due time."""
    return any_row(**{"id": JOB_ID, "handle": "h1", "state": "running", "due_at": NOW} | changes)


def some(count: int, **changes: Any) -> list[Row]:
    return [row(id=f"00000000-0000-4000-8000-{n:012x}", **changes) for n in range(count)]


@pytest.mark.parametrize(
    ("state", "delay"),
    [
        ("queued", 0.0),
        ("starting", None),  # an open intent is only flagged
        ("running", 0.0),
        ("cancelled", None),
        ("succeeded", None),
    ],
)
def test_after_a_start_or_a_cancel_the_task_is_due_now_unless_a_start_is_under_way(
    state: str, delay: float | None
) -> None:
    job = row(state=state)
    assert dispatch.asked(job) == Committed(job, delay, visible=True)


def test_a_task_bears_what_the_ledger_holds_after_the_commit() -> None:
    job = row(turn=8, due_at=NOW + 5)
    outbound = dispatch.after([Committed(job, 5.0, visible=False)], BACKENDS)
    shard = shard_of(job.id, 4)
    assert outbound.messages == [Message("render", shard, [Task(job.id, 8, NOW + 5)], 5.0)]
    assert outbound.feeds == {}


def test_a_task_is_due_when_the_next_look_is_and_not_when_the_lease_ends() -> None:
    leased = row(turn=8, due_at=NOW + 31)
    outbound = dispatch.after([Committed(leased, 5.0, False, due=NOW + 5)], BACKENDS)
    assert [each.tasks for each in outbound.messages] == [[Task(leased.id, 8, NOW + 5)]]


def test_a_look_that_is_not_written_is_followed_by_a_task_of_the_same_turn() -> None:
    leased = row(turn=8, due_at=NOW + 31)
    same = dispatch.unwritten(leased, 5.0, NOW + 1)
    outbound = dispatch.after([same], BACKENDS)
    [message] = outbound.messages
    assert (message.tasks, message.delay) == ([Task(leased.id, 8, NOW + 6)], 5.0)
    assert outbound.feeds == {}, "a browser sees no difference"
    assert same.milestone is None


def test_each_shard_and_lane_gets_one_message_with_the_shortest_delay_of_its_tasks() -> None:
    rows = some(8)
    delays = [2.5, 2.1, 2.2, 2.3, 7.0, 2.4, 2.6, 0.01]
    changes = [Committed(job, delay, False) for job, delay in zip(rows, delays, strict=True)]
    messages = dispatch.after(changes, BACKENDS).messages
    found = {
        (each.shard, each.delay): [task.job_id[-1] for task in each.tasks] for each in messages
    }
    assert found == {(0, 2.5): ["0"], (0, 7.0): ["4"], (1, 2.1): ["1", "5"], (2, 2.2): ["2", "6"],
                     (3, 2.3): ["3"], (3, 0.01): ["7"]}  # fmt: skip
    assert {each.spread for each in messages} == {0.0}


def test_regular_polls_travel_by_themselves_and_are_spread() -> None:
    regular, retried = some(2, backend="report")
    changes = [Committed(regular, 1.0, False), Committed(retried, 1.5, False)]
    first, second = dispatch.after(changes, BACKENDS).messages
    assert ([task.job_id for task in first.tasks], first.spread) == ([regular.id], spread_of(1.0))
    assert ([task.job_id for task in second.tasks], second.spread) == ([retried.id], 0.0)


def test_a_look_at_a_job_that_nobody_watches_is_a_regular_one_as_well() -> None:
    rarely = {"render": Options(name="render", shards=1, unwatched=20.0)}
    watched, unwatched = some(2)
    changes = [Committed(watched, 1.0, False), Committed(unwatched, 20.0, False)]
    messages = dispatch.after(changes, rarely).messages
    assert [each.spread for each in messages] == [spread_of(1.0), spread_of(20.0)]


def test_a_job_that_ended_or_has_no_configured_backend_gets_no_task_and_is_shown() -> None:
    ended, unknown = row(state="failed"), row(backend="gone")
    changes = [Committed(ended, None, True), Committed(unknown, 0.0, True)]
    outbound = dispatch.after(changes, BACKENDS)
    assert outbound.messages == []
    assert outbound.feeds == {feed_of("user:1"): [wire.change_of(ended), wire.change_of(unknown)]}


def test_a_swept_job_keeps_its_turn_and_is_due_now() -> None:
    message = dispatch.swept("render", 2, [("a", 3), ("b", 9)], NOW)
    assert message == Message("render", 2, [Task("a", 3, NOW), Task("b", 9, NOW)], 0.0)


async def test_each_part_runs_to_its_end_before_a_failure_is_raised() -> None:
    done: list[str] = []

    async def slow() -> None:
        await asyncio.sleep(0.01)
        done.append("slow")

    async def fail() -> None:
        raise ValueError(time.time())

    with pytest.raises(ValueError, match=r"\d"):
        await dispatch.to_the_end([fail(), slow()])
    assert done == ["slow"]
    with pytest.raises(ExceptionGroup):
        await dispatch.to_the_end([fail(), slow(), fail()])
