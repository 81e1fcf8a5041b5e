"""Deletes jobs that ended long ago, in a thread of its own, because a project's code takes part.

Django calls the project's receivers for each deleted job, and follows its foreign keys.
"""

import asyncio
import logging
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import Error, IntegrityError, connection
from django.db.models import ProtectedError, RestrictedError

from progrock import clock, conf, ledger
from progrock.attempts import one_line
from progrock.database_errors import Trouble, trouble

logger = logging.getLogger(__name__)

#: Seconds between two searches for old jobs.
EVERY = 60.0
#: At most so many jobs are deleted in one transaction.
BATCH = 500
#: Seconds between two transactions, in which others write.
PAUSE = 0.1
#: A deletion that conflicts with another transaction is tried so many times.
CONFLICTS = 5
#: Jobs that could not be deleted are tried again after so many seconds.
TRY_KEPT_AGAIN = 3600.0
#: The errors by which a project keeps jobs on purpose. Others are logged with their traceback.
_ON_PURPOSE = (ProtectedError, RestrictedError, IntegrityError)


class Retention:
    """Deletes jobs `PROGROCK_KEEP_DAYS` after their end. Logs which ones cannot be deleted.

    A batch that cannot be deleted is halved until the job that is to blame stands alone.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._size = BATCH
        self._after: ledger.Place | None = None  # up to here all were tried in this pass
        self._retry_at = 0.0  # when to try the kept jobs again, by `clock.elapsed`
        self._kept: dict[str, _Kept] = {}  # in this pass, by the kind of the reason
        self._logged: set[str] = set()  # kinds of reasons

    async def run(self) -> None:
        """Delete old jobs again and again, until this is cancelled."""
        thread = ThreadPoolExecutor(1, "retention")
        try:
            while True:
                await asyncio.sleep(EVERY * random.uniform(0.9, 1.1))
                await asyncio.get_running_loop().run_in_executor(thread, self.delete_old)
        finally:
            self._stopped.set()
            thread.shutdown(wait=False, cancel_futures=True)

    def delete_old(self) -> None:
        """Delete all jobs that are old now. Synchronous, and closes its connection."""
        try:
            if conf.keep_days():
                self._go_through(conf.keep_days())
        except Exception as error:  # the next search tries again
            if isinstance(error, Error) and trouble(error) is not Trouble.MISTAKE:
                # at DEBUG, because the rounds of this worker log that the database is away
                logger.debug("old jobs are deleted later: %s", one_line(error))
            else:
                logger.exception("old jobs could not be deleted, and are tried again")
        finally:
            connection.close()

    def _go_through(self, days: float) -> None:
        if clock.elapsed() >= self._retry_at:
            self._retry_at = clock.elapsed() + TRY_KEPT_AGAIN
            self._logged &= self._kept.keys()
            self._after, self._kept = None, {}
        while waiting := ledger.old(days, self._after, BATCH):
            while waiting and not self._stopped.wait(PAUSE):
                waiting = waiting[self._delete(waiting[: self._size]) :]
            if self._stopped.is_set():
                return
        self._log_kept()

    def _delete(self, some: Sequence[ledger.Place]) -> int:
        """Delete some jobs; returns how many of them were deleted or are kept.

        Returns 0 if they are to be tried in smaller batches.
        """
        error = self._tried([each.job_id for each in some])
        if error and len(some) > 1:
            self._size = len(some) // 2
            return 0
        if error:
            kind = type(error).__name__
            self._kept.setdefault(kind, _Kept(some[0].job_id, error)).jobs += 1
        else:
            self._size = min(2 * self._size, BATCH)
        self._after = some[-1]
        return len(some)

    def _tried(self, job_ids: Sequence[str]) -> Exception | None:
        for _ in range(CONFLICTS):
            error = ledger.delete(job_ids)
            if not isinstance(error, Error) or trouble(error) is not Trouble.CONFLICT:
                break
            self._stopped.wait(random.uniform(0, PAUSE))
        return error

    def _log_kept(self) -> None:
        """Log each kind of reason once, and again only after a pass in which it kept no job."""
        for kind, kept in self._kept.items():
            if kind not in self._logged:
                logger.warning(
                    "jobs that ended long ago are kept: %d, for example job=%s, because of %s: %s",
                    kept.jobs,
                    kept.job_id,
                    kind,
                    one_line(kept.error),
                    exc_info=None if isinstance(kept.error, _ON_PURPOSE) else kept.error,
                )
        self._logged |= self._kept.keys()


@dataclass
class _Kept:
    """How many jobs are kept for one kind of reason, and the first of them with its error."""

    job_id: str
    error: Exception
    jobs: int = 0
