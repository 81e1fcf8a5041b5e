"""Jobs in a real ledger, for the tests of the fixture `database`."""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from progrock import ledger
from progrock.broker.tasks import bucket_of
from progrock.ledger import Row
from progrock.models import Job


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
