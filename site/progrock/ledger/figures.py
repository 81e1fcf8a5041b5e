"""Figures about many jobs: how many are active, how many were started, and whose calls fail."""

from typing import NamedTuple

from progrock import sql
from progrock.ledger.table import IS_ACTIVE, TABLE, WAITS


def started_since(audience: str, seconds: float) -> int:
    """How many jobs this audience has started in the last `seconds`, by the database's clock."""
    found = sql.execute(
        f"SELECT COUNT(*) FROM {TABLE}, v"
        f" WHERE audience = n_audience AND created_at >= {sql.ago(seconds)}",
        [[audience]],
        ("n_audience",),
    )
    return int(found[0][0])


class ActiveJobs(NamedTuple):
    """How many jobs of a backend are active, and when the first that waits for a worker is due."""

    jobs: int
    due: float | None


def by_backend() -> dict[str, ActiveJobs]:
    """The active jobs by backend, in the order of the backends' names.

    `due` is in epoch seconds, and None if no job waits: a job that is being started has its worker.
    For a running job it is the end of its lease.
    """
    found = sql.execute(
        f"""SELECT backend, COUNT(*), MIN({sql.epoch("due_at")}) FILTER (WHERE {WAITS})
        FROM {TABLE} WHERE {IS_ACTIVE} AND due_slot IS NOT NULL
        GROUP BY backend ORDER BY backend""",
        [],
        ("n_id",),
    )
    return {backend: ActiveJobs(jobs, due) for backend, jobs, due in found}


class Failing(NamedTuple):
    """How many jobs of a backend have a call behind them that failed, and the latest reason."""

    jobs: int
    message: str


def failing() -> dict[str, Failing]:
    """The backends whose calls fail, by name: active jobs whose last call has failed."""
    found = sql.execute(
        f"""SELECT backend, jobs, message FROM (
            SELECT backend, message,
                COUNT(*) OVER (PARTITION BY backend) AS jobs,
                ROW_NUMBER() OVER (PARTITION BY backend ORDER BY changed_at DESC) AS place
            FROM {TABLE} WHERE {IS_ACTIVE} AND due_slot IS NOT NULL AND attempts > 0
        ) AS failing WHERE place = 1 ORDER BY backend""",
        [],
        ("n_id",),
    )
    return {backend: Failing(jobs, message) for backend, jobs, message in found}
