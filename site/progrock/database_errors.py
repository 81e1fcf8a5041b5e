"""Decides what an error of the database means: it is away, calls conflicted, or a call is wrong."""

from contextlib import suppress
from enum import Enum

from django.db import Error, connection


class Trouble(Enum):
    """What an error of the database means for the call that met it."""

    AWAY = "away"  # it can serve nobody now: wait for it, on another connection
    CONFLICT = "conflict"  # another call was in the way, and nothing was done: repeat this one
    MISTAKE = "mistake"  # the call itself is wrong, so it would fail at any time


#: By SQLSTATE: all five characters, or else the first two. All others are mistakes.
#: A full disk and too many clients count as AWAY. So does what an operator must first provide, such
#: as a table or a right. https://www.postgresql.org/docs/current/errcodes-appendix.html
_STATES = {
    "08": Trouble.AWAY,  # the connection
    "25006": Trouble.AWAY,  # read-only: a standby, or maintenance
    "28": Trouble.AWAY,  # the password
    "3D": Trouble.AWAY,  # there is no such database
    "3F": Trouble.AWAY,  # there is no such schema
    "40": Trouble.CONFLICT,  # serialization failures and deadlocks
    "40003": Trouble.AWAY,  # the server does not know whether the statement was done
    "42501": Trouble.AWAY,  # a right is missing
    "42703": Trouble.AWAY,  # a column is missing, because a migration has not run yet
    "42P01": Trouble.AWAY,  # a table is missing
    "53": Trouble.AWAY,  # too many clients, a full disk, no memory
    "55P03": Trouble.CONFLICT,  # a lock was not available
    "57": Trouble.AWAY,  # shutdown, start, and a statement that took too long
    "58": Trouble.AWAY,  # the server's disk
}
#: By SQLite's primary code: https://www.sqlite.org/rescode.html
_CODES = {
    3: Trouble.AWAY,  # PERM
    5: Trouble.CONFLICT,  # BUSY
    6: Trouble.CONFLICT,  # LOCKED
    7: Trouble.AWAY,  # NOMEM
    8: Trouble.AWAY,  # READONLY
    10: Trouble.AWAY,  # IOERR
    11: Trouble.AWAY,  # CORRUPT
    13: Trouble.AWAY,  # FULL
    14: Trouble.AWAY,  # CANTOPEN
    15: Trouble.CONFLICT,  # PROTOCOL
    17: Trouble.CONFLICT,  # SCHEMA
    26: Trouble.AWAY,  # NOTADB
}
#: SQLite has no code for these.
_MISSING = ("no such table", "no such column", "has no column")
#: Errors of a connection that has gone have no code.
_GONE = ("OperationalError", "InterfaceError")


def trouble(error: BaseException) -> Trouble:
    """What an exception of Django's database layer means. Its `__cause__` is the driver's own."""
    cause = error.__cause__ or error
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        fitting = (_STATES[state[:n]] for n in (5, 2) if state[:n] in _STATES)
        return next(fitting, Trouble.MISTAKE)
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        if any(words in str(error) for words in _MISSING):
            return Trouble.AWAY
        return _CODES.get(code & 0xFF, Trouble.MISTAKE)
    gone = any(each.__name__ in _GONE for each in type(error).__mro__)
    return Trouble.AWAY if gone else Trouble.MISTAKE


def drop() -> None:
    """Close the connection of this thread for good, because its server may have become read-only.

    `close_old_connections` would keep the connection, and so would a pool that gets it back.
    """
    with suppress(Error):
        if getattr(connection, "pool", None) is not None and connection.connection is not None:
            connection.connection.close()
        connection.close()
