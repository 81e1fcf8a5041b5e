"""What web processes read to show jobs: snapshots, versions, and whether jobs are late."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from progrock import clock, sql
from progrock.ledger.rows import Row, columns, select, small_result
from progrock.ledger.table import IS_ACTIVE, TABLE, WAITS, slot


def snapshot(audiences: Sequence[str], ended: int = 50) -> list[Row]:
    """All active jobs of the audiences and the `ended` ones that ended last, newest first.

    Large results are left out.
    """
    mine = "audience IN (SELECT n_audience FROM v) AND"
    latest = (
        f"SELECT id FROM {TABLE} WHERE {mine} ended_at IS NOT NULL"
        f" ORDER BY ended_at DESC LIMIT {ended}"
    )
    rows = select(
        columns(sql.is_postgresql(), small_result()),
        f"WHERE {mine} ({IS_ACTIVE} OR id IN ({latest})) ORDER BY created_at DESC",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return list(rows.values())


class Version(NamedTuple):
    """Which version of a job the ledger holds, and whether that is the job's end."""

    audience: str
    version: int
    ended: bool


def changed_since(audiences: Sequence[str], seconds: float) -> dict[str, Version]:
    """The versions, by id, of the audiences' jobs that changed in the last `seconds`.

    The database's clock decides.
    """
    found = sql.execute(
        f"SELECT {sql.id_text()}, audience, version, ended_at IS NOT NULL FROM {TABLE}, v"
        f" WHERE audience = n_audience AND changed_at >= {sql.ago(seconds)}",
        [[each] for each in audiences],
        ("n_audience",),
    )
    return _versions(found)


def versions(job_ids: Iterable[str]) -> dict[str, Version]:
    """The versions of these jobs, by id; unknown ids are absent."""
    found = sql.execute(
        f"SELECT {sql.id_text()}, audience, version, ended_at IS NOT NULL FROM {TABLE}"
        f" WHERE {sql.is_listed()}",
        [[key] for key in sql.keys(job_ids)],
        ("n_id",),
    )
    return _versions(found)


def _versions(found: Iterable[tuple[str, str, int, bool]]) -> dict[str, Version]:
    return {
        sql.job_id(key): Version(audience, version, bool(ended))
        for key, audience, version, ended in found
    }


def late(audiences: Sequence[str], backends: Sequence[str], grace: float) -> bool:
    """Whether a job of these audiences and backends has waited for over `grace` seconds.

    A running job waits from the end of its lease on, so this notices up to a lease later.
    """
    before = clock.measured() - grace
    found = sql.execute(
        f"""SELECT 1 FROM {TABLE} WHERE due_slot <= {slot(before)}
        AND due_at < {sql.time_literal(before)} AND {WAITS}
        AND audience IN (SELECT n_audience FROM v)
        AND backend IN ({", ".join(["%s"] * len(backends))}) LIMIT 1""",
        [[each] for each in audiences],
        ("n_audience",),
        backends,
    )
    return bool(found)
