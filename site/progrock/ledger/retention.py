"""Old jobs: finds them in their order, and deletes them by Django's rules."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from django.db import transaction
from django.db.models import F

from progrock import clock, sql
from progrock.ledger.table import HAS_ENDED, TABLE
from progrock.models import Job


class Place(NamedTuple):
    """A job and its last change (text, in UTC): where it stands in the order of old jobs."""

    changed: str
    job_id: str


def old(days: float, after: Place | None = None, most: int = 500) -> list[Place]:
    """Up to `most` jobs that ended more than `days` ago and stand behind `after`, oldest first."""
    cutoff = sql.time_literal(clock.measured() - days * 86400)
    zone = "+00" if sql.is_postgresql() else ""
    changed, job_id = after or Place("0001-01-01 00:00:00", str(UUID(int=0)))
    found = sql.execute(
        f"""SELECT {sql.utc_text("changed_at")}, {sql.id_text()} FROM {TABLE}
        WHERE {HAS_ENDED} AND changed_at < {cutoff}
        AND (changed_at, id) > (SELECT n_changed, n_id FROM v)
        ORDER BY changed_at, id LIMIT {most}""",
        [[changed + zone, *sql.keys([job_id])]],
        ("n_changed", "n_id"),
    )
    return [Place(changed, sql.job_id(key)) for changed, key in found]


def delete(job_ids: Sequence[str]) -> Exception | None:
    """Delete these jobs by Django's rules. Returns why all of them are still there, or None.

    Django's `on_delete` decides what becomes of a project's own rows that point at them, and its
    receivers are called, so anything can be raised. Raises the database's error where it is the
    ledger itself that cannot be written.
    """
    try:
        with transaction.atomic():
            Job.objects.filter(pk__in=job_ids).delete()
    except Exception as error:  # whatever a receiver of the project's raises
        # Writing to the ledger alone tells whose failure it is, and whether the jobs are there.
        there = Job.objects.filter(pk__in=job_ids).update(sweeps=F("sweeps"))
        return error if there else None
    return None
