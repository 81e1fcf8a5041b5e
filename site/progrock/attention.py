"""The table of audiences that somebody watches now, because their jobs may be polled more often."""

from collections.abc import Sequence

from django.db import transaction

from progrock import clock, conf, ledger, sql
from progrock.ledger import Committed
from progrock.ledger.table import ATTENTION

#: For so many seconds an audience counts as watched after a web process has said so.
GOOD_FOR = 60.0


def matters() -> bool:
    """Whether any backend has its jobs polled less often while nobody watches (`unwatched`)."""
    return any(options.unwatched is not None for options in conf.backends().values())


def watch(audiences: Sequence[str]) -> list[Committed]:
    """Note that somebody watches these audiences, which holds for GOOD_FOR seconds.

    If an audience was not watched before, its jobs that waited longer for that reason are made due
    now. They are returned, for `dispatch.after`. Does nothing where no backend has `unwatched`.
    """
    if not audiences or not matters():
        return []
    now = clock.measured()
    until = sql.time_text(now + GOOD_FOR)
    names = sorted(set(audiences))  # in one order, so that two processes do not block each other
    # `hasten` comes first, because it asks this table which audiences nobody has watched till now.
    # A step that is under way does not see the new rows. `hasten` tells it by `free_at`.
    with transaction.atomic():
        hastened = ledger.hasten(names, now)
        sql.execute(
            f"INSERT INTO {ATTENTION} (audience, until)"
            " SELECT n_audience, n_until FROM v WHERE TRUE"
            " ON CONFLICT (audience) DO UPDATE SET until = excluded.until RETURNING audience",
            [[name, until] for name in names],
            ("n_audience", "n_until"),
        )
    return hastened


def forget() -> None:
    """Delete the rows of audiences that nobody has watched for a while."""
    before = sql.time_literal(clock.measured() - GOOD_FOR)
    sql.execute(f"DELETE FROM {ATTENTION} WHERE until < {before} RETURNING audience", [], ("n_id",))
