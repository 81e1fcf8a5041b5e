"""The ledger's rules on both databases: turns, cancels, claims, snapshots, repairs."""

import json
import sqlite3
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from progrock import doors, ledger, wire
from progrock.attempts import NoAnswer, attempt
from progrock.backends import Options
from progrock.broker.tasks import shard_of
from progrock.lease import resumed
from progrock.ledger import Row
from progrock.lifecycle import Decision
from progrock.models import Job
from progrock.storable import storable_result
from tests.language import options
from tests.ledgers import at, make, step


@pytest.fixture(autouse=True)
def empty(database: str) -> None:
    """No job is left of the test before."""
    Job.objects.all().delete()


def hidden(row: Row, **changes: Any) -> tuple[Row, Decision]:
    """A step that shows nothing new."""
    return step(row, progress=row.progress, message=row.message, **changes)


def commit(*steps: tuple[Row, Decision], now: float | None = None) -> dict[str, Row]:
    """The rows of the steps that won, by id."""
    won = ledger.commit(steps, time.time() if now is None else now)
    return {each.row.id: each.row for each in won}


@pytest.mark.parametrize("progress", [42.5, 7.0])
@pytest.mark.parametrize("lost", [False, True])
def test_a_look_reads_what_it_needs_and_a_change_brings_what_a_browser_sees(
    progress: float, lost: bool
) -> None:
    whole = make(request="r-1", label="Words", audience="user:7", progress=7.0, message="halfway")
    [read] = ledger.load_for_looks([whole.id], params=False).values()
    assert (read.params, read.audience, read.created) == ("", "", "")
    for name in ledger.looked_at():
        assert getattr(read, name) == getattr(whole, name), name
    decided, now = [step(read, progress=progress)], time.time()
    won = ledger.commit([(replace(row), decision) for row, decision in decided], now)
    if lost:
        won = ledger.committed(decided, now)
    [change] = won
    assert change.visible is (progress != 7.0)
    after = ledger.load([whole.id], results=True)[whole.id]
    assert change.row.turn == after.turn
    assert not change.visible or wire.change_of(change.row) == wire.change_of(after)


def test_a_look_reads_params_where_its_backend_asks_for_them() -> None:
    whole = make()
    [read] = ledger.load_for_looks([whole.id]).values()
    assert (read.params, read.watched) == (whole.params, True)


def test_a_lease_that_lasts_until_the_next_look_is_kept_and_then_drawn_anew() -> None:
    """So the sweep's index is written once a lease, and not at each change of a job."""
    now, row = float(int(time.time())), make()
    for seconds, progress, lease, wanted in (
        (0.0, 1.0, 16.0, 16.0),
        (1.0, 2.0, 13.0, 16.0),
        (14.9, 3.0, 18.0, 16.0),
        (15.1, 4.0, 18.0, 15.1 + 18.0),  # the next look comes after its end
    ):
        [read] = ledger.load_for_looks([row.id]).values()
        [won] = ledger.commit([step(read, progress=progress)], now + seconds, lease)
        assert won.due == now + seconds + 1.0
        after = ledger.load([row.id])[row.id]
        assert after.due_at == pytest.approx(now + wanted, abs=1e-5)
        assert won.row.due_at == pytest.approx(after.due_at, abs=1e-5)


@pytest.mark.parametrize("changes", [{"state": "queued"}, {"attempts": 1}, {}])
def test_what_is_no_lease_is_not_kept(changes: dict[str, Any]) -> None:
    """A due time may be far away for another reason: a queued job, a failure, a long pause."""
    now = time.time()
    row = make(due_at=datetime.fromtimestamp(now + 600, UTC), **changes)
    ledger.commit([step(row)], now, 16.0)
    assert ledger.load([row.id])[row.id].due_at == pytest.approx(now + 16.0, abs=1e-5)


@pytest.mark.parametrize("news", [{}, {"progress": None, "message": ""}], ids=["news", "none"])
@pytest.mark.parametrize(
    ("row_has", "decided", "leased"),
    [
        ({}, {}, True),
        ({"state": "starting", "handle": ""}, {"handle": "h1"}, True),
        ({"attempts": 2}, {}, True),  # it answers again
        ({}, {"attempts": 1}, False),
        ({"state": "queued", "handle": ""}, {"state": "queued", "attempts": 1}, False),
        ({"state": "queued", "handle": ""}, {"state": "starting", "opens_intent": True}, False),
        ({"cancel_requested": True}, {}, False),
        ({}, {"delay": 20.0}, False),  # a pause that is longer than a lease
    ],
)
def test_a_commit_writes_when_the_lease_ends_and_tells_when_the_task_is_due(
    row_has: dict[str, Any], decided: dict[str, Any], leased: bool, news: dict[str, Any]
) -> None:
    now = time.time()
    row = make(**row_has)
    taken = step(row, **news | decided)
    delay = taken[1].delay
    assert delay is not None
    [won] = ledger.commit([taken], now, 16.0)
    due_at = now + (16.0 if leased else delay)
    there = ledger.load([row.id])[row.id]
    assert there.due_at == pytest.approx(due_at, abs=1e-5)
    assert won.row.due_at == pytest.approx(due_at, abs=1e-5)
    [slot] = Job.objects.filter(pk=row.id).values_list("due_slot", flat=True)
    assert slot == int(due_at // 5), "a sweep looks for it when its lease has ended"
    if not taken[1].opens_intent:
        assert (won.delay, won.due) == (delay, pytest.approx(now + delay))


def test_a_cancel_in_the_middle_of_a_round_leaves_no_lease() -> None:
    now, row = time.time(), make()
    ledger.request_cancel(row.id, now)
    [won] = ledger.commit([step(row)], now, 16.0)
    assert (won.delay, won.due, won.row.due_at) == (0.0, now, now)
    assert ledger.load([row.id])[row.id].due_at == pytest.approx(now, abs=1e-5)


def test_who_makes_a_second_task_ends_the_lease() -> None:
    now = float(int(time.time()))
    rows = {why: make(due_at=datetime.fromtimestamp(now + 16, UTC)) for why in ("cancel", "look")}
    ledger.request_cancel(rows["cancel"].id, now)
    ledger.make_due([rows["look"].id], now)
    for row in ledger.load([row.id for row in rows.values()]).values():
        assert row.due_at == now


def test_a_job_that_is_resumed_by_two_messages_takes_one_turn() -> None:
    now = time.time()
    row = make(due_at=datetime.fromtimestamp(now + 10, UTC))
    read = ledger.load([row.id])[row.id]
    decision = resumed(read, Options(name="render"), now)
    [won] = ledger.commit([(read, decision), (read, decision)], now, 16.0)
    assert won.row.turn == ledger.load([row.id])[row.id].turn == row.turn + 1
    assert won.due == pytest.approx(now + 1.0)
    assert not won.visible


def test_a_row_comes_back_as_it_was_written() -> None:
    due = 1_800_000_000.125
    row = make(
        due_at=datetime.fromtimestamp(due, UTC),
        request="r-1",
        progress=1.5,
        message="ünïcode ' \" %s",
    )
    assert (row.due_at, row.request, row.progress) == (due, "r-1", 1.5)
    assert json.loads(row.params) == {"a": [1, "ü"]}
    assert row.message == "ünïcode ' \" %s"
    assert wire.job_frame(row)["created"].endswith("Z")
    assert (
        abs(datetime.fromisoformat(wire.job_frame(row)["created"]).timestamp() - time.time()) < 60
    )
    assert (row.version, row.turn, row.active, row.ended, row.cancel_requested) == (
        1,
        3,
        True,
        None,
        False,
    )
    assert ledger.load([str(uuid.uuid4())]) == {}


def test_of_two_steps_of_one_turn_one_wins() -> None:
    row = make()
    now = time.time()
    late = step(row, message="late", delay=5.0)
    first = commit(step(row, delay=5.0), now=now)[row.id]
    assert commit(late) == {}
    assert late[0] == row, "what lost stays as it was"
    assert (first.turn, first.version) == (4, 2)
    assert abs(first.due_at - now - 5) < 1e-5
    there = ledger.load([row.id])[row.id]
    assert (there.turn, there.version, there.message, there.progress) == (4, 2, "halfway", 42.5)
    assert replace(there, due_at=first.due_at) == first, "the row is what the ledger holds"


def test_a_batch_is_won_row_by_row() -> None:
    rows = [make() for _ in range(100)]
    lost = {row.id for row in rows[::3]}
    won = commit(*(step(row, turn=row.turn - (row.id in lost)) for row in rows))
    assert won.keys() == {row.id for row in rows} - lost


def test_a_commit_whose_answer_was_lost_is_known_again() -> None:
    now = time.time()
    shown, unseen, ended, other, lost = (make() for _ in range(5))

    def steps() -> list[tuple[Row, Decision]]:
        return [
            step(shown, message="news", delay=1.5),
            hidden(unseen, delay=2.5),
            step(ended, state="failed", delay=None),
            step(other),
            step(lost),
        ]

    won = commit(*steps()[:3], now=now)
    commit(step(other, delay=3.0), now=now)  # another worker was first
    assert commit(*steps()[:4], now=now) == {}
    found = {each.row.id: each.row for each in ledger.committed(steps(), now)}
    assert found.keys() == won.keys()
    for job_id, row in won.items():
        assert abs(found[job_id].due_at - row.due_at) < 1e-5
        assert replace(found[job_id], due_at=row.due_at) == row


@pytest.mark.parametrize("kept", [False, True])
def test_a_commit_with_a_lease_whose_answer_was_lost_is_known_again(kept: bool) -> None:
    """Its task is due after the delay all the same."""
    now = time.time()
    row = make(due_at=datetime.fromtimestamp(now + 9, UTC)) if kept else make()
    steps = [step(row, progress=50.0)]
    ledger.commit([step(row, progress=50.0)], now, 16.0)
    [found] = ledger.committed(steps, now, 16.0)
    assert found.row.due_at == pytest.approx(now + (9 if kept else 16), abs=1e-5)
    assert (found.delay, found.due) == (1.0, pytest.approx(now + 1.0))
    if not kept:
        others = ledger.committed([step(row, progress=50.0)], now, 13.0)
        assert not others, "a commit of this turn that drew another lease"


def test_a_job_that_was_swept_but_not_published_is_not_swept_more_rarely() -> None:
    now = time.time()
    row = make(due_at=at(30))
    claimed = ledger.sweep("render", 0, 1, before=now, grace=10, now=now)
    ledger.unsweep(claimed)
    assert ledger.load([row.id])[row.id].sweeps == 0
    ledger.unsweep([(row.id, row.turn + 1)])
    assert ledger.load([row.id])[row.id].sweeps == 0


def test_an_invisible_step_counts_the_turn_and_not_the_version() -> None:
    row = make()
    [won] = ledger.commit([hidden(row)], time.time())
    assert (won.row.turn, won.row.version, won.visible, won.delay) == (4, 1, False, 1.0)


@pytest.mark.parametrize(
    "result", [None, {"url": "x", "n": [1.5, None, True]}, "text", 0, False, []]
)
def test_an_end_keeps_its_result_and_takes_no_further_step(result: object) -> None:
    row = make()
    kept = storable_result(result)
    end = step(row, state="succeeded", progress=100.0, result=kept, delay=None)
    [won] = ledger.commit([end], time.time())
    assert (won.row.ended is None, won.delay, won.visible) == (False, None, True)
    there = ledger.load([row.id], results=True)[row.id]
    assert (there.state, there.active) == ("succeeded", False)
    assert (there.result, there.result_size) == kept == (won.row.result, won.row.result_size)
    assert commit(step(there)) == {}
    assert ledger.request_cancel(row.id, time.time()) is None


def test_a_cancel_in_the_middle_of_a_round_makes_the_next_step_due_now() -> None:
    row = make()
    asked = ledger.request_cancel(row.id, time.time())
    assert asked is not None
    assert (asked.state, asked.turn, asked.version, asked.cancel_requested) == (
        "running",
        3,
        2,
        True,
    )
    now = time.time()
    [won] = ledger.commit([step(row, delay=60.0)], now)
    assert (won.row.cancel_requested, won.row.version, won.delay) == (True, 3, 0.0)
    assert abs(won.row.due_at - now) < 1e-5
    seen = ledger.load([row.id])[row.id]
    [won] = ledger.commit([step(seen, delay=60.0)], now)
    assert won.row.due_at > now + 59


def test_a_queued_job_is_cancelled_at_once_and_its_task_is_stale() -> None:
    row = make(state="queued", handle="")
    asked = ledger.request_cancel(row.id, time.time())
    assert asked is not None
    assert (asked.state, asked.turn, asked.ended is not None) == ("cancelled", 4, True)
    assert commit(step(row)) == {}
    assert ledger.request_cancel(row.id, time.time()) is None


def test_an_open_intent_is_only_flagged() -> None:
    row = make(state="starting", handle="")
    asked = ledger.request_cancel(row.id, time.time())
    assert asked is not None
    assert (asked.state, asked.turn, asked.due_at, asked.cancel_requested) == (
        "starting",
        3,
        row.due_at,
        True,
    )


def test_jobs_that_wait_are_made_due_now_and_a_wait_that_the_backend_wants_is_kept() -> None:
    now = time.time()
    waits, kept = make(due_at=at(-60)), make(due_at=at(-60), free_at=at(-30))
    retried = make(due_at=at(-60), state="queued", handle="")
    others = [
        make(due_at=at(1)),  # its task is on its way
        make(due_at=at(-20), free_at=at(-30)),  # it waits no longer than the backend wants
        make(due_at=at(-60), state="starting", handle=""),
        make(due_at=at(-60), state="succeeded"),
    ]
    jobs = [waits, kept, retried, *others]
    found = {each.row.id: each for each in ledger.make_due([row.id for row in jobs], now)}
    assert found.keys() == {waits.id, kept.id, retried.id}
    assert [found[row.id].delay for row in (waits, retried)] == [0.0, 0.0]
    assert found[kept.id].delay == pytest.approx(30, abs=5)
    rows = ledger.load([row.id for row in jobs])
    for row in jobs:
        changed = {"due_at": rows[row.id].due_at} if row.id in found else {}
        assert rows[row.id] == replace(row, result=None, **changed), "only `due_at` has changed"
    assert rows[waits.id].due_at == pytest.approx(now, abs=1e-5)
    slots = {str(job.pk): job.due_slot for job in Job.objects.all()}
    assert all(slots[job_id] * 5 <= rows[job_id].due_at for job_id in found), "a sweep finds them"
    [won] = ledger.commit([step(waits, delay=5.0)], now)
    assert won.row.turn == waits.turn + 1, "the second task is of the same turn"


def test_crashes_are_counted_for_one_job_and_a_commit_sets_them_back() -> None:
    row, other = make(), make()
    assert [ledger.count_crash(row.id, row.turn) for _ in range(2)] == [1, 2]
    assert ledger.count_crash(row.id, row.turn + 1) is None
    assert ledger.load([other.id])[other.id].crashes == 0
    commit(step(row))
    assert ledger.load([row.id])[row.id].crashes == 0


def test_a_sweep_claims_what_is_overdue_and_overtaken_once() -> None:
    now = time.time()
    lost, recent = make(due_at=at(30)), make(due_at=at(5))
    make(due_at=at(30), state="succeeded")
    make(due_at=at(30), backend="other")
    shards = {shard_of(row.id, 2) for row in (lost, recent)}
    claimed = [
        c
        for shard in shards
        for c in ledger.sweep("render", shard, 2, before=now, grace=10, now=now)
    ]
    assert claimed == [(lost.id, lost.turn)]
    again = [
        c
        for shard in shards
        for c in ledger.sweep("render", shard, 2, before=now, grace=10, now=now)
    ]
    assert again == []


def test_the_index_of_the_sweep_hides_no_job() -> None:
    """It holds a time not later than `due_at` for each active job, and nothing else."""
    now = time.time()
    stepped, hurried, asked, ended, swept, waiting = (make(due_at=at(30)) for _ in range(6))
    after = commit(step(stepped, delay=3600.0), now=now)[stepped.id]
    commit(step(stepped, turn=9, delay=0.0), now=now)
    commit(hidden(after, delay=7200.0), now=now)
    ledger.request_cancel(hurried.id, now)
    commit(hidden(hurried, delay=3600.0), now=now)
    commit(step(asked, delay=3600.0), now=now)
    ledger.request_cancel(asked.id, now)
    commit(step(ended, state="failed", delay=None), now=now)
    ledger.sweep("render", shard_of(swept.id, 65_536), 65_536, before=now, grace=10, now=now)
    slots = {str(job.pk): job.due_slot for job in Job.objects.all()}
    assert slots.pop(ended.id) is None
    for row in ledger.load(slots).values():
        assert 0 <= slots[row.id] * 5 <= row.due_at
        assert slots[row.id] == 0 or row.due_at - slots[row.id] * 5 < 5
    assert slots[waiting.id] == 0  # of one that was only created


def test_a_backlog_overtakes_nobody() -> None:
    make(due_at=at(30))
    now = time.time()
    assert ledger.sweep("render", 0, 1, before=now - 40, grace=10, now=now) == []


def test_a_job_swept_in_vain_is_swept_more_rarely() -> None:
    now = time.time()
    row = make(due_at=at(30), sweeps=2)
    assert ledger.sweep("render", 0, 1, before=now, grace=10, now=now) == []
    assert ledger.sweep("render", 0, 1, before=now + 11, grace=10, now=now) == [(row.id, row.turn)]
    make(due_at=at(2000), sweeps=50)
    assert len(ledger.sweep("render", 0, 1, before=now, grace=10, now=now)) == 1


def test_a_job_of_a_backend_that_is_gone_ends_at_its_deadline_or_when_it_is_cancelled() -> None:
    before = time.time() - 60
    past = {"backend": "gone", "due_at": at(70), "deadline_at": at(70)}
    late, cancelled = make(**past), make(**past | {"deadline_at": at(-70)}, cancel_requested=True)
    make(**past | {"deadline_at": at(30)})  # a worker that knows the backend may be at it
    make(**past | {"due_at": at(30)})
    make(**past | {"backend": "render"})
    make(**past | {"state": "succeeded"})
    assert set(ledger.end_orphans(["render", "other"], before=before)) == {late.id, cancelled.id}
    assert ledger.end_orphans(["render", "other"], before=before) == []
    rows = ledger.load([late.id, cancelled.id])
    assert (rows[late.id].state, rows[cancelled.id].state) == ("expired", "cancelled")
    assert "no longer configured" in rows[late.id].error
    assert rows[cancelled.id].error == ""
    for row in rows.values():
        assert (row.turn, row.version) == (late.turn + 1, late.version + 1)
        assert row.ended


def test_a_snapshot_has_all_active_jobs_and_the_latest_ended_ones_of_these_audiences() -> None:
    ended = [make(state="succeeded", created_at=at(1000 - n), ended_at=at(n + 1)) for n in range(4)]
    active = make(created_at=at(5000), audience="visitor:x")
    make(audience="user:2")
    found = ledger.snapshot(["user:1", "visitor:x"], ended=2)
    # the two that ended last are those that were started first
    assert [row.id for row in found] == [ended[1].id, ended[0].id, active.id]


def test_a_snapshot_has_the_job_that_ended_last_although_it_was_started_long_ago() -> None:
    waited_for = make(created_at=at(9000))
    for n in range(50):
        make(state="succeeded", created_at=at(100 - n), ended_at=at(100 - n))
    commit(step(waited_for, state="succeeded", progress=100.0, delay=None))
    found = ledger.snapshot(["user:1"])
    assert len(found) == 50
    assert found[-1].id == waited_for.id


def test_since_when_a_job_is_missing_is_kept_and_forgotten() -> None:
    row, since = make(), time.time() - 7.25
    for missing in (since, since, None, since):
        won = commit(step(row, missing_at=missing))[row.id]
        [row] = ledger.load([row.id]).values()
        for each in (row, won):
            assert each.missing_at == (missing and pytest.approx(missing, abs=1e-5))


def story(row: Row) -> list[tuple[str, str]]:
    """The milestones that the ledger holds, with their texts."""
    return [(each.what, each.text) for each in ledger.load([row.id], large=True)[row.id].story]


def test_the_milestones_of_a_life_are_kept_in_their_order_with_the_databases_time() -> None:
    row = make(state="queued", handle="")

    def walk(**changes: Any) -> None:
        nonlocal row
        commit(step(row, **changes))
        [row] = ledger.load([row.id]).values()

    unreachable = "asking again: the\nbackend is unreachable"
    walk(state="starting", handle="", opens_intent=True)
    walk(state="running", handle="h1")
    walk(progress=50.0)
    walk(attempts=1, message=unreachable)
    walk(attempts=0)
    walk(attempts=1, message="asking again: it has failed for the second time")
    ledger.request_cancel(row.id, time.time())
    [row] = ledger.load([row.id]).values()
    walk(cancel_taken=True)
    walk(state="failed", error="it broke", delay=None)
    for n in range(9):
        ledger.note_again(row.id, f"job {n}")
    whole = ledger.load([row.id], large=True)[row.id]
    assert story(row) == [
        ("queued", ""),
        ("started", ""),
        ("refused", "asking again: the backend is unreachable"),
        ("cancel_asked", ""),
        ("cancel_taken", ""),
        ("failed", "it broke"),
        *(("again", f"job {n}") for n in range(6)),
    ]
    times = [event.at for event in whole.story]
    assert times == sorted(times)
    assert all(abs(each.timestamp() - time.time()) < 60 for each in times)
    told = wire.job_frame(whole, whole=True)["milestones"]
    assert [each["what"] for each in told] == [event.what for event in whole.story]
    assert told[0]["at"] == wire.job_frame(row)["created"]
    assert told[5]["at"] == wire.job_frame(row)["ended"]
    assert told[2].keys() == {"at", "what", "text"}
    assert "milestones" not in wire.job_frame(whole)
    assert Job.objects.get(pk=row.id).story == whole.story, "the model tells the same"


def test_a_job_that_is_cancelled_in_the_line_was_asked_for_before_it_ended() -> None:
    row = make(state="queued", handle="")
    ledger.request_cancel(row.id, time.time())
    assert [what for what, _ in story(row)] == ["queued", "cancel_asked", "cancelled"]


def test_what_loses_leaves_no_milestone() -> None:
    row, other = make(), make()
    first = step(row, message="first")
    late = step(row, attempts=1, message="late")
    commit(first)
    won = commit(late, step(other, attempts=1, message="away"))
    assert won.keys() == {other.id}
    assert story(row) == [("queued", "")]
    assert story(other) == [("queued", ""), ("refused", "away")]


def test_of_a_batch_only_the_milestones_are_written_and_told() -> None:
    moved, refused, taken, ended = (make() for _ in range(4))
    steps = [
        step(moved),
        step(refused, attempts=1, message="away 100%"),
        step(taken, cancel_taken=True),
        step(ended, state="succeeded", delay=None),
    ]
    won = {each.row.id: each.milestone for each in ledger.commit(steps, time.time())}
    assert [won[row.id] for row, _ in steps] == [None, "refused", "cancel_taken", "ended"]
    assert story(moved) == [("queued", "")]
    assert story(refused) == [("queued", ""), ("refused", "away 100%")]
    assert story(taken) == [("queued", ""), ("cancel_taken", "")]
    assert story(ended) == [("queued", ""), ("succeeded", "")]


def test_a_look_without_a_milestone_costs_nothing_for_milestones() -> None:
    """Each is one statement, and its columns are the same as before there were milestones."""
    said: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        said.append(sql)
        return execute(sql, params, many, context)

    moved, same, ended = make(), make(), make()
    with connection.execute_wrapper(note):
        commit(step(moved), step(ended, state="succeeded", delay=None))
        commit(hidden(same))
        ledger.load([moved.id], attention=True)
        ledger.snapshot(["user:1"])
    assert len(said) == 4
    assert not [statement for statement in said if "milestones" in statement]
    columns = "n_id, n_turn, n_attempts, n_crashes, n_seen, n_due, n_slot"
    seen = "n_state, n_handle, n_progress, n_message, n_error, n_result, n_result_size"
    assert said[0].startswith(f"WITH v({columns}, {seen}, n_missing, n_taken) AS")
    assert said[1].startswith(f"WITH v({columns}) AS")


def test_a_snapshot_leaves_large_results_out() -> None:
    results = {"x" * 100: False, "x" * 20_000: True, "é" * 8_000: False, "é" * 10_000: True}
    for result, large in results.items():
        end = step(
            make(), state="succeeded", progress=100.0, result=storable_result(result), delay=None
        )
        row = commit(end)[end[0].id]
        [found] = [each for each in ledger.snapshot(["user:1"]) if each.id == row.id]
        assert found.result == (None if large else result)
        assert wire.job_frame(found) == wire.job_frame(row), "a snapshot shows what a change showed"
        assert ("result_url" in wire.job_frame(row)) is large
        assert (
            wire.job_frame(ledger.load([row.id], large=True)[row.id], whole=True)["result"]
            == result
        )


def test_a_repair_sees_recent_changes_of_its_audiences() -> None:
    row, old, other = make(), make(changed_at=at(100)), make(audience="user:2")
    commit(step(row))
    assert ledger.changed_since(["user:1"], 20) == {row.id: ("user:1", 2, False)}
    assert ledger.changed_since(["user:1", "user:2"], 200) == {
        row.id: ("user:1", 2, False),
        old.id: ("user:1", 1, False),
        other.id: ("user:2", 1, False),
    }
    end = commit(step(other, state="succeeded", progress=100.0, delay=None))[other.id]
    assert ledger.versions([row.id, end.id, str(uuid.uuid4())]) == {
        row.id: ("user:1", 2, False),
        end.id: ("user:2", 2, True),
    }


def test_active_jobs_are_counted_by_backend_with_the_first_that_waits() -> None:
    now = datetime.now(UTC)
    for seconds in (5, 9):
        make(due_at=now - timedelta(seconds=seconds))
    make(state="starting", due_at=now - timedelta(hours=1))
    make(state="succeeded", due_at=now - timedelta(hours=1), due_slot=None)
    make(backend="report", state="starting")
    found = ledger.by_backend()
    assert list(found) == ["render", "report"]
    assert found["render"].jobs == 3
    assert found["render"].due == pytest.approx(now.timestamp() - 9, abs=1e-3)
    assert found["report"] == (1, None)


def test_status_names_the_backends_whose_calls_fail_with_the_latest_reason(settings: Any) -> None:
    old = datetime.now(UTC) - timedelta(minutes=5)
    make(attempts=3, message="asking again: an old reason", changed_at=old)
    make(attempts=1, message="asking again: the backend answered without a state")
    make(attempts=0, message="rendering")
    make(attempts=2, message="asking again: given up", state="failed", due_slot=None)
    make(backend="report", attempts=1, state="starting", message="asking again: refused")
    make(backend="transcribe")
    assert ledger.failing() == {
        "render": (2, "asking again: the backend answered without a state"),
        "report": (1, "asking again: refused"),
    }
    settings.PROGROCK_MANAGEMENT_URL = "http://127.0.0.1:1"
    out = StringIO()
    call_command("status", stdout=out, stderr=StringIO(), no_color=True)
    lines = out.getvalue().splitlines()
    assert (
        "render: the last call failed for 2 jobs; the latest:"
        " asking again: the backend answered without a state"
    ) in lines
    assert "report: the last call failed for 1 job; the latest: asking again: refused" in lines
    assert not [line for line in lines if line.startswith("transcribe:")]


def test_status_tells_what_happened_to_a_job_by_the_first_digits_of_its_id() -> None:
    keys = [uuid.UUID(f"aaaaaaaa-0000-4000-8000-00000000000{n}") for n in range(2)]
    row, _ = (make(id=key, due_at=at(-60), label="Solaris") for key in keys)
    make()
    commit(step(row, attempts=1, message="asking again: it is away", delay=60.0))

    def status(digits: str) -> list[str]:
        out = StringIO()
        call_command("status", digits, stdout=out, no_color=True)
        return [" ".join(line.split()) for line in out.getvalue().splitlines()]

    lines = status("aaaaaaaa-0000-4000-8000-000000000000")
    assert lines[:4] == [f"job {row.id}", "backend render Solaris", "audience user:1",
                         "state running"]  # fmt: skip
    assert "failed calls in a row 1" in lines
    due = [line for line in lines if line.startswith("next step due in ")]
    assert due[0].endswith(" s at the latest"), "a running job is looked at before that"
    assert lines[-2].endswith(" queued")
    assert lines[-1].endswith(" refused asking again: it is away")
    for digits, wrong in (
        ("aaaaaaaa", "more than one job whose id begins with aaaaaaaa"),
        ("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "there is no job"),
        ("render", "'render' is no job's id"),
        ("a" * 33, "is no job's id"),
    ):
        with pytest.raises(CommandError, match=wrong):
            status(digits)


def test_one_request_of_an_audience_is_one_job(settings: Any) -> None:
    from progrock import creation

    settings.PROGROCK_MAX_ACTIVE_JOBS = 2
    first, created = creation.create("user:9", "render", {"n": 1}, "r")
    again, created_again = creation.create("user:9", "render", {"n": 1}, "r")
    assert (created, created_again, first.pk) == (True, False, again.pk)
    creation.create("user:9", "render", None, None)
    with pytest.raises(creation.Refused, match="2 of your jobs are active") as refused:
        creation.create("user:9", "render", None, None)
    assert refused.value.code == "too_many_jobs"


def test_a_job_keeps_the_label_that_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from progrock import creation

    named = options(label='"{params.kind} for {params.customer}"')
    monkeypatch.setattr(creation.conf, "backends", lambda: {"render": named})
    job, _ = creation.create("user:6", "render", {"kind": "Film"}, None)
    assert job.label == "Film for …"
    assert ledger.load([str(job.pk)])[str(job.pk)].label == "Film for …"
    monkeypatch.setattr(creation.conf, "backends", lambda: {"render": options(label='"other"')})
    assert wire.job_frame(ledger.snapshot(["user:6"])[0])["label"] == "Film for …"


def test_an_audience_may_start_so_many_jobs_an_hour(settings: Any) -> None:
    from progrock import creation

    settings.PROGROCK_MAX_STARTS_AN_HOUR = 3
    make(audience="user:8", state="succeeded", created_at=at(3700))
    first, _ = creation.create("user:8", "render", {}, "r")
    for _ in range(2):
        job, _ = creation.create("user:8", "render", {}, None)
        assert ledger.request_cancel(str(job.pk), time.time())
    with pytest.raises(creation.Refused, match="started 3 jobs in the last hour, and 3") as refused:
        creation.create("user:8", "render", {}, None)
    assert refused.value.code == "too_many_starts"
    again, created = creation.create("user:8", "render", {}, "r")
    assert (again.pk, created) == (first.pk, False)
    creation.create("user:7", "render", {}, None)
    settings.PROGROCK_MAX_STARTS_AN_HOUR = 0
    creation.create("user:8", "render", {}, None)


def conflict() -> OperationalError:
    """The error by which SQLite tells that two calls met each other."""
    error = OperationalError("database is locked")
    error.__cause__ = sqlite3.OperationalError("database is locked")
    error.__cause__.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


def test_a_start_that_met_others_at_its_last_step_is_tried_again_and_makes_one_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The new row is read in the same transaction, so an error there undoes the start."""
    errors, load = [conflict()], ledger.load

    def meets_others(*args: Any, **kwargs: Any) -> dict[str, Row]:
        if errors:
            raise errors.pop()
        return load(*args, **kwargs)

    monkeypatch.setattr(ledger, "load", meets_others)
    row, created = attempt(lambda: doors.start({}, ["user:1"], "render", {}, None))
    assert (created, errors) == (True, [])
    assert [str(job.pk) for job in Job.objects.all()] == [row.id]


@pytest.mark.parametrize("act", ["start", "cancel"])
def test_a_commit_without_an_answer_may_have_been_done_and_is_told_so(
    act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, commit = make(), connection.commit

    def lost() -> None:
        commit()
        raise OperationalError("the connection is lost")

    def call() -> object:
        if act == "cancel":
            return ledger.request_cancel(row.id, time.time())
        return doors.start({}, ["user:1"], "render", {}, "once")

    with monkeypatch.context() as patch:
        patch.setattr(connection, "commit", lost)
        with pytest.raises(NoAnswer, match="the connection is lost"):
            attempt(call)
    if act == "cancel":
        assert ledger.load([row.id])[row.id].cancel_requested
    else:
        again, created = doors.start({}, ["user:1"], "render", {}, "once")
        assert (again.request, created) == ("once", False)


@pytest.mark.parametrize(
    ("backend", "params", "request_id", "code"),
    [
        ("nope", {}, None, "unknown_backend"),
        (["render"], {}, None, "unknown_backend"),
        ("render", [1], None, "bad_params"),
        ("render", {"x": "y" * 70_000}, None, "bad_params"),
        ("render", {}, 7, "bad_request"),
        ("render", {}, "", "bad_request"),
        ("render", {}, "x" * 101, "bad_request"),
        ("render", {}, "a\x00b", "bad_request"),
        ("render", {"a": "nul \x00"}, None, "bad_params"),
    ],
)
def test_a_start_of_a_wrong_shape_is_refused(
    backend: Any, params: Any, request_id: Any, code: str
) -> None:
    from progrock import creation

    with pytest.raises(creation.Refused) as refused:
        creation.create("user:9", backend, params, request_id)
    assert refused.value.code == code
    assert Job.objects.count() == 0
