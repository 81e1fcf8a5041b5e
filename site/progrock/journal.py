"""Writes a line in the log for each milestone of a job, and when a job's calls begin to fail.

A poll that finds nothing new, or only progress, writes nothing.
"""

import logging
from collections.abc import Sequence

from progrock.ledger import Committed, Row
from progrock.milestones import Milestone, one_line

logger = logging.getLogger(__name__)

#: Where the calls for more jobs than this begin to fail at once, their backend is away, and there
#: may be thousands. Then one line counts them all, and each job is named at DEBUG.
MOST_RETRIES = 10
#: The longest text of a backend in a line, in characters.
LONGEST = 300


def stepped(committed: Sequence[Committed]) -> None:
    """Log the milestones of steps that have been committed."""
    retried: list[Row] = []
    for each in committed:
        row = each.row
        match each.milestone:
            case Milestone.STARTED:
                logger.info("job started, job=%s backend=%s", row.id, row.backend)
            case Milestone.REFUSED:
                retried.append(row)
            case Milestone.CANCEL_TAKEN:
                logger.info(
                    "job's cancel was taken by the backend, job=%s backend=%s", row.id, row.backend
                )
            case Milestone.ENDED:
                ended(row)
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


def asked(row: Row) -> None:
    """Log a cancel that was just asked for, and the end of a job that it has ended at once."""
    if row.cancel_requested:
        logger.info("job's cancel was asked for, job=%s backend=%s", row.id, row.backend)
    if not row.active:
        ended(row)


def again(job_id: str, new_id: str, backend: str) -> None:
    """Log that a job was run again, as the job `new_id`."""
    logger.info("job was started again, as=%s job=%s backend=%s", new_id, job_id, backend)


def ended(row: Row) -> None:
    """Log a job's end, with the error where there is one."""
    reason = f" ({_line(row.error)})" if row.error else ""
    logger.info("job ended: %s%s, job=%s backend=%s", row.state, reason, row.id, row.backend)


def _line(text: str) -> str:
    return one_line(text, LONGEST)
