"""What is asked of a job outside a round: a cancel, a look at once, a start of another like it."""

from collections.abc import Iterable, Sequence

from progrock import milestones, sql
from progrock.attempts import all_or_nothing
from progrock.ledger.rows import Committed, Row, load
from progrock.ledger.table import ATTENTION, IS_ACTIVE, TABLE, WAITS, line, same_time, slot
from progrock.milestones import Milestone

#: A job that is due within so many seconds may be looked at while `hasten` is under way.
_UNDER_WAY = 1.0


def request_cancel(job_id: str, now: float) -> Row | None:
    """Ask for a cancellation. Returns the job after it, or None where there is nothing to cancel.

    A queued job ends now. A running one is made due now, and its next step cancels it. A starting
    one is only flagged.
    """
    mark = milestones.mark(Milestone.CANCEL_ASKED)
    with all_or_nothing():
        found = sql.execute(
            f"""UPDATE {TABLE} SET cancel_requested = TRUE, version = version + 1,
            changed_at = {sql.now()}, milestones = milestones || {line("n_mark", "''")},
            state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
            turn = CASE WHEN state = 'queued' THEN turn + 1 ELSE turn END,
            ended_at = CASE WHEN state = 'queued' THEN {sql.now()} END,
            owed_at = CASE WHEN state = 'queued' THEN {sql.now()} END,
            due_at = CASE WHEN state = 'running' THEN n_now ELSE due_at END,
            due_slot = CASE state WHEN 'running' THEN n_slot WHEN 'starting' THEN due_slot END
            FROM v WHERE id = n_id AND {IS_ACTIVE} AND NOT cancel_requested RETURNING id""",
            [[*sql.keys([job_id]), sql.time_text(now), slot(now), mark]],
            ("n_id", "n_now", "n_slot", "n_mark"),
        )
        return load([job_id])[job_id] if found else None


def note_again(job_id: str, new_id: str) -> None:
    """Keep among the milestones of a job that it was started again, as the job `new_id`."""
    mark = milestones.mark(Milestone.AGAIN)
    times = "LENGTH(milestones) - LENGTH(REPLACE(milestones, n_mark, ''))"
    sql.execute(
        f"""UPDATE {TABLE} SET milestones = milestones || {line("n_mark", "n_text")} FROM v
        WHERE id = n_id AND {times} < {len(mark) * milestones.MOST_AGAIN} RETURNING id""",
        [[*sql.keys([job_id]), mark, new_id]],
        ("n_id", "n_mark", "n_text"),
    )


def hasten(audiences: Sequence[str], now: float) -> list[Committed]:
    """Make running jobs due because somebody has come to watch these audiences.

    Only the jobs of audiences that nobody has watched until now change. They are due now, or at
    `free_at` where that is later, so that a wait which the backend asked for is kept. A job that is
    just being looked at keeps its `due_at`. The NULL in its `free_at` tells the step that follows
    that look that somebody came.

    Returns the jobs for which a second task of the same turn is to be published.
    """
    at, now_slot = sql.time_literal(now), slot(now)
    unwatched = (
        "SELECT n_audience FROM v WHERE NOT EXISTS"
        f" (SELECT 1 FROM {ATTENTION} WHERE audience = n_audience AND until > {at})"
    )
    found = sql.execute(
        f"""UPDATE {TABLE} SET free_at = NULL,
        due_at = CASE WHEN due_at <= {at} OR due_at <= free_at THEN due_at
        WHEN free_at > {at} THEN free_at ELSE {at} END,
        due_slot = CASE WHEN due_slot > {now_slot} THEN {now_slot} ELSE due_slot END
        WHERE {sql.is_among("audience", unwatched)} AND state = 'running' AND free_at IS NOT NULL
        AND (due_at > free_at OR due_at <= {sql.time_literal(now + _UNDER_WAY)})
        RETURNING {sql.id_text()}""",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return _second_tasks(found, now)


def make_due(job_ids: Iterable[str], now: float) -> list[Committed]:
    """Make those of these jobs due that wait for their next look, or to be started once more.

    They are due now, or at `free_at` where that is later, as in `hasten`. A job whose start is
    under way is left alone, because only a sweep may bring a task to an open intent.

    Returns the jobs for which a second task of the same turn is to be published.
    """
    at, now_slot = sql.time_literal(now), slot(now)
    found = sql.execute(
        f"""UPDATE {TABLE} SET free_at = NULL,
        due_at = CASE WHEN free_at > {at} THEN free_at ELSE {at} END,
        due_slot = CASE WHEN due_slot > {now_slot} THEN {now_slot} ELSE due_slot END
        WHERE {sql.is_listed()} AND {WAITS} AND due_at > {at}
        AND (free_at IS NULL OR due_at > free_at)
        RETURNING {sql.id_text()}""",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )
    return _second_tasks(found, now)


def _second_tasks(found: Sequence[tuple[str]], now: float) -> list[Committed]:
    """The jobs with these keys that were made due, with how long each of them waits now."""
    rows = load(sql.job_id(key) for (key,) in found).values() if found else ()
    return [
        Committed(row, round(max(0.0, row.due_at - now), 3), visible=False)
        for row in rows
        if row.active and (row.due_at > now or same_time(row.due_at, now))
    ]
