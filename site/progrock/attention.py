"""Which audiences somebody watches: who shows jobs says so here, and workers look more often."""

from collections.abc import Sequence

from django.db import transaction

from progrock import clock, conf, ledger, sql
from progrock.ledger import Committed

#: Seconds for which it is known that somebody watches, since it was last said.
GOOD_FOR = 60.0

_TABLE = "progrock_attention"


def matters() -> bool:
    """Whether a backend has jobs looked at more rarely while nobody watches them."""
    return any(options.unwatched is not None for options in conf.backends().values())


def watch(audiences: Sequence[str]) -> list[Committed]:
    """Say that somebody watches these audiences from now on, for GOOD_FOR seconds. Synchronous.

    Jobs that had waited longer because nobody watched are made due now, where the audience was not
    watched before. They are returned, for `dispatch.after`. Where no backend has `unwatched`,
    nothing is done.
    """
    if not audiences or not matters():
        return []
    now = clock.measured()
    until = sql.time_text(now + GOOD_FOR)
    names = sorted(set(audiences))  # in one order, so that two processes do not block each other
    # First the jobs, because a mark would hide that nobody has watched till now. `ledger.hasten`
    # leaves a sign for a step that is under way and does not see the mark.
    with transaction.atomic():
        hastened = ledger.hasten(names, now)
        sql.execute(
            f"INSERT INTO {_TABLE} (audience, until) SELECT n_audience, n_until FROM v WHERE TRUE"
            " ON CONFLICT (audience) DO UPDATE SET until = excluded.until RETURNING audience",
            [[name, until] for name in names],
            ("n_audience", "n_until"),
        )
    return hastened


def forget() -> None:
    """Delete what has not been true for a while."""
    before = sql.time_literal(clock.measured() - GOOD_FOR)
    sql.execute(f"DELETE FROM {_TABLE} WHERE until < {before} RETURNING audience", [], ("n_id",))
