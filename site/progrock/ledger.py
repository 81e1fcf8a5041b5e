"""The ledger: every read and write of jobs in batches, fenced by the job's turn (one SQL text for SQLite and PostgreSQL).

All functions are synchronous and do one thing each; asynchronous callers wrap them in `database_sync_to_async`, which runs
them in one thread of the process. Rows travel into a statement as one JSON parameter, whatever their number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from django.db import connection, transaction

from progrock.models import ACTIVE, ENDED, State

#: A result above this many characters stays out of frames; `GET /jobs/<id>` has it.
LARGE_RESULT = 16_384

_TABLE = "progrock_job"
_ACTIVE = "state IN ('queued', 'starting', 'running')"
_FIELDS = (
    "id, audience, backend, request, params, handle, state, progress, message, error, version, turn, due_at, "
    "cancel_requested, attempts, crashes, sweeps, deadline_at, created_at, ended_at, result IS NOT NULL"
)


@dataclass(slots=True, kw_only=True)
class Row:
    """A job as the ledger holds it. Times are seconds since the epoch; `created` and `ended` are ISO 8601 in UTC."""

    id: str
    audience: str
    backend: str
    request: str | None
    params: dict[str, Any]
    handle: str
    state: str
    progress: float | None
    message: str
    error: str
    version: int
    turn: int
    due_at: float
    cancel_requested: bool
    attempts: int
    crashes: int
    sweeps: int
    deadline_at: float
    created: str
    ended: str | None
    has_result: bool
    result: object = None

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE


@dataclass(slots=True, frozen=True, kw_only=True)
class Update:
    """What one step wants to write; it wins only where the job is active and still at `turn`."""

    id: str
    turn: int
    state: str
    handle: str
    progress: float | None
    message: str
    error: str
    result: object
    attempts: int
    crashes: int
    due_at: float
    visible: bool
    cancel_seen: bool


@dataclass(slots=True, frozen=True)
class Won:
    """What a committed step left in the row."""

    turn: int
    version: int
    due_at: float
    cancel_requested: bool
    ended: str | None


def load(ids: Iterable[str], *, results: bool = False) -> dict[str, Row]:
    """The jobs of these ids, by id; unknown ids are absent. Results only where asked for, the large ones included."""
    result = "result" if results else "NULL"
    return _select(f"{result} FROM {_TABLE} WHERE id IN (SELECT n_id FROM v)", [[i] for i in ids], ("n_id",))


def snapshot(audiences: Sequence[str], ended: int = 50) -> list[Row]:
    """All active jobs of the audiences and their latest `ended` ones, newest first; large results left out."""
    small = f"CASE WHEN length({_json('result')}) <= {LARGE_RESULT} THEN result END"
    mine = f"FROM {_TABLE} WHERE audience IN (SELECT n_audience FROM v) AND"
    rows = _select(
        f"{small} {mine} ({_ACTIVE} OR id IN (SELECT id {mine} NOT {_ACTIVE} ORDER BY created_at DESC LIMIT {ended}))"
        " ORDER BY created_at DESC",
        [[a] for a in audiences],
        ("n_audience",),
    )
    return list(rows.values())


def commit(updates: Sequence[Update], now: float) -> dict[str, Won]:
    """Write one step of each job in one statement; returns the winners by id, the others lost their turn.

    The cancel flag is never written. Where it came up since the row was read (`cancel_seen` is false), the next step is due now.
    """
    rows = [
        [
            *(u.id, u.turn, u.state, u.handle, u.progress, u.message, u.error, u.result, u.attempts, u.crashes),
            *(_text(u.due_at), u.visible, u.cancel_seen, _text(now), u.state in ENDED),
        ]
        for u in updates
    ]
    names = "n_id n_turn n_state n_handle n_progress n_message n_error n_result n_attempts n_crashes n_due n_visible n_seen n_now n_ended"
    found = _execute(
        f"""UPDATE {_TABLE} SET turn = turn + 1, state = n_state, handle = n_handle, progress = n_progress,
        message = n_message, error = n_error, result = n_result, attempts = n_attempts, crashes = n_crashes, sweeps = 0,
        version = version + CASE WHEN n_visible THEN 1 ELSE 0 END,
        changed_at = CASE WHEN n_visible THEN {_now()} ELSE changed_at END,
        due_at = CASE WHEN cancel_requested AND NOT n_seen THEN n_now ELSE n_due END,
        ended_at = CASE WHEN n_ended THEN {_now()} END
        FROM v WHERE id = n_id AND turn = n_turn AND {_ACTIVE}
        RETURNING id, turn, version, due_at, cancel_requested, ended_at""",
        rows,
        names.split(),
    )
    return {
        _id(i): Won(turn, version, _epoch(due), bool(cancel), _iso(ended))
        for i, turn, version, due, cancel, ended in found
    }


def count_crash(job: str, turn: int) -> int | None:
    """Commit `crashes + 1` for one job before a call that may kill the worker; None where the turn is gone."""
    found = _execute(
        f"UPDATE {_TABLE} SET crashes = crashes + 1 FROM v WHERE id = n_id AND turn = n_turn AND {_ACTIVE} RETURNING crashes",
        [[job, turn]],
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
        due_at = CASE WHEN state = 'running' THEN n_now ELSE due_at END
        FROM v WHERE id = n_id AND {_ACTIVE} AND NOT cancel_requested RETURNING id""",
        [[job, _text(now)]],
        ("n_id", "n_now"),
    )
    return load([job])[job] if found else None


def sweep(
    backend: str, shard: int, shards: int, *, before: float, grace: float, now: float, most: int = 1000
) -> list[tuple[str, int]]:
    """Claim the jobs of one queue that were due more than a grace before `before`; returns (id, turn) of each one claimed.

    The grace doubles with each sweep in vain, up to 64 times. A claim moves `due_at` to now, so of two sweepers one gets it.
    """
    cutoffs = " OR ".join(
        f"(sweeps {'=' if n < 6 else '>='} {n} AND due_at < {_when(before - grace * 2**n)})" for n in range(7)
    )
    found = _execute(
        f"""UPDATE {_TABLE} SET due_at = n_now, sweeps = sweeps + 1 FROM v WHERE id IN (
            SELECT id FROM {_TABLE} WHERE {_ACTIVE} AND due_at < {_when(before - grace)} AND backend = %s
            AND bucket %% %s = %s AND ({cutoffs}) ORDER BY due_at LIMIT {most}
        ) AND {_ACTIVE} AND due_at < {_when(before - grace)} RETURNING id, turn""",
        [[_text(now)]],
        ("n_now",),
        [backend, shards, shard],
    )
    return [(_id(job), turn) for job, turn in found]


def changed_since(audiences: Sequence[str], seconds: float) -> dict[str, int]:
    """Versions, by id, of the audiences' jobs that changed in the last `seconds` by the database's clock."""
    ago = f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '-{seconds:.3f} seconds')"
    if _postgresql():
        ago = f"clock_timestamp() - interval '{seconds:.3f} seconds'"
    found = _execute(
        f"SELECT id, version FROM {_TABLE}, v WHERE audience = n_audience AND changed_at >= {ago}",
        [[a] for a in audiences],
        ("n_audience",),
    )
    return {_id(job): version for job, version in found}


def forget(days: float, most: int = 500) -> int:
    """Delete up to `most` jobs that ended more than `days` ago; returns how many."""
    ago = _when(datetime.now(UTC).timestamp() - days * 86400)
    found = _execute(
        f"DELETE FROM {_TABLE} WHERE id IN (SELECT id FROM {_TABLE} WHERE NOT {_ACTIVE} AND ended_at < {ago} LIMIT {most}) RETURNING id",
        [],
        ("n_id",),
    )
    return len(found)


# What the two databases spell differently.
_TYPES = {"n_id": "uuid", "n_turn": "int", "n_attempts": "int", "n_crashes": "int", "n_progress": "float8"}
_TYPES |= {"n_due": "timestamptz", "n_now": "timestamptz", "n_visible": "bool", "n_seen": "bool", "n_ended": "bool"}


def _postgresql() -> bool:
    return connection.vendor == "postgresql"


def _now() -> str:
    return "clock_timestamp()" if _postgresql() else "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"


def _json(column: str) -> str:
    return f"{column}::text" if _postgresql() else column


def _values(names: Sequence[str]) -> str:
    """The head of a statement: its one JSON parameter, an array of arrays, as the table `v` with these columns."""
    if _postgresql():
        columns = ", ".join(
            f"NULLIF(e->{i}, 'null'::jsonb)" if name == "n_result" else f"(e->>{i})::{_TYPES.get(name, 'text')}"
            for i, name in enumerate(names)
        )
        return f"WITH v({', '.join(names)}) AS MATERIALIZED (SELECT {columns} FROM jsonb_array_elements(%s::jsonb) e) "
    columns = ", ".join(
        f"NULLIF(value->{i}, 'null')" if name == "n_result" else f"value->>{i}" for i, name in enumerate(names)
    )
    return f"WITH v({', '.join(names)}) AS MATERIALIZED (SELECT {columns} FROM json_each(%s)) "


def _execute(sql: str, rows: list[list[object]], names: Sequence[str], more: Sequence[str | int] = ()) -> list[Any]:
    """Run one statement over `rows`; ids go in without dashes, the form that both databases compare by."""
    if names[0] == "n_id":
        rows = [[str(row[0]).replace("-", ""), *row[1:]] for row in rows]
    text = orjson.dumps(rows).decode().replace("\\u0000", "\\ufffd")  # PostgreSQL holds no NUL
    parameters: list[str | int] = [text, *more]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_values(names) + sql, parameters)
        return list(cursor.fetchall())


def _select(tail: str, rows: list[list[object]], names: Sequence[str]) -> dict[str, Row]:
    """Jobs by id; `tail` begins with the expression for the result."""
    found = _execute(f"SELECT {_FIELDS}, {tail}", rows, names)
    return {row.id: row for row in map(_row, found)}


def _row(r: Sequence[Any]) -> Row:
    return Row(
        id=_id(r[0]),
        audience=r[1],
        backend=r[2],
        request=r[3],
        params=_loads(r[4]),
        handle=r[5],
        state=r[6],
        progress=r[7],
        message=r[8],
        error=r[9],
        version=r[10],
        turn=r[11],
        due_at=_epoch(r[12]),
        cancel_requested=bool(r[13]),
        attempts=r[14],
        crashes=r[15],
        sweeps=r[16],
        deadline_at=_epoch(r[17]),
        created=_iso(r[18]) or "",
        ended=_iso(r[19]),
        has_result=bool(r[20]),
        result=_loads(r[21]),
    )


def _id(value: Any) -> str:
    if isinstance(value, str) and len(value) == 32:
        return f"{value[:8]}-{value[8:12]}-{value[12:16]}-{value[16:20]}-{value[20:]}"
    return str(value)


def _loads(value: Any) -> Any:
    return orjson.loads(value) if isinstance(value, str) else value


def _text(seconds: float) -> str:
    """A time as both databases take it; always with microseconds, since SQLite compares it as text."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def _when(seconds: float) -> str:
    return f"'{_text(seconds)}'"


def _epoch(value: Any) -> float:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return float(value.timestamp())


def _iso(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return str(value.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]) + "Z"


__all__ = [
    "LARGE_RESULT",
    "Row",
    "State",
    "Update",
    "Won",
    "changed_since",
    "commit",
    "count_crash",
    "forget",
    "load",
    "request_cancel",
    "snapshot",
    "sweep",
]
