"""The ledger: every write to a job after its creation, and what workers and sockets read.

It works in batches, and a step is fenced by the job's turn. All functions are synchronous and run
one statement or two. Asynchronous callers run them in one thread of the process. `progrock.sql` has
what the two databases spell differently.
"""

from progrock.ledger.asked import hasten, make_due, note_again, request_cancel
from progrock.ledger.figures import ActiveJobs, Failing, by_backend, failing, started_since
from progrock.ledger.retention import Place, delete, old
from progrock.ledger.rows import (
    LARGE_RESULT,
    Committed,
    Row,
    beginning_with,
    load,
    load_for_looks,
    looked_at,
)
from progrock.ledger.shown import Version, changed_since, late, snapshot, versions
from progrock.ledger.steps import commit, committed, count_crash
from progrock.ledger.sweeps import claim_owed, end_orphans, settle, sweep, unsweep

__all__ = [
    "LARGE_RESULT",
    "ActiveJobs",
    "Committed",
    "Failing",
    "Place",
    "Row",
    "Version",
    "beginning_with",
    "by_backend",
    "changed_since",
    "claim_owed",
    "commit",
    "committed",
    "count_crash",
    "delete",
    "end_orphans",
    "failing",
    "hasten",
    "late",
    "load",
    "load_for_looks",
    "looked_at",
    "make_due",
    "note_again",
    "old",
    "request_cancel",
    "settle",
    "snapshot",
    "started_since",
    "sweep",
    "unsweep",
    "versions",
]
