"""Checks whether the database answers, once a second at most, for everybody who wants to know."""

import threading
import time
import uuid
from concurrent.futures import Future, ThreadPoolExecutor

from django.db import DatabaseError, OperationalError, connection
from django.db.models import F

from progrock.database_errors import drop
from progrock.models import Installation, Job

#: The result of a check is used for so many seconds.
FRESH = 1.0
#: After so many seconds without an answer the database counts as away.
ANSWER = 8.0


def check() -> None:
    """Ask the database something that costs it nothing. Raises DatabaseError.

    A database that takes no writes raises it, too.
    """
    with connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute("SELECT 1")
            return
        cursor.execute("SELECT current_setting('transaction_read_only')")
        if cursor.fetchone() == ("on",):
            raise OperationalError("the database is read-only")


def touch() -> None:
    """Read a job, and write a value that is there already. Raises DatabaseError if either fails.

    A read alone proves little, because a server that takes no writes, or whose disk is full, still
    answers reads.
    """
    try:
        list(Job.objects.filter(pk=uuid.UUID(int=0)))
        Installation.objects.filter(pk=1).update(key=F("key"))
    except DatabaseError:
        drop()
        raise


class Pulse:
    """Checks from a thread of its own, in which it keeps no connection."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "pulse")
        self._lock = threading.Lock()
        self._latest: Future[str] | None = None
        self._begun = 0.0

    def state(self) -> str:
        """ "ok", or what is wrong, in a word or two. Waits for the answer, up to ANSWER seconds."""
        with self._lock:
            now = time.monotonic()
            if self._latest is None or (self._latest.done() and now - self._begun > FRESH):
                self._begun, self._latest = now, self._thread.submit(_state)
            latest, left = self._latest, self._begun + ANSWER - now
        try:
            return latest.result(max(0.0, left))
        except TimeoutError:
            return "no answer"


def _state() -> str:
    try:
        check()
    except DatabaseError as error:
        drop()
        return type(error).__name__
    finally:
        connection.close()
    return "ok"


#: The pulse of this process.
pulse = Pulse()
