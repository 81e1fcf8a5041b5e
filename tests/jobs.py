"""A job as the ledger gives it, for tests without a database."""

import time
import uuid
from typing import Any

from progrock.ledger import Row
from progrock.lifecycle import Decision

#: A backends' file: browsers may start jobs of the one backend, and only code those of the other.
OPEN_AND_CLOSED = """
[open]
url = "http://127.0.0.1"
browser = true
start = { path = "/" }
poll = { path = "/{handle}" }
handle = "id"
state = "state"
states.running = ["on"]
states.succeeded = ["done"]
interval = 2.5
params = { properties = { pages = { type = "integer", maximum = 9 } } }

[closed]
url = "http://127.0.0.1"
start = { path = "/" }
poll = { path = "/{handle}" }
handle = "id"
state = "state"
states.running = ["on"]
states.succeeded = ["done"]
"""


def row(**changes: Any) -> Row:
    """A queued job, due now, with these fields changed."""
    now = time.time()
    values: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "audience": "user:1",
        "backend": "render",
        "params": "{}",
        "request": None,
        "label": "",
        "handle": "",
        "state": "queued",
        "progress": None,
        "message": "",
        "result": None,
        "result_size": None,
        "error": "",
        "version": 1,
        "turn": 3,
        "due_at": now,
        "cancel_requested": False,
        "cancel_taken": False,
        "attempts": 0,
        "crashes": 0,
        "sweeps": 0,
        "missing_at": None,
        "deadline_at": now + 100,
        "created": "2026-01-01 00:00:00",
        "ended": None,
        "owed": False,
        "watched": True,
    }
    return Row(**values | changes)


def advance(job: Row, decision: Decision) -> None:
    """Make the row what the ledger would hold after this step."""
    job.turn += 1
    job.attempts, job.crashes, job.sweeps = decision.attempts, decision.crashes, 0
    job.due_at = time.time() + (decision.delay or 0.0)
    job.state, job.handle, job.progress = decision.state, decision.handle, decision.progress
    job.message, job.error = decision.message, decision.error
    job.result, job.result_size = decision.result
    job.missing_at, job.cancel_taken = decision.missing_at, decision.cancel_taken
