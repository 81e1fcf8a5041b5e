"""A real ledger of a test's own, and jobs in it."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dj_database_url
from django.core.management import call_command
from django.db import connections

from progrock import ledger
from progrock.broker.tasks import bucket_of
from progrock.ledger import Row
from progrock.lifecycle import Decision
from progrock.models import Job


@contextmanager
def own_database(url: str) -> Iterator[None]:
    """Make the default connection of this thread lead to the database at `url`, with our tables.

    pytest-django must have unblocked databases.
    """
    template = connections.settings["default"]
    connections.settings["ledger"] = {**template, "OPTIONS": {}, **dj_database_url.parse(url)}
    if url.startswith("sqlite"):
        connections.settings["ledger"]["OPTIONS"] = template["OPTIONS"]
    before, own = connections["default"], connections.create_connection("ledger")
    own.alias = "default"
    connections["default"] = own
    call_command("migrate", verbosity=0)
    try:
        yield
    finally:
        own.close()
        connections["default"] = before
        del connections.settings["ledger"]


def make(**changes: Any) -> Row:
    """A job in the ledger, running unless told otherwise."""
    key = changes.get("id") or uuid.uuid4()
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "id": key,
        "bucket": bucket_of(str(key)),
        "audience": "user:1",
        "backend": "render",
        "params": {"a": [1, "ü"]},
        "state": "running",
        "handle": "h1",
        "turn": 3,
        "due_at": now,
        "deadline_at": now + timedelta(hours=1),
    }
    Job(**values | changes).save(force_insert=True)
    return ledger.load([str(key)], results=True)[str(key)]


def at(seconds: float) -> datetime:
    """So many seconds before now."""
    return datetime.fromtimestamp(time.time() - seconds, UTC)


def step(row: Row, *, turn: int | None = None, **changes: Any) -> tuple[Row, Decision]:
    """A step that shows progress, of the job as a worker has read it; due again after a second."""
    values: dict[str, Any] = {
        "state": "running", "handle": row.handle, "progress": 42.5, "message": "halfway",
        "delay": 1.0,
    }  # fmt: skip
    read = replace(row, turn=row.turn if turn is None else turn)
    return read, Decision(**values | changes)
