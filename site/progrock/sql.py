"""What SQLite and PostgreSQL spell differently, and how rows travel into and out of a statement.

Rows travel into a statement as one JSON parameter, whatever their number: an array of arrays, which
the statement sees as the table `v`. The names of its columns begin with `n_`.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from django.db import connection

#: PostgreSQL's types of the columns of `v`; the others are text.
_TYPES = {
    "n_id": "uuid",
    "n_turn": "int",
    "n_slot": "int",
    "n_attempts": "int",
    "n_crashes": "int",
    "n_result_size": "int",
    "n_progress": "float8",
    "n_due": "timestamptz",
    "n_missing": "timestamptz",
    "n_soon": "timestamptz",
    "n_soon_slot": "int",
    "n_free": "timestamptz",
    "n_until": "timestamptz",
    "n_now": "timestamptz",
    "n_changed": "timestamptz",
    "n_seen": "bool",
    "n_taken": "bool",
}


def is_postgresql() -> bool:
    """Whether the ledger is on PostgreSQL; else it is on SQLite."""
    return connection.vendor == "postgresql"


def execute(
    sql: str,
    rows: Sequence[Sequence[object]],
    names: Sequence[str],
    more: Sequence[str | int] = (),
) -> list[Any]:
    """Run one statement over `rows`, whose columns are `names`; in a transaction if one is open.

    `more` are further parameters of the statement.
    """
    with connection.cursor() as cursor:
        head = _values(is_postgresql(), tuple(names))
        cursor.execute(head + sql, [orjson.dumps(rows).decode(), *more])
        return list(cursor.fetchall())


@cache
def _values(postgresql: bool, names: tuple[str, ...]) -> str:
    """The head of a statement, which reads its JSON parameter as the table `v`."""
    head = f"WITH v({', '.join(names)}) AS"
    if postgresql:
        columns = (
            f"NULLIF(e->{i}, 'null'::jsonb)"
            if name == "n_result"
            else f"(e->>{i})::{_TYPES.get(name, 'text')}"
            for i, name in enumerate(names)
        )
        source = "jsonb_array_elements(%s::jsonb) e"
        return f"{head} MATERIALIZED (SELECT {', '.join(columns)} FROM {source}) "
    columns = (
        f"NULLIF(value->{i}, 'null')" if name == "n_result" else f"value->>{i}"
        for i, name in enumerate(names)
    )
    return f"{head} (SELECT {', '.join(columns)} FROM json_each(%s)) "


def is_listed() -> str:
    """The condition that a job's id is in `v`.

    On PostgreSQL it leads to the primary key. With the statistics of a table that has just grown,
    the planner would read the whole table.
    """
    return is_among("id", "SELECT n_id FROM v")


def is_among(column: str, names: str) -> str:
    """The condition that a column is among the `names`, a query of one column.

    On PostgreSQL it leads to the column's index, as in `is_listed`.
    """
    return f"{column} = ANY(ARRAY({names}))" if is_postgresql() else f"{column} IN ({names})"


def unindexed(column: str) -> str:
    """A column by which SQLite shall choose no index. PostgreSQL has statistics to choose by."""
    return column if is_postgresql() else f"+{column}"


# Ids


def keys(job_ids: Iterable[str]) -> list[str]:
    """Ids in the form that the database stores; SQLite stores them without dashes."""
    return list(job_ids) if is_postgresql() else [each.replace("-", "") for each in job_ids]


def id_text() -> str:
    """The id as text. SQLite's column holds text."""
    return "CAST(id AS text)" if is_postgresql() else "id"


def job_id(key: str) -> str:
    """The id that the database gives as this text, with its dashes."""
    if len(key) == 32:
        return f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}"
    return key


# Times. PostgreSQL's columns know their zone, and a text without one would be taken for one in the
# session's zone, which is the project's TIME_ZONE. SQLite's columns are text, always in UTC
# (`progrock.fields`).


def now() -> str:
    """The database's clock."""
    return "clock_timestamp()" if is_postgresql() else "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW')"


def now_as_epoch() -> str:
    """The database's clock, in seconds since the epoch."""
    if is_postgresql():
        return "CAST(date_part('epoch', clock_timestamp()) AS float8)"
    return "(julianday('NOW') - 2440587.5) * 86400.0"


def ago(seconds: float) -> str:
    """So many seconds before now, by the database's clock."""
    if is_postgresql():
        return f"clock_timestamp() - interval '{seconds:.3f} seconds'"
    return f"STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f', 'NOW', '{-seconds:+.3f} seconds')"


def epoch(column: str) -> str:
    """A time as seconds since the epoch; SQLite's own functions would round it to milliseconds."""
    if is_postgresql():
        return f"date_part('epoch', {column})"
    return f"(unixepoch(substr({column}, 1, 19)) + ('0' || substr({column}, 20)))"


def utc_text(column: str) -> str:
    """A time as text in UTC."""
    zone = " AT TIME ZONE 'UTC'" if is_postgresql() else ""
    return f"CAST({column}{zone} AS text)"


def time_text(seconds: float) -> str:
    """A time as a parameter; always with microseconds, because SQLite compares times as text."""
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    return f"{text}+00" if is_postgresql() else text


def time_literal(seconds: float) -> str:
    """A time within a statement."""
    return f"'{time_text(seconds)}'"


# JSON


def json_text(column: str) -> str:
    """A JSON column as text."""
    return f"{column}::text" if is_postgresql() else column


def loads(value: Any) -> Any:
    """The value of a JSON column, which both drivers give as text; None for NULL."""
    return orjson.loads(value) if isinstance(value, str) else value
