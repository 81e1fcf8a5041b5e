"""The ledger: every read and write of jobs, in batches, fenced by the job's turn.

All functions are synchronous and run one statement or two. Asynchronous callers run them in one
thread of the process. `progrock.sql` has what the two databases spell differently.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import F

from progrock import clock, lifecycle, milestones, sql
from progrock.attempts import all_or_nothing
from progrock.lifecycle import Decision
from progrock.milestones import Event, Milestone
from progrock.models import ACTIVE, ENDED, Job

#: A result above so many bytes of compact JSON stays out of frames; `GET /jobs/<id>` gives it.
LARGE_RESULT = 16_384

_TABLE = "progrock_job"
_ATTENTION = "progrock_attention"
_ACTIVE = f"state IN ({', '.join(repr(state) for state in ACTIVE)})"
#: The index of the sweep holds `due_at` rounded down to so many seconds (`due_slot`), so that steps
#: which follow each other closely do not touch it. A sweep finds candidates by it and then compares
#: `due_at`. It must be shorter than the least grace.
_SLOT = 5
#: A job that is due within so many seconds may be looked at while `hasten` is under way.
_UNDER_WAY = 1.0


@dataclass(slots=True)
class Row:
    """A job as the ledger holds it.

    `due_at` is when the next step is due at the latest. `params` is JSON text. Times are in seconds
    since the epoch, except `created` and `ended`, which are text in UTC. `missing_at` is since when
    the backend says that it does not know the job, or refuses to start it. `owed`: the job has
    ended, and its `job_finished`, or the last cancel at its backend, may not have been sent.
    `watched` is whether somebody watches the job; true where that was not asked for.

    The fields from `params` on have their defaults in a row that was read for a look. `result` is
    None where it was not asked for. `result_size` is its length in bytes of compact JSON, and None
    where there is no result. `milestones` is the column that `progrock.milestones` reads, and empty
    where it was not asked for.
    """

    id: str
    backend: str
    state: str
    handle: str
    progress: float | None
    message: str
    turn: int
    due_at: float
    deadline_at: float
    missing_at: float | None
    attempts: int
    crashes: int
    sweeps: int
    cancel_requested: bool
    cancel_taken: bool
    owed: bool
    watched: bool = True
    params: str = ""
    audience: str = ""
    request: str | None = None
    label: str = ""
    result: Any = None
    result_size: int | None = None
    error: str = ""
    version: int = 0
    created: str = ""
    ended: str | None = None
    milestones: str = ""

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE

    @property
    def story(self) -> list[Event]:
        """The job's milestones, for a row that was read with them."""
        return milestones.told(
            self.milestones,
            created=_utc(self.created),
            ended=_utc(self.ended) if self.ended else None,
            state=self.state,
            error=self.error,
        )


class Committed(NamedTuple):
    """A change of a job that stands in the ledger.

    `row` is the job after it. `delay` is how many seconds later the next poll task is due; None
    where no task follows. `visible` says whether browsers see a difference. `milestone` is which
    one the change is, if any. `due` is when the task is due (epoch seconds), where that is not the
    row's `due_at`.
    """

    row: Row
    delay: float | None
    visible: bool
    milestone: Milestone | None = None
    due: float | None = None


# Reading


def load(
    job_ids: Iterable[str],
    *,
    results: bool = False,
    large: bool = False,
    attention: bool = False,
) -> dict[str, Row]:
    """The jobs of these ids, by id; unknown ids are absent.

    `results` reads their results as well, but for large ones; `large` reads those, too, and the
    milestones. `attention` reads whether somebody watches them.
    """
    result = "result" if large else _small_result() if results else "NULL"
    columns = _columns(sql.is_postgresql(), result, attention=attention, story=large)
    return _listed(columns, job_ids, attention=attention)


def load_for_looks(
    job_ids: Iterable[str], *, params: bool = True, attention: bool = False
) -> dict[str, Row]:
    """What a look needs of these jobs, by id: each row has its fields up to `watched`.

    Most looks find nothing new, and nobody needs the rest. `commit` fills in what a browser sees of
    a job that has changed. `params` reads those as well, and `attention` whether somebody watches.
    """
    columns = _columns(sql.is_postgresql(), None, attention=attention, params=params)
    return _listed(columns, job_ids, attention=attention)


def _listed(columns: str, job_ids: Iterable[str], *, attention: bool) -> dict[str, Row]:
    rows = [[key] for key in sql.keys(job_ids)]
    return _select(columns, f"WHERE {sql.is_listed()}", rows, ("n_id",), attention=attention)


def beginning_with(digits: str) -> list[Row]:
    """Up to two jobs whose ids begin so, with their milestones.

    Raises ValueError for what is not the beginning of an id.
    """
    plain = digits.replace("-", "")
    first, last = (str(UUID(plain.ljust(32, each))) for each in "0f")
    found = Job.objects.filter(id__range=(first, last)).values_list("pk", flat=True)[:2]
    return list(load((str(key) for key in found), large=True).values())


def snapshot(audiences: Sequence[str], ended: int = 50) -> list[Row]:
    """All active jobs of the audiences and the `ended` ones that ended last, newest first.

    Large results are left out.
    """
    mine = "audience IN (SELECT n_audience FROM v) AND"
    latest = (
        f"SELECT id FROM {_TABLE} WHERE {mine} ended_at IS NOT NULL"
        f" ORDER BY ended_at DESC LIMIT {ended}"
    )
    rows = _select(
        _columns(sql.is_postgresql(), _small_result()),
        f"WHERE {mine} ({_ACTIVE} OR id IN ({latest})) ORDER BY created_at DESC",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return list(rows.values())


class Version(NamedTuple):
    """Which version of a job the ledger holds, and whether that is the job's end."""

    audience: str
    version: int
    ended: bool


def changed_since(audiences: Sequence[str], seconds: float) -> dict[str, Version]:
    """The versions, by id, of the audiences' jobs that changed in the last `seconds`.

    The database's clock decides.
    """
    found = sql.execute(
        f"SELECT {sql.id_text()}, audience, version, ended_at IS NOT NULL FROM {_TABLE}, v"
        f" WHERE audience = n_audience AND changed_at >= {sql.ago(seconds)}",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return _versions(found)


def versions(job_ids: Iterable[str]) -> dict[str, Version]:
    """The versions of these jobs, by id; unknown ids are absent."""
    found = sql.execute(
        f"SELECT {sql.id_text()}, audience, version, ended_at IS NOT NULL FROM {_TABLE}"
        f" WHERE {sql.is_listed()}",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )
    return _versions(found)


def _versions(found: Iterable[tuple[str, str, int, bool]]) -> dict[str, Version]:
    return {
        sql.job_id(key): Version(audience, version, bool(ended))
        for key, audience, version, ended in found
    }


def late(audiences: Sequence[str], backends: Sequence[str], grace: float) -> bool:
    """Whether a job of these audiences and backends has waited for over `grace` seconds.

    A running job waits from the end of its lease on, so this notices up to a lease later.
    """
    before = clock.measured() - grace
    found = sql.execute(
        f"""SELECT 1 FROM {_TABLE} WHERE due_slot <= {_slot(before)}
        AND due_at < {sql.time_literal(before)} AND state IN ('queued', 'running')
        AND audience IN (SELECT n_audience FROM v)
        AND backend IN ({", ".join(["%s"] * len(backends))}) LIMIT 1""",
        [[each] for each in audiences],
        ("n_audience",),
        backends,
    )
    return bool(found)


def started_since(audience: str, seconds: float) -> int:
    """How many jobs this audience has started in the last `seconds`, by the database's clock."""
    found = sql.execute(
        f"SELECT COUNT(*) FROM {_TABLE}, v"
        f" WHERE audience = n_audience AND created_at >= {sql.ago(seconds)}",
        [[audience]],
        ("n_audience",),
    )
    return int(found[0][0])


class ActiveJobs(NamedTuple):
    """How many jobs of a backend are active, and when the first that waits for a worker is due."""

    jobs: int
    due: float | None


def by_backend() -> dict[str, ActiveJobs]:
    """The active jobs by backend, in the order of the backends' names.

    `due` is in epoch seconds, and None if no job waits: a job that is being started has its worker.
    For a running job it is the end of its lease.
    """
    found = sql.execute(
        f"""SELECT backend, COUNT(*), MIN({sql.epoch("due_at")}) FILTER (WHERE state <> 'starting')
        FROM {_TABLE} WHERE {_ACTIVE} AND due_slot IS NOT NULL GROUP BY backend ORDER BY backend""",
        [],
        ("n_id",),
    )
    return {backend: ActiveJobs(jobs, due) for backend, jobs, due in found}


class Failing(NamedTuple):
    """How many jobs of a backend have a call behind them that failed, and the latest reason."""

    jobs: int
    message: str


def failing() -> dict[str, Failing]:
    """The backends whose calls fail, by name: active jobs whose last call has failed."""
    found = sql.execute(
        f"""SELECT backend, jobs, message FROM (
            SELECT backend, message,
                COUNT(*) OVER (PARTITION BY backend) AS jobs,
                ROW_NUMBER() OVER (PARTITION BY backend ORDER BY changed_at DESC) AS place
            FROM {_TABLE} WHERE {_ACTIVE} AND due_slot IS NOT NULL AND attempts > 0
        ) AS failing WHERE place = 1 ORDER BY backend""",
        [],
        ("n_id",),
    )
    return {backend: Failing(jobs, message) for backend, jobs, message in found}


# A step of jobs


def commit(
    decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
) -> list[Committed]:
    """Write one step of each job, and give the rows of those that won, changed in place.

    A step wins where its job is active and still at the row's turn; the other rows stay as they
    were. The cancel flag is never written. If it was set since the row was read, the next step is
    due now. `lease` (seconds) is how long the new turns may be looked at without a write.
    """
    visible: list[_Step] = []
    hidden: list[_Step] = []
    for row, decision in decided:
        if lifecycle.is_visible(row, decision):
            visible.append((row, decision, lifecycle.milestone(row, decision)))
        else:
            hidden.append((row, decision, None))
    # one statement is a transaction by itself
    with transaction.atomic() if visible and hidden else nullcontext():
        written = _write(hidden, now, lease, visible=False)
        shown = _write(visible, now, lease, visible=True)
    # only now: what a failed transaction wrote must not show in the rows
    return [_advance(*each, now, lease, visible=False) for each in written] + [
        _advance(*each, now, lease, visible=True) for each in shown
    ]


#: A step, and which milestone it is, if any.
_Step = tuple[Row, Decision, Milestone | None]
#: What the database gives back of a step: version, cancel_requested, ended_at as text, and due_at
#: where somebody may have come; and of a visible one the fields `_SHOWN`.
_Answer = Sequence[Any]
#: What a browser sees of a job and a look does not need, so that it was perhaps not read.
_SHOWN = ("audience", "request", "label", "created")
#: What is written of a step for which it does not matter who watches.
_NO_SOON = (None, None, None)
#: What is written of a step that leaves no line among the milestones: its end has a column.
_NO_LINE = (None, None)


def _write(
    steps: Sequence[_Step], now: float, lease: float, *, visible: bool
) -> list[tuple[Row, Decision, Milestone | None, _Answer]]:
    """The steps that won. What a browser could see is written only with `visible`."""
    if not steps:
        return []
    names = ["n_id", "n_turn", "n_attempts", "n_crashes", "n_seen", "n_due", "n_slot"]
    news = ""
    if visible:
        names += ["n_state", "n_handle", "n_progress", "n_message", "n_error"]
        names += ["n_result", "n_result_size", "n_missing", "n_taken"]
        news = f""", state = n_state, handle = n_handle, progress = n_progress,
        message = n_message, error = n_error, result = n_result, result_size = n_result_size,
        missing_at = n_missing, cancel_taken = n_taken,
        version = version + 1, changed_at = {sql.now()},
        ended_at = CASE WHEN n_slot IS NULL THEN {sql.now()} END,
        owed_at = CASE WHEN n_slot IS NULL THEN {sql.now()} END"""
    # a batch without a milestone, which most are, does not touch their column
    if told := any(_leaves_a_line(milestone) for _, _, milestone in steps):
        names += ["n_mark", "n_text"]
        news += f""", milestones = CASE WHEN n_mark IS NULL OR {_contains("n_mark")} THEN milestones
        ELSE milestones || {_line("n_mark", "n_text")} END"""
    # NULL in `free_at` is the mark of `hasten`: somebody has come since the last step
    came, came_slot, due_at = "", "", "NULL"
    if paced := any(decision.soon is not None for _, decision, _ in steps):
        names += ["n_soon", "n_soon_slot", "n_free"]
        news += ", free_at = COALESCE(n_free, free_at)"
        came = "WHEN free_at IS NULL AND n_soon IS NOT NULL THEN n_soon"
        came_slot = "WHEN free_at IS NULL AND n_soon IS NOT NULL THEN n_soon_slot"
        due_at = sql.epoch("due_at")
    dues: dict[float | None, tuple[str | None, int | None]] = {}  # mostly the same ones

    def due_after(delay: float | None) -> tuple[str | None, int | None]:
        if (due := dues.get(delay)) is None:
            at = now + (delay or 0.0)
            due = dues[delay] = (sql.time_text(at), None if delay is None else _slot(at))
        return due

    shown = "".join(f", {_expression(name)}" for name in _SHOWN) if visible else ""
    values: list[list[object]] = []
    by_key: dict[str, _Step] = {}
    for key, step in zip(sql.keys(row.id for row, _, _ in steps), steps, strict=True):
        row, decision, milestone = step
        by_key[key] = step
        due = due_after(lifecycle.due_in(row, decision, lease, now))
        seen = lifecycle.knows_of_cancel(row, decision)
        value: list[object] = [key, row.turn, decision.attempts, decision.crashes, seen, *due]
        if visible:
            value += [decision.state, decision.handle, decision.progress, decision.message]
            missing = decision.missing_at
            value += [decision.error, *decision.result, missing and sql.time_text(missing)]
            value.append(decision.cancel_taken)
        if told:
            value += _line_of(milestone, decision) if _leaves_a_line(milestone) else _NO_LINE
        if paced:
            soon = decision.soon is not None
            free = None if decision.free is None else due_after(decision.free)[0]
            value += (*due_after(decision.soon), free) if soon else _NO_SOON
        values.append(value)
    found = sql.execute(
        f"""UPDATE {_TABLE} SET turn = turn + 1, attempts = n_attempts, crashes = n_crashes,
        sweeps = 0,
        due_at = CASE WHEN cancel_requested AND NOT n_seen THEN %s {came} ELSE n_due END,
        due_slot = CASE WHEN cancel_requested AND NOT n_seen AND n_slot IS NOT NULL
        THEN %s {came_slot} ELSE n_slot END{news} FROM v
        WHERE {sql.is_listed() + " AND" if sql.is_postgresql() else ""}
        id = n_id AND turn = n_turn AND {_ACTIVE}
        RETURNING {sql.id_text()}, version, cancel_requested, {sql.utc_text("ended_at")},
        {due_at}{shown}""",
        values,
        names,
        [sql.time_text(now), _slot(now)],
    )
    return [(*by_key[key], answer) for key, *answer in found]


def _leaves_a_line(milestone: Milestone | None) -> bool:
    return milestone is not None and milestone is not Milestone.ENDED


def _line_of(milestone: Milestone | None, decision: Decision) -> tuple[str, str]:
    """The mark and the text of a step's line."""
    assert milestone is not None
    text = decision.message if milestone is Milestone.REFUSED else ""
    return milestones.mark(milestone), milestones.one_line(text)


def _contains(mark: str) -> str:
    """The condition that a line with this mark stands among the milestones."""
    return f"milestones LIKE '%%' || {mark} || '%%'"


def _line(mark: str, text: str) -> str:
    """A line of the milestones, with the database's time."""
    return f"{mark} || {sql.utc_text(sql.now())} || ' ' || {text}"


def _advance(
    row: Row,
    decision: Decision,
    milestone: Milestone | None,
    answer: _Answer,
    now: float,
    lease: float,
    *,
    visible: bool,
) -> Committed:
    """Make the row what the ledger holds after its step."""
    knew = lifecycle.knows_of_cancel(row, decision)
    due_in = lifecycle.due_in(row, decision, lease, now)
    row.version, cancel_requested, row.ended, due_at, *shown = answer
    row.cancel_requested = bool(cancel_requested)
    row.owed = row.ended is not None
    row.turn += 1
    row.attempts, row.crashes, row.sweeps = decision.attempts, decision.crashes, 0
    delay = decision.delay
    if decision.soon is not None and due_at is not None and _same(due_at, now + decision.soon):
        delay = due_in = decision.soon
    if row.cancel_requested and not knew:
        row.due_at, delay = now, None if delay is None else 0.0
    else:
        row.due_at = now + (due_in or 0.0)
    if visible:
        row.audience, row.request, row.label, row.created = shown
        row.state, row.handle, row.progress = decision.state, decision.handle, decision.progress
        row.message, row.error = decision.message, decision.error
        row.result, row.result_size = decision.result
        row.missing_at, row.cancel_taken = decision.missing_at, decision.cancel_taken
    if delay is None or decision.opens_intent:
        return Committed(row, None, visible, milestone)
    return Committed(row, delay, visible, milestone, now + delay)


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
        due_at = there.due_at
        delays = (lifecycle.due_in(row, decision, lease, now), decision.soon, 0.0)
        if any(_same(due_at, now + (delay or 0.0)) for delay in delays):
            visible = lifecycle.is_visible(row, decision)
            milestone = lifecycle.milestone(row, decision) if visible else None
            answer: list[Any] = [there.version, there.cancel_requested, there.ended, due_at]
            if visible:
                answer += [getattr(there, name) for name in _SHOWN]
            found.append(_advance(row, decision, milestone, answer, now, lease, visible=visible))
            row.due_at = due_at
    return found


def count_crash(job_id: str, turn: int) -> int | None:
    """Commit `crashes + 1` for one job before a call that may kill the worker.

    Returns the new count, or None where the turn is gone.
    """
    found = sql.execute(
        f"UPDATE {_TABLE} SET crashes = crashes + 1 FROM v"
        f" WHERE id = n_id AND turn = n_turn AND {_ACTIVE} RETURNING crashes",
        [[*sql.keys([job_id]), turn]],
        ("n_id", "n_turn"),
    )
    return found[0][0] if found else None


def request_cancel(job_id: str, now: float) -> Row | None:
    """Ask for a cancellation. Returns the job after it, or None where there is nothing to cancel.

    A queued job ends now. A running one is made due now, and its next step cancels it. A starting
    one is only flagged.
    """
    mark = milestones.mark(Milestone.CANCEL_ASKED)
    with all_or_nothing():
        found = sql.execute(
            f"""UPDATE {_TABLE} SET cancel_requested = TRUE, version = version + 1,
            changed_at = {sql.now()}, milestones = milestones || {_line("n_mark", "''")},
            state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
            turn = CASE WHEN state = 'queued' THEN turn + 1 ELSE turn END,
            ended_at = CASE WHEN state = 'queued' THEN {sql.now()} END,
            owed_at = CASE WHEN state = 'queued' THEN {sql.now()} END,
            due_at = CASE WHEN state = 'running' THEN n_now ELSE due_at END,
            due_slot = CASE state WHEN 'running' THEN n_slot WHEN 'starting' THEN due_slot END
            FROM v WHERE id = n_id AND {_ACTIVE} AND NOT cancel_requested RETURNING id""",
            [[*sql.keys([job_id]), sql.time_text(now), _slot(now), mark]],
            ("n_id", "n_now", "n_slot", "n_mark"),
        )
        return load([job_id])[job_id] if found else None


def note_again(job_id: str, new_id: str) -> None:
    """Keep among the milestones of a job that it was started again, as the job `new_id`."""
    mark = milestones.mark(Milestone.AGAIN)
    times = "LENGTH(milestones) - LENGTH(REPLACE(milestones, n_mark, ''))"
    sql.execute(
        f"""UPDATE {_TABLE} SET milestones = milestones || {_line("n_mark", "n_text")} FROM v
        WHERE id = n_id AND {times} < {len(mark) * milestones.MOST_AGAIN} RETURNING id""",
        [[*sql.keys([job_id]), mark, new_id]],
        ("n_id", "n_mark", "n_text"),
    )


def hasten(audiences: Sequence[str], now: float) -> list[Committed]:
    """Make due the running jobs of those of these audiences that nobody has watched till now.

    They are due now, or at `free_at` where that is later, so that a wait which the backend asked
    for is kept. A job that is just being looked at keeps its `due_at`, and the NULL in its
    `free_at` tells that step that somebody came.
    Returns the jobs for which a second task of the same turn is to be published.
    """
    at, slot = sql.time_literal(now), _slot(now)
    unwatched = (
        "SELECT n_audience FROM v WHERE NOT EXISTS"
        f" (SELECT 1 FROM {_ATTENTION} WHERE audience = n_audience AND until > {at})"
    )
    found = sql.execute(
        f"""UPDATE {_TABLE} SET free_at = NULL,
        due_at = CASE WHEN due_at <= {at} OR due_at <= free_at THEN due_at
        WHEN free_at > {at} THEN free_at ELSE {at} END,
        due_slot = CASE WHEN due_slot > {slot} THEN {slot} ELSE due_slot END
        WHERE {sql.is_among("audience", unwatched)} AND state = 'running' AND free_at IS NOT NULL
        AND (due_at > free_at OR due_at <= {sql.time_literal(now + _UNDER_WAY)})
        RETURNING {sql.id_text()}""",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return _second_tasks(found, now)


def make_due(job_ids: Iterable[str], now: float) -> list[Committed]:
    """Make due those of these jobs that wait for a later step: a look, or a start tried again.

    They are due now, or at `free_at` where that is later, as in `hasten`. A job whose start is
    under way is left alone, because only a sweep may bring a task to an open intent.
    Returns the jobs for which a second task of the same turn is to be published.
    """
    at, slot = sql.time_literal(now), _slot(now)
    found = sql.execute(
        f"""UPDATE {_TABLE} SET free_at = NULL,
        due_at = CASE WHEN free_at > {at} THEN free_at ELSE {at} END,
        due_slot = CASE WHEN due_slot > {slot} THEN {slot} ELSE due_slot END
        WHERE {sql.is_listed()} AND state IN ('queued', 'running') AND due_at > {at}
        AND (free_at IS NULL OR due_at > free_at)
        RETURNING {sql.id_text()}""",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )
    return _second_tasks(found, now)


def _second_tasks(found: Sequence[tuple[str]], now: float) -> list[Committed]:
    """The jobs with these keys that were made due, and how long each of them waits now."""
    rows = load(sql.job_id(key) for (key,) in found).values() if found else ()
    return [
        Committed(row, round(max(0.0, row.due_at - now), 3), visible=False)
        for row in rows
        if row.active and row.due_at > now - 2e-6
    ]


# What the sweeper does


def sweep(
    backend: str,
    shard: int,
    shards: int,
    *,
    before: float,
    grace: float,
    now: float,
    most: int = 1000,
) -> list[tuple[str, int]]:
    """Claim the jobs of one queue that were due more than a grace (seconds) before `before`.

    Returns (id, turn) of each one claimed. The grace doubles with each sweep in vain, up to 64
    times. A claim moves `due_at` to now, so of two sweepers one gets the job.
    """
    cutoffs = " OR ".join(
        f"(sweeps {'=' if n < 6 else '>='} {n}"
        f" AND due_at < {sql.time_literal(before - grace * 2**n)})"
        for n in range(7)
    )
    found = sql.execute(
        f"""UPDATE {_TABLE} SET due_at = n_now, due_slot = n_slot, sweeps = sweeps + 1 FROM v
        WHERE id IN (
            SELECT id FROM {_TABLE} WHERE due_slot <= {_slot(before - grace)} AND {_ACTIVE}
            AND backend = %s AND bucket %% %s = %s AND ({cutoffs}) ORDER BY due_at LIMIT {most}
        ) AND {_ACTIVE} AND due_at < {sql.time_literal(before - grace)}
        RETURNING {sql.id_text()}, turn""",
        [[sql.time_text(now), _slot(now)]],
        ("n_now", "n_slot"),
        [backend, shards, shard],
    )
    return [(sql.job_id(key), turn) for key, turn in found]


def unsweep(claimed: Sequence[tuple[str, int]]) -> None:
    """Take back that these jobs were swept, because their tasks could not be published."""
    sql.execute(
        f"UPDATE {_TABLE} SET sweeps = sweeps - 1 FROM v"
        " WHERE id = n_id AND turn = n_turn AND sweeps > 0 RETURNING id",
        [[*sql.keys([job_id]), turn] for job_id, turn in claimed],
        ("n_id", "n_turn"),
    )


def end_orphans(backends: Sequence[str], *, before: float, most: int = 500) -> list[str]:
    """End active jobs of none of these backends that were due before `before`; returns their ids.

    Such a job ends at its deadline, or once its cancellation was asked for. A worker that knows its
    backend comes first.
    """
    sentence = "the job did not end before its deadline, and its backend is no longer configured"
    past = sql.time_literal(before)
    found = sql.execute(
        f"""UPDATE {_TABLE}
        SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'expired' END,
        error = CASE WHEN cancel_requested THEN '' ELSE '{sentence}' END, message = '',
        turn = turn + 1, version = version + 1, changed_at = {sql.now()}, ended_at = {sql.now()},
        owed_at = {sql.now()}, due_slot = NULL
        WHERE id IN (
            SELECT id FROM {_TABLE}
            WHERE due_slot <= {_slot(before)} AND {_ACTIVE} AND due_at < {past}
            AND (cancel_requested OR deadline_at < {past})
            AND backend NOT IN (SELECT n_backend FROM v) LIMIT {most}
        ) AND {_ACTIVE} RETURNING {sql.id_text()}""",
        [[name] for name in backends],
        ["n_backend"],
    )
    return [sql.job_id(key) for (key,) in found]


def claim_owed(others: Sequence[str], seconds: float, most: int = 500) -> list[str]:
    """Claim jobs for whose end something is owed since over `seconds`, by the database's clock.

    Jobs of the backends in `others` are left to other workers. Returns the ids of those claimed. A
    claim begins that time anew, so of two sweepers one gets the job.
    """
    found = sql.execute(
        f"""UPDATE {_TABLE} SET owed_at = {sql.now()} WHERE id IN (
            SELECT id FROM {_TABLE} WHERE owed_at < {sql.ago(seconds)}
            AND backend NOT IN (SELECT n_backend FROM v) LIMIT {most}
        ) AND owed_at < {sql.ago(seconds)} RETURNING {sql.id_text()}""",
        [[name] for name in others],
        ("n_backend",),
    )
    return [sql.job_id(key) for (key,) in found]


def settle(job_ids: Iterable[str]) -> None:
    """Nothing is owed for the end of these jobs any more."""
    sql.execute(
        f"UPDATE {_TABLE} SET owed_at = NULL FROM v WHERE id = n_id RETURNING id",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )


class Place(NamedTuple):
    """A job and its last change (text, in UTC): where it stands in the order of old jobs."""

    changed: str
    job_id: str


def old(days: float, after: Place | None = None, most: int = 500) -> list[Place]:
    """Up to `most` jobs that ended more than `days` ago and stand behind `after`, oldest first."""
    cutoff = sql.time_literal(clock.measured() - days * 86400)
    zone = "+00" if sql.is_postgresql() else ""
    changed, job_id = after or Place("0001-01-01 00:00:00", str(UUID(int=0)))
    found = sql.execute(
        f"""SELECT {sql.utc_text("changed_at")}, {sql.id_text()} FROM {_TABLE}
        WHERE state IN ({", ".join(repr(state) for state in ENDED)}) AND changed_at < {cutoff}
        AND (changed_at, id) > (SELECT n_changed, n_id FROM v)
        ORDER BY changed_at, id LIMIT {most}""",
        [[changed + zone, *sql.keys([job_id])]],
        ("n_changed", "n_id"),
    )
    return [Place(changed, sql.job_id(key)) for changed, key in found]


def delete(job_ids: Sequence[str]) -> Exception | None:
    """Delete these jobs by Django's rules. Returns why all of them are still there, or None.

    Django's `on_delete` decides what becomes of a project's own rows that point at them, and its
    receivers are called, so anything can be raised. Raises the database's error where it is the
    ledger itself that cannot be written.
    """
    try:
        with transaction.atomic():
            Job.objects.filter(pk__in=job_ids).delete()
    except Exception as error:  # whatever a receiver of the project's raises
        # Writing to the ledger alone tells whose failure it is, and whether the jobs are there.
        there = Job.objects.filter(pk__in=job_ids).update(sweeps=F("sweeps"))
        return error if there else None
    return None


# Times and columns


def _same(one: float, other: float) -> bool:
    """Whether two times are the same one; the database has microseconds."""
    return abs(one - other) < 2e-6


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _slot(seconds: float) -> int:
    return int(seconds // _SLOT)


def _small_result() -> str:
    return f"CASE WHEN result_size <= {LARGE_RESULT} THEN result END"


def looked_at() -> list[str]:
    """The fields of a row that are read for each look."""
    names = [each.name for each in fields(Row)]
    return names[: names.index("watched") + 1]


@cache
def _columns(
    postgresql: bool,
    result: str | None,
    *,
    attention: bool = False,
    story: bool = False,
    params: bool = True,
) -> str:
    """What is selected for a Row, in the order of its fields; kept for each kind of database.

    `result` is the expression for the results; with None, only what a look needs is selected, and
    the params where they are asked for. With `attention` it holds a parameter: the time of reading.
    `story` adds the milestones.
    """
    names = [each.name for each in fields(Row)]
    if result is None:
        names = looked_at() + ["params"] * params
    elif not story:
        names.remove("milestones")
    given = {"result": result or "NULL"}
    if not attention:
        given["watched"] = "TRUE"
    return ", ".join(given.get(name) or _expression(name) for name in names)


def _expression(field: str) -> str:
    """How a field of Row is read; where nothing else is said, it is the column of its name."""
    match field:
        case "id":
            return sql.id_text()
        case "params":
            return sql.json_text("params")
        case "due_at" | "deadline_at" | "missing_at":
            return sql.epoch(field)
        case "created" | "ended":
            return sql.utc_text(f"{field}_at")
        case "owed":
            return "owed_at IS NOT NULL"
        case "watched":
            return (
                f"EXISTS (SELECT 1 FROM {_ATTENTION} a"
                f" WHERE a.audience = {_TABLE}.audience AND a.until > %s)"
            )
    return field


def _select(
    columns: str,
    where: str,
    rows: Sequence[Sequence[object]],
    names: Sequence[str],
    *,
    attention: bool = False,
) -> dict[str, Row]:
    """Jobs by id."""
    more = [sql.time_text(clock.now())] if attention else []
    jobs = {}
    for values in sql.execute(f"SELECT {columns} FROM {_TABLE} {where}", rows, names, more):
        row = Row(*values)
        row.id = sql.job_id(row.id)
        if row.result is not None:
            row.result = sql.loads(row.result)
        row.cancel_requested, row.cancel_taken = bool(row.cancel_requested), bool(row.cancel_taken)
        row.owed, row.watched = bool(row.owed), bool(row.watched)
        jobs[row.id] = row
    return jobs
