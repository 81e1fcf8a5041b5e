"""Writes one step of each job of a batch, where the job is still at the turn that was read.

That condition is the fence. If two workers have a task of the same turn, only one of them writes.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any, NamedTuple

from django.db import transaction

from progrock import lifecycle, milestones, sql
from progrock.lease import due_in
from progrock.ledger.rows import Committed, Row, expression, load
from progrock.ledger.table import IS_ACTIVE, TABLE, contains, line, same_time, slot
from progrock.lifecycle import Decision
from progrock.milestones import Milestone

#: The fields of a row that a browser sees and a look does not need, so that they were perhaps not
#: read. A visible step reads them.
_SHOWN = ("audience", "request", "label", "created")


class _Step(NamedTuple):
    """What is written of one job. Its row is due `row_due_in` seconds later."""

    row: Row
    decision: Decision
    row_due_in: float | None
    visible: bool
    milestone: Milestone | None


class _Answer(NamedTuple):
    """What stands in the ledger after a step that won, as far as the step does not say it.

    `ended` is text in UTC. `due_at` is in epoch seconds, None where nobody can have come to watch.
    `shown` are the fields `_SHOWN` of a visible step.
    """

    version: int
    cancel_requested: bool
    ended: str | None
    due_at: float | None
    shown: Sequence[Any] = ()


def commit(
    decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
) -> list[Committed]:
    """Write one step of each job, and give the rows of those that won, changed in place.

    A step wins where its job is active and still at the row's turn. The other rows stay as they
    were. The cancel flag is never written. If it was set since the row was read, the next step is
    due now. `lease` (seconds) is how long the new turns may be looked at without a write.
    """
    steps = [_step(row, decision, now, lease) for row, decision in decided]
    visible = [step for step in steps if step.visible]
    hidden = [step for step in steps if not step.visible]
    # one statement is a transaction by itself
    with transaction.atomic() if visible and hidden else nullcontext():
        won = _write(hidden, now) + _write(visible, now)
    # only now, because what a failed transaction wrote must not show in the rows
    return [_advance(step, answer, now) for step, answer in won]


def committed(
    decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
) -> list[Committed]:
    """After a lost answer of `commit`: which of its steps stand in the ledger.

    Steps that the repeated commit has won are not found again, because their rows have moved on.
    """
    found: list[Committed] = []
    rows = load(row.id for row, _ in decided)
    for row, decision in decided:
        there = rows.get(row.id)
        if there is None or (there.turn, there.state) != (row.turn + 1, decision.state):
            continue
        step = _step(row, decision, now, lease)
        delays = (step.row_due_in, decision.soon, 0.0)
        if any(same_time(there.due_at, now + (delay or 0.0)) for delay in delays):
            shown = [getattr(there, name) for name in _SHOWN] if step.visible else ()
            answer = _Answer(
                there.version, there.cancel_requested, there.ended, there.due_at, shown
            )
            found.append(_advance(step, answer, now))
            row.due_at = there.due_at
    return found


def count_crash(job_id: str, turn: int) -> int | None:
    """Commit `crashes + 1` for one job before a call that may kill the worker.

    Returns the new count, or None where the turn is gone.
    """
    found = sql.execute(
        f"UPDATE {TABLE} SET crashes = crashes + 1 FROM v"
        f" WHERE id = n_id AND turn = n_turn AND {IS_ACTIVE} RETURNING crashes",
        [[*sql.keys([job_id]), turn]],
        ("n_id", "n_turn"),
    )
    return found[0][0] if found else None


def _step(row: Row, decision: Decision, now: float, lease: float) -> _Step:
    visible = lifecycle.is_visible(row, decision)
    milestone = lifecycle.milestone(row, decision) if visible else None
    return _Step(row, decision, due_in(row, decision, lease, now), visible, milestone)


# One statement for a batch


class _Kind(NamedTuple):
    """What the statement of a batch writes beyond the turn, the counters and the next due.

    `visible`: what a browser sees. `told`: milestones; a batch without one, which most are, does
    not touch their column. `paced`: when the next look is due if somebody has come to watch.
    """

    postgresql: bool
    visible: bool
    told: bool
    paced: bool


@cache
def _statement(kind: _Kind) -> tuple[str, tuple[str, ...]]:
    """The statement, and the names of the columns of `v`. Its parameters: now, and now's slot."""
    names = ["n_id", "n_turn", "n_attempts", "n_crashes", "n_seen", "n_due", "n_slot"]
    news = shown = ""
    if kind.visible:
        names += ["n_state", "n_handle", "n_progress", "n_message", "n_error"]
        names += ["n_result", "n_result_size", "n_missing", "n_taken"]
        news = f""", state = n_state, handle = n_handle, progress = n_progress,
        message = n_message, error = n_error, result = n_result, result_size = n_result_size,
        missing_at = n_missing, cancel_taken = n_taken,
        version = version + 1, changed_at = {sql.now()},
        ended_at = CASE WHEN n_slot IS NULL THEN {sql.now()} END,
        owed_at = CASE WHEN n_slot IS NULL THEN {sql.now()} END"""
        shown = "".join(f", {expression(name)}" for name in _SHOWN)
    if kind.told:
        names += ["n_mark", "n_text"]
        news += f""", milestones = CASE WHEN n_mark IS NULL OR {contains("n_mark")} THEN milestones
        ELSE milestones || {line("n_mark", "n_text")} END"""
    # NULL in `free_at` is the mark of `hasten`: somebody has come since the last step
    came, came_slot, due_at = "", "", "NULL"
    if kind.paced:
        names += ["n_soon", "n_soon_slot", "n_free"]
        news += ", free_at = COALESCE(n_free, free_at)"
        came = "WHEN free_at IS NULL AND n_soon IS NOT NULL THEN n_soon"
        came_slot = "WHEN free_at IS NULL AND n_soon IS NOT NULL THEN n_soon_slot"
        due_at = sql.epoch("due_at")
    text = f"""UPDATE {TABLE} SET turn = turn + 1, attempts = n_attempts, crashes = n_crashes,
        sweeps = 0,
        due_at = CASE WHEN cancel_requested AND NOT n_seen THEN %s {came} ELSE n_due END,
        due_slot = CASE WHEN cancel_requested AND NOT n_seen AND n_slot IS NOT NULL
        THEN %s {came_slot} ELSE n_slot END{news} FROM v
        WHERE {sql.is_listed() + " AND" if kind.postgresql else ""}
        id = n_id AND turn = n_turn AND {IS_ACTIVE}
        RETURNING {sql.id_text()}, version, cancel_requested, {sql.utc_text("ended_at")},
        {due_at}{shown}"""
    return text, tuple(names)


class _Times:
    """Times as the statement takes them, each made once, because most steps have the same ones."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._known: dict[float | None, tuple[str, int | None]] = {}

    def after(self, delay: float | None) -> tuple[str, int | None]:
        """The time in `delay` seconds and its slot; without a delay it is now, and no slot."""
        if (found := self._known.get(delay)) is None:
            at = self._now + (delay or 0.0)
            found = self._known[delay] = (sql.time_text(at), None if delay is None else slot(at))
        return found


def _write(steps: Sequence[_Step], now: float) -> list[tuple[_Step, _Answer]]:
    """Write these steps, either all visible or all hidden. Returns those that won."""
    if not steps:
        return []
    kind = _Kind(
        sql.is_postgresql(),
        steps[0].visible,
        told=any(_leaves_a_line(step) for step in steps),
        paced=any(step.decision.soon is not None for step in steps),
    )
    statement, names = _statement(kind)
    times = _Times(now)
    keys = sql.keys(step.row.id for step in steps)
    values = [[key, *_values(step, kind, times)] for key, step in zip(keys, steps, strict=True)]
    by_key = dict(zip(keys, steps, strict=True))
    found = sql.execute(statement, values, names, [sql.time_text(now), slot(now)])
    return [
        (by_key[key], _Answer(version, bool(cancel_requested), ended, due_at, shown))
        for key, version, cancel_requested, ended, due_at, *shown in found
    ]


def _values(step: _Step, kind: _Kind, times: _Times) -> list[object]:
    """The values of a step behind its key, in the order of the names in `_statement`."""
    row, decision, row_due_in, _, _ = step
    seen = lifecycle.knows_of_cancel(row, decision)
    values: list[object] = [row.turn, decision.attempts, decision.crashes, seen]
    values += times.after(row_due_in)
    if kind.visible:
        missing = decision.missing_at
        values += [decision.state, decision.handle, decision.progress, decision.message]
        values += [decision.error, *decision.result]
        values += [missing and sql.time_text(missing), decision.cancel_taken]
    if kind.told:
        values += _line_of(step) if _leaves_a_line(step) else (None, None)
    if kind.paced:
        free = None if decision.free is None else times.after(decision.free)[0]
        came = decision.soon is not None
        values += (*times.after(decision.soon), free) if came else (None, None, None)
    return values


def _leaves_a_line(step: _Step) -> bool:
    """Whether the step is a milestone with a line; the end of a job has a column."""
    return step.milestone is not None and step.milestone is not Milestone.ENDED


def _line_of(step: _Step) -> tuple[str, str]:
    """The mark and the text of a step's line."""
    assert step.milestone is not None
    text = step.decision.message if step.milestone is Milestone.REFUSED else ""
    return milestones.mark(step.milestone), milestones.one_line(text)


def _advance(step: _Step, answer: _Answer, now: float) -> Committed:
    """Make the row what the ledger holds after its step."""
    row, decision, row_due_in, visible, milestone = step
    knew = lifecycle.knows_of_cancel(row, decision)
    row.version, row.cancel_requested, row.ended, due_at, shown = answer
    row.owed = row.ended is not None
    row.turn += 1
    row.attempts, row.crashes, row.sweeps = decision.attempts, decision.crashes, 0
    delay = decision.delay
    if decision.soon is not None and due_at is not None and same_time(due_at, now + decision.soon):
        delay = row_due_in = decision.soon
    if row.cancel_requested and not knew:
        row.due_at, delay = now, None if delay is None else 0.0
    else:
        row.due_at = now + (row_due_in or 0.0)
    if visible:
        row.audience, row.request, row.label, row.created = shown
        row.state, row.handle, row.progress = decision.state, decision.handle, decision.progress
        row.message, row.error = decision.message, decision.error
        row.result, row.result_size = decision.result
        row.missing_at, row.cancel_taken = decision.missing_at, decision.cancel_taken
    if delay is None or decision.opens_intent:
        return Committed(row, None, visible, milestone)
    return Committed(row, delay, visible, milestone, now + delay)
