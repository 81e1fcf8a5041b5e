"""How many rows were written, as the databases themselves count them.

PostgreSQL counts in `pg_stat_user_tables`, up to a second late, and its write-ahead log has a
position. SQLite counts within a connection only (`total_changes`), so each worker writes down what
its connections have written. What a web process writes into SQLite is not counted.
"""

import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

#: How many rows a worker had written when it wrote this down.
ENTRY = struct.Struct("<Q")
#: What is counted, and how a table of figures names it.
NAMES = {
    "rows": "rows written",
    "hot": "HOT updates",
    "log": "bytes of write-ahead log",
}
_POSTGRESQL = """
SELECT sum(n_tup_ins + n_tup_upd + n_tup_del), sum(n_tup_hot_upd),
    pg_current_wal_lsn() - '0/0'::pg_lsn
FROM pg_stat_user_tables
"""


def written(database_url: str, directory: Path) -> dict[str, float]:
    """What was written so far, by the keys of NAMES. SQLite tells the rows only.

    `directory` has the files of the workers.
    """
    if database_url.startswith("sqlite"):
        return {"rows": sum(_last(path) for path in directory.glob("*.writes"))}
    import psycopg  # Workers import this module too, and some of them do without it.

    with psycopg.connect(database_url, autocommit=True) as connection:
        found = connection.execute(_POSTGRESQL).fetchone()
    assert found
    return dict(zip(NAMES, map(float, found), strict=True))


def _last(path: Path) -> int:
    """How many rows a worker has written, by the last entry of its file."""
    data = path.read_bytes()
    whole = len(data) // ENTRY.size * ENTRY.size
    return int(ENTRY.unpack(data[whole - ENTRY.size : whole])[0]) if whole else 0


class Written:
    """Counts what the connections of one worker have written into SQLite; `path` is its file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connections: list[sqlite3.Connection] = []
        self._counts: list[int] = []

    def connected(self, connection: Any, **_: Any) -> None:
        """Django has opened a connection: a receiver of its signal `connection_created`."""
        if connection.vendor == "sqlite":
            self._connections.append(connection.connection)
            self._counts.append(0)

    def note(self) -> None:
        """Write down how many rows there are so far; nothing where it is not SQLite."""
        for n, each in enumerate(self._connections):
            with suppress(sqlite3.ProgrammingError):  # It is closed, and its last count stays.
                self._counts[n] = each.total_changes
        if self._connections:
            with self._path.open("ab") as file:
                file.write(ENTRY.pack(sum(self._counts)))
