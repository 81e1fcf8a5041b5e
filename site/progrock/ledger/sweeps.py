"""What a sweep does: it claims lost jobs, ends orphans, and finds ends that are still owed."""

from collections.abc import Iterable, Sequence

from progrock import sql
from progrock.ledger.table import IS_ACTIVE, TABLE, slot


def sweep(
    backend: str,
    shard: int,
    shards: int,
    *,
    before: float,
    grace: float,
    now: float,
    most: int = 1000,
) -> list[tuple[str, int]]:
    """Claim the jobs of one queue that were due more than a grace (seconds) before `before`.

    Returns (id, turn) of each one claimed. The grace doubles with each sweep in vain, up to 64
    times. A claim moves `due_at` to now, so of two sweepers one gets the job.
    """
    cutoffs = " OR ".join(
        f"(sweeps {'=' if n < 6 else '>='} {n}"
        f" AND due_at < {sql.time_literal(before - grace * 2**n)})"
        for n in range(7)
    )
    found = sql.execute(
        f"""UPDATE {TABLE} SET due_at = n_now, due_slot = n_slot, sweeps = sweeps + 1 FROM v
        WHERE id IN (
            SELECT id FROM {TABLE} WHERE due_slot <= {slot(before - grace)} AND {IS_ACTIVE}
            AND backend = %s AND bucket %% %s = %s AND ({cutoffs}) ORDER BY due_at LIMIT {most}
        ) AND {IS_ACTIVE} AND due_at < {sql.time_literal(before - grace)}
        RETURNING {sql.id_text()}, turn""",
        [[sql.time_text(now), slot(now)]],
        ("n_now", "n_slot"),
        [backend, shards, shard],
    )
    return [(sql.job_id(key), turn) for key, turn in found]


def unsweep(claimed: Sequence[tuple[str, int]]) -> None:
    """Take back that these jobs were swept, because their tasks could not be published."""
    sql.execute(
        f"UPDATE {TABLE} SET sweeps = sweeps - 1 FROM v"
        " WHERE id = n_id AND turn = n_turn AND sweeps > 0 RETURNING id",
        [[*sql.keys([job_id]), turn] for job_id, turn in claimed],
        ("n_id", "n_turn"),
    )


def end_orphans(backends: Sequence[str], *, before: float, most: int = 500) -> list[str]:
    """End active jobs of none of these backends that were due before `before`; returns their ids.

    Such a job ends at its deadline, or once its cancellation was asked for. A worker that knows its
    backend comes first.
    """
    sentence = "the job did not end before its deadline, and its backend is no longer configured"
    past = sql.time_literal(before)
    found = sql.execute(
        f"""UPDATE {TABLE}
        SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'expired' END,
        error = CASE WHEN cancel_requested THEN '' ELSE '{sentence}' END, message = '',
        turn = turn + 1, version = version + 1, changed_at = {sql.now()}, ended_at = {sql.now()},
        owed_at = {sql.now()}, due_slot = NULL
        WHERE id IN (
            SELECT id FROM {TABLE}
            WHERE due_slot <= {slot(before)} AND {IS_ACTIVE} AND due_at < {past}
            AND (cancel_requested OR deadline_at < {past})
            AND backend NOT IN (SELECT n_backend FROM v) LIMIT {most}
        ) AND {IS_ACTIVE} RETURNING {sql.id_text()}""",
        [[name] for name in backends],
        ["n_backend"],
    )
    return [sql.job_id(key) for (key,) in found]


def claim_owed(others: Sequence[str], seconds: float, most: int = 500) -> list[str]:
    """Claim jobs for whose end something is owed since over `seconds`, by the database's clock.

    Jobs of the backends in `others` are left to other workers. Returns the ids of those claimed. A
    claim begins that time anew, so of two sweepers one gets the job.
    """
    found = sql.execute(
        f"""UPDATE {TABLE} SET owed_at = {sql.now()} WHERE id IN (
            SELECT id FROM {TABLE} WHERE owed_at < {sql.ago(seconds)}
            AND backend NOT IN (SELECT n_backend FROM v) LIMIT {most}
        ) AND owed_at < {sql.ago(seconds)} RETURNING {sql.id_text()}""",
        [[name] for name in others],
        ("n_backend",),
    )
    return [sql.job_id(key) for (key,) in found]


def settle(job_ids: Iterable[str]) -> None:
    """Nothing is owed for the end of these jobs any more."""
    sql.execute(
        f"UPDATE {TABLE} SET owed_at = NULL FROM v WHERE id = n_id RETURNING id",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )
