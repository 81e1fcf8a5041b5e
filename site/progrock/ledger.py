"""The ledger: every read and write of jobs in batches, fenced by the job's turn, in SQL for SQLite and PostgreSQL.

All functions are synchronous and do one statement or two; asynchronous callers run them in one thread of the process.
Rows travel into a statement as one JSON parameter, whatever their number.
"""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from django.db import connection, transaction

from progrock.models import ACTIVE

#: A result above this many characters stays out of frames; `GET /jobs/<id>` has it.
LARGE_RESULT = 16_384

_TABLE = "progrock_job"
_ACTIVE = "state IN ('queued', 'starting', 'running')"
#: The sweep's index holds `due_at` in slots of so many seconds, so that most steps leave the index alone. A slot may be
#: too low, never too high: a sweep then reads a little too much, and compares `due_at` itself. Below the least grace.
_SLOT = 5


@dataclass(slots=True)
class Row:
    """A job as the ledger holds it: `params` as JSON, times in seconds since the epoch, `created` and `ended` as the database's text."""

    id: str
    params: str
    cancel_requested: bool
    has_result: bool
    result: object
    audience: str
    backend: str
    request: str | None
    handle: str
    state: str
    progress: float | None
    message: str
    error: str
    version: int
    turn: int
    due_at: float
    attempts: int
    crashes: int
    sweeps: int
    deadline_at: float
    created: str
    ended: str | None

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE


class Update(NamedTuple):
    """What one step wants to write; it wins only where the job is active and still at `turn`.

    What a browser could see, all that stands after `visible`, is written only where that is true.
    """

    id: str
    turn: int
    attempts: int
    crashes: int
    cancel_seen: bool
    due_at: float
    visible: bool
    state: str
    handle: str
    progress: float | None
    message: str
    error: str
    result: object


class Won(NamedTuple):
    """What a committed step left in the row."""

    turn: int
    version: int
    due_at: float
    cancel_requested: bool
    ended: str | None


def load(ids: Iterable[str], *, results: bool = False, large: bool = False) -> dict[str, Row]:
    """The jobs of these ids, by id; unknown ids are absent. Results only where asked for, and the large ones only with `large`."""
    result = "result" if large else _small() if results else "NULL"
    return _select(result, f"WHERE {_listed()}", [[key] for key in _keys(ids)], ("n_id",))


def snapshot(audiences: Sequence[str], ended: int = 50) -> list[Row]:
    """All active jobs of the audiences and their latest `ended` ones, newest first; large results left out."""
    mine = "audience IN (SELECT n_audience FROM v) AND"
    rows = _select(
        _small(),
        f"WHERE {mine} ({_ACTIVE} OR id IN (SELECT id FROM {_TABLE} WHERE {mine} NOT {_ACTIVE} ORDER BY created_at DESC LIMIT {ended}))"
        " ORDER BY created_at DESC",
        [[a] for a in audiences],
        ("n_audience",),
    )
    return list(rows.values())


def commit(updates: Sequence[Update], now: float) -> dict[str, Won]:
    """Write one step of each job; returns the winners by id, the others lost their turn.

    The cancel flag is never written. Where it came up since the row was read (`cancel_seen` is false), the next step is due now.
    """
    seen, hidden = [u for u in updates if u.visible], [u for u in updates if not u.visible]
    with (
        transaction.atomic() if seen and hidden else nullcontext()
    ):  # one statement is a transaction by itself
        return _step(hidden, now, visible=False) | _step(seen, now, visible=True)


def _step(updates: Sequence[Update], now: float, *, visible: bool) -> dict[str, Won]:
    if not updates:
        return {}
    dues = {
        due: (_text(due), _slot(due)) for due in {u.due_at for u in updates}
    }  # a batch's steps mostly share theirs
    some = dict(zip(_keys(u.id for u in updates), updates, strict=True))
    rows = [
        [
            key,
            *u[1:5],
            *(dues[u.due_at] if u.state in ACTIVE else (dues[u.due_at][0], None)),
            *(u[7:] if visible else ()),
        ]
        for key, u in some.items()
    ]
    names = ["n_id", "n_turn", "n_attempts", "n_crashes", "n_seen", "n_due", "n_slot"]
    news = ""
    if visible:
        names += ["n_state", "n_handle", "n_progress", "n_message", "n_error", "n_result"]
        news = f""", state = n_state, handle = n_handle, progress = n_progress, message = n_message, error = n_error,
        result = n_result, version = version + 1, changed_at = {_now()},
        ended_at = CASE WHEN n_slot IS NULL THEN {_now()} END"""
    found = _execute(
        f"""UPDATE {_TABLE} SET turn = turn + 1, attempts = n_attempts, crashes = n_crashes, sweeps = 0,
        due_at = CASE WHEN cancel_requested AND NOT n_seen THEN %s ELSE n_due END,
        due_slot = CASE WHEN cancel_requested AND NOT n_seen AND n_slot IS NOT NULL THEN %s ELSE n_slot END{news}
        FROM v WHERE {_listed() + " AND" if _postgresql() else ""} id = n_id AND turn = n_turn AND {_ACTIVE}
        RETURNING CAST(id AS text), version, cancel_requested, CAST(ended_at AS text)""",
        rows,
        names,
        [_text(now), _slot(now)],
    )
    won: dict[str, Won] = {}
    for job, version, cancel, ended in found:
        u = some[job]
        won[u.id] = Won(
            u.turn + 1,
            version,
            now if cancel and not u.cancel_seen else u.due_at,
            bool(cancel),
            ended,
        )
    return won


def committed(updates: Sequence[Update], now: float) -> dict[str, Won]:
    """Those of `commit`'s updates that stand in the ledger as they were to be written: it was done, and only its answer was lost."""
    found: dict[str, Won] = {}
    rows = load(u.id for u in updates)
    for u in updates:
        row = rows.get(u.id)
        if row is None or (row.turn, row.state) != (u.turn + 1, u.state):
            continue
        if any(abs(row.due_at - due) < 2e-6 for due in (u.due_at, now)):
            found[u.id] = Won(row.turn, row.version, row.due_at, row.cancel_requested, row.ended)
    return found


def count_crash(job: str, turn: int) -> int | None:
    """Commit `crashes + 1` for one job before a call that may kill the worker; None where the turn is gone."""
    found = _execute(
        f"UPDATE {_TABLE} SET crashes = crashes + 1 FROM v WHERE id = n_id AND turn = n_turn AND {_ACTIVE} RETURNING crashes",
        [[*_keys([job]), turn]],
        ("n_id", "n_turn"),
    )
    return found[0][0] if found else None


def request_cancel(job: str, now: float) -> Row | None:
    """Ask for a cancellation: at once where the job only waits in line, else the next step does it. None: nothing to cancel."""
    found = _execute(
        f"""UPDATE {_TABLE} SET cancel_requested = TRUE, version = version + 1, changed_at = {_now()},
        state = CASE WHEN state = 'queued' THEN 'cancelled' ELSE state END,
        turn = CASE WHEN state = 'queued' THEN turn + 1 ELSE turn END,
        ended_at = CASE WHEN state = 'queued' THEN {_now()} END,
        due_at = CASE WHEN state = 'running' THEN n_now ELSE due_at END,
        due_slot = CASE state WHEN 'running' THEN n_slot WHEN 'starting' THEN due_slot END
        FROM v WHERE id = n_id AND {_ACTIVE} AND NOT cancel_requested RETURNING id""",
        [[*_keys([job]), _text(now), _slot(now)]],
        ("n_id", "n_now", "n_slot"),
    )
    return load([job])[job] if found else None


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
    """Claim the jobs of one queue that were due more than a grace before `before`; returns (id, turn) of each one claimed.

    The grace doubles with each sweep in vain, up to 64 times. A claim moves `due_at` to now, so of two sweepers one gets it.
    """
    cutoffs = " OR ".join(
        f"(sweeps {'=' if n < 6 else '>='} {n} AND due_at < {_when(before - grace * 2**n)})"
        for n in range(7)
    )
    found = _execute(
        f"""UPDATE {_TABLE} SET due_at = n_now, due_slot = n_slot, sweeps = sweeps + 1 FROM v WHERE id IN (
            SELECT id FROM {_TABLE} WHERE due_slot <= {_slot(before - grace)} AND {_ACTIVE} AND backend = %s
            AND bucket %% %s = %s AND ({cutoffs}) ORDER BY due_at LIMIT {most}
        ) AND {_ACTIVE} AND due_at < {_when(before - grace)} RETURNING CAST(id AS text), turn""",
        [[_text(now), _slot(now)]],
        ("n_now", "n_slot"),
        [backend, shards, shard],
    )
    return [(_id(job), turn) for job, turn in found]


def unsweep(claimed: Sequence[tuple[str, int]]) -> None:
    """Take back that these jobs were swept: their tasks could not be published."""
    rows = [[*_keys([job]), turn] for job, turn in claimed]
    _execute(
        f"UPDATE {_TABLE} SET sweeps = sweeps - 1 FROM v WHERE id = n_id AND turn = n_turn AND sweeps > 0 RETURNING id",
        rows,
        ("n_id", "n_turn"),
    )


def end_orphans(backends: Sequence[str], *, before: float, most: int = 500) -> list[str]:
    """End active jobs of none of these backends that nobody has looked at since `before`; returns their ids.

    Such a job ends at its deadline, or once its cancellation was asked for; a worker that knows its backend comes first.
    """
    sentence = "the job did not end before its deadline, and its backend is no longer configured"
    found = _execute(
        f"""UPDATE {_TABLE} SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'expired' END,
        error = CASE WHEN cancel_requested THEN '' ELSE '{sentence}' END, message = '',
        turn = turn + 1, version = version + 1, changed_at = {_now()}, ended_at = {_now()}, due_slot = NULL
        WHERE id IN (
            SELECT id FROM {_TABLE} WHERE due_slot <= {_slot(before)} AND {_ACTIVE} AND due_at < {_when(before)}
            AND (cancel_requested OR deadline_at < {_when(before)}) AND backend NOT IN (SELECT n_backend FROM v) LIMIT {most}
        ) AND {_ACTIVE} RETURNING CAST(id AS text)""",
        [[name] for name in backends],
        ["n_backend"],
    )
    return [_id(job) for (job,) in found]


def changed_since(audiences: Sequence[str], seconds: float) -> dict[str, tuple[str, int]]:
    """Audience and version, by id, of the audiences' jobs that changed in the last `seconds` by the database's clock."""
    ago = f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '-{seconds:.3f} seconds')"
    if _postgresql():
        ago = f"clock_timestamp() - interval '{seconds:.3f} seconds'"
    found = _execute(
        f"SELECT CAST(id AS text), audience, version FROM {_TABLE}, v WHERE audience = n_audience AND changed_at >= {ago}",
        [[a] for a in audiences],
        ("n_audience",),
    )
    return {_id(job): (audience, version) for job, audience, version in found}


def late(audiences: Sequence[str], backends: Sequence[str], grace: float) -> bool:
    """Whether a job of these audiences and backends has waited for a worker for more than `grace` seconds."""
    before = datetime.now(UTC).timestamp() - grace
    found = _execute(
        f"""SELECT 1 FROM {_TABLE} WHERE due_slot <= {_slot(before)} AND due_at < {_when(before)}
        AND state IN ('queued', 'running') AND audience IN (SELECT n_audience FROM v)
        AND backend IN ({", ".join(["%s"] * len(backends))}) LIMIT 1""",
        [[a] for a in audiences],
        ("n_audience",),
        backends,
    )
    return bool(found)


def forget(days: float, most: int = 500) -> int:
    """Delete up to `most` jobs that ended more than `days` ago; returns how many."""
    ago = _when(datetime.now(UTC).timestamp() - days * 86400)
    found = _execute(
        f"DELETE FROM {_TABLE} WHERE id IN (SELECT id FROM {_TABLE} WHERE NOT {_ACTIVE} AND changed_at < {ago} LIMIT {most}) RETURNING id",
        [],
        ("n_id",),
    )
    return len(found)


# What the two databases spell differently.
_TYPES = {
    "n_id": "uuid",
    "n_turn": "int",
    "n_slot": "int",
    "n_attempts": "int",
    "n_crashes": "int",
    "n_progress": "float8",
}
_TYPES |= {"n_due": "timestamptz", "n_now": "timestamptz", "n_seen": "bool"}


def _postgresql() -> bool:
    return connection.vendor == "postgresql"


def _now() -> str:
    return "clock_timestamp()" if _postgresql() else "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"


def _epoch(column: str) -> str:
    """A time as seconds since the epoch; SQLite's own functions would round it to milliseconds."""
    if _postgresql():
        return f"date_part('epoch', {column})"
    return f"(unixepoch(substr({column}, 1, 19)) + ('0' || substr({column}, 20)))"


def _json(column: str) -> str:
    return f"{column}::text" if _postgresql() else column


def _small() -> str:
    return f"CASE WHEN length({_json('result')}) <= {LARGE_RESULT} THEN result END"


def _listed() -> str:
    """That a job is one of the rows. PostgreSQL is led to its primary key, whatever it believes of a table that has just grown."""
    return "id = ANY(ARRAY(SELECT n_id FROM v))" if _postgresql() else "id IN (SELECT n_id FROM v)"


def _values(names: Sequence[str]) -> str:
    """The head of a statement: its one JSON parameter, an array of arrays, as the table `v` with these columns."""
    if _postgresql():
        columns = ", ".join(
            f"NULLIF(e->{i}, 'null'::jsonb)"
            if name == "n_result"
            else f"(e->>{i})::{_TYPES.get(name, 'text')}"
            for i, name in enumerate(names)
        )
        return f"WITH v({', '.join(names)}) AS MATERIALIZED (SELECT {columns} FROM jsonb_array_elements(%s::jsonb) e) "
    columns = ", ".join(
        f"NULLIF(value->{i}, 'null')" if name == "n_result" else f"value->>{i}"
        for i, name in enumerate(names)
    )
    return f"WITH v({', '.join(names)}) AS (SELECT {columns} FROM json_each(%s)) "


def _execute(
    sql: str, rows: Sequence[Sequence[object]], names: Sequence[str], more: Sequence[str | int] = ()
) -> list[Any]:
    """Run one statement over `rows`, in a transaction of its own where none is open."""
    with connection.cursor() as cursor:
        cursor.execute(_values(names) + sql, [orjson.dumps(rows).decode(), *more])
        return list(cursor.fetchall())


def _select(
    result: str, where: str, rows: Sequence[Sequence[object]], names: Sequence[str]
) -> dict[str, Row]:
    """Jobs by id; `result` is the expression for theirs."""
    found = _execute(
        f"""SELECT CAST(id AS text), {_json("params")}, cancel_requested, result IS NOT NULL, {result}, audience, backend, request,
        handle, state, progress, message, error, version, turn, {_epoch("due_at")}, attempts, crashes, sweeps,
        {_epoch("deadline_at")}, CAST(created_at AS text), CAST(ended_at AS text) FROM {_TABLE} {where}""",
        rows,
        names,
    )
    jobs = [
        Row(_id(job), params, bool(cancel), bool(has_result), _loads(result), *rest)
        for job, params, cancel, has_result, result, *rest in found
    ]
    return {row.id: row for row in jobs}


def _keys(jobs: Iterable[str]) -> list[str]:
    """Ids as the database casts them to text; SQLite keeps them without dashes."""
    return list(jobs) if _postgresql() else [job.replace("-", "") for job in jobs]


def _id(value: str) -> str:
    """An id with dashes; SQLite keeps it without."""
    if len(value) == 32:
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"
    return value


def _loads(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) else value


def _text(seconds: float) -> str:
    """A time as both databases take it; always with microseconds, since SQLite compares it as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _when(seconds: float) -> str:
    return f"'{_text(seconds)}'"


def _slot(seconds: float) -> int:
    return int(seconds // _SLOT)
