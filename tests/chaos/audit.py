"""Reads the ledger for chaos: its rows, and the history of all changes.

A trigger in the database writes the history.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import psycopg

from tests.reading import dashed, rows

_COLUMNS = (
    "at float8, job text, turn int, version int, state text, due float8, cancelling bool,"
    " attempts int, sweeps int"
)
_NAMES = ", ".join(column.split()[0] for column in _COLUMNS.split(", "))
#: All that a step may write. What is owed for an end (`owed_at`) is settled after the end.
_WRITTEN = (
    "turn, version, state, due_at, cancel_requested, handle, progress, message, result, error,"
    " attempts, crashes, sweeps, ended_at"
)
_POSTGRESQL = f"""
CREATE TABLE chaos_history (n bigserial PRIMARY KEY, {_COLUMNS});
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO chaos_history ({_NAMES})
  VALUES (extract(epoch FROM clock_timestamp()), NEW.id, NEW.turn, NEW.version, NEW.state,
    extract(epoch FROM NEW.due_at), NEW.cancel_requested, NEW.attempts, NEW.sweeps);
  RETURN NULL; END $$;
CREATE TRIGGER chaos_note AFTER INSERT OR UPDATE OF {_WRITTEN} ON progrock_job
  FOR EACH ROW EXECUTE FUNCTION chaos_note();
"""
_SQLITE_NOTE = f"""
CREATE TRIGGER chaos_note_{{name}} AFTER {{event}} ON progrock_job BEGIN
  INSERT INTO chaos_history ({_NAMES})
  VALUES ((julianday('now') - 2440587.5) * 86400, NEW.id, NEW.turn, NEW.version, NEW.state,
    (julianday(NEW.due_at) - 2440587.5) * 86400, NEW.cancel_requested, NEW.attempts, NEW.sweeps);
END;
"""


@dataclass(frozen=True, slots=True)
class Change:
    """A job's row after a change; `at` by the database's clock, `due` (both epoch seconds).

    A job that runs and does not fail is due at the end of its lease. Its task is due earlier.
    """

    at: float
    turn: int
    version: int
    state: str
    due: float
    cancelling: bool
    attempts: int = 0
    sweeps: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A job as it is now."""

    id: str
    request: str
    backend: str
    state: str
    version: int
    error: str


class Audit:
    """Reads the ledger without ProgRock; every call opens a connection of its own."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url

    def install(self) -> None:
        """Create the trigger, and with it the history."""
        if self._url.startswith("sqlite:///"):
            with closing(self._sqlite()) as connection:
                table = (
                    f"CREATE TABLE chaos_history (n integer PRIMARY KEY AUTOINCREMENT, {_COLUMNS});"
                )
                events = {"insert": "INSERT", "update": f"UPDATE OF {_WRITTEN}"}
                notes = "".join(
                    _SQLITE_NOTE.format(name=name, event=event) for name, event in events.items()
                )
                connection.executescript(table + notes)
        else:
            with psycopg.connect(self._url, autocommit=True) as connection:
                connection.execute(_POSTGRESQL)

    def entries(self) -> list[Entry]:
        """All jobs."""
        found = rows(
            self._url,
            "SELECT id, coalesce(request, ''), backend, state, version, error FROM progrock_job",
        )
        return [Entry(dashed(row[0]), *row[1:]) for row in found]

    def history(self) -> dict[str, list[Change]]:
        """All changes by job id, oldest first."""
        found: dict[str, list[Change]] = {}
        for at, job, *values in rows(self._url, f"SELECT {_NAMES} FROM chaos_history ORDER BY n"):
            found.setdefault(dashed(job), []).append(Change(at, *values))
        return found

    def _sqlite(self) -> sqlite3.Connection:
        path = self._url.removeprefix("sqlite:///")
        # A lock is taken in one thread and given up in another.
        return sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)

    def lock(self) -> sqlite3.Connection:
        """SQLite only: nobody else can write until the connection that this returns is closed."""
        connection = self._sqlite()
        connection.execute("BEGIN IMMEDIATE")
        return connection
