"""Writes a line in the log for each change of a job that matters: started, retried, ended.

A poll that finds nothing new, or only progress, writes nothing.
"""

import logging
from collections.abc import Sequence

from progrock.ledger import Committed, Row
from progrock.models import State

logger = logging.getLogger(__name__)

#: Where more jobs of one step than this are retried for the first time, one line tells of all, and
#: the jobs are named at DEBUG: their backend is away, and there may be thousands.
MOST_RETRIES = 10
LONGEST = 300


def stepped(committed: Sequence[Committed], *, starts: bool = False) -> None:
    """Tell of steps that stand in the ledger; `starts`: none of these jobs was running before."""
    retried: list[Row] = []
    for row, _, visible in committed:
        if not visible:
            continue
        if not row.active:
            ended(row)
        elif row.attempts == 1:
            retried.append(row)
        elif starts and row.state == State.RUNNING:
            logger.info("job started, job=%s backend=%s", row.id, row.backend)
    level = logging.INFO if len(retried) <= MOST_RETRIES else logging.DEBUG
    for row in retried:
        logger.log(
            level, "job is retried: %s, job=%s backend=%s", _line(row.message), row.id, row.backend
        )
    if level == logging.DEBUG:
        row = retried[0]
        logger.info(
            "%d jobs are retried: %s, the first: job=%s backend=%s",
            len(retried),
            _line(row.message),
            row.id,
            row.backend,
        )


def ended(row: Row) -> None:
    """Tell of a job's end, with the reason where there is one."""
    reason = f" ({_line(row.error)})" if row.error else ""
    logger.info("job ended: %s%s, job=%s backend=%s", row.state, reason, row.id, row.backend)


def _line(text: str) -> str:
    """A backend's text on one line."""
    return " ".join(text.split())[:LONGEST]
