"""Reads a stack's database without ProgRock, which is much quicker than a command of Django's."""

import sqlite3
from contextlib import closing
from typing import Any

import psycopg


def rows(database_url: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query, over a connection of its own. `database_url` as in DATABASE_URL."""
    if database_url.startswith("sqlite:///"):
        path = database_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(database_url, autocommit=True, connect_timeout=3) as connection:
        # The type wants a literal, against injection; the queries of tests are ours.
        return connection.execute(sql).fetchall()  # type: ignore[arg-type, unused-ignore]


def dashed(key: object) -> str:
    """A UUID as both databases give it, in the form of the wire."""
    text = str(key).replace("-", "")
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
