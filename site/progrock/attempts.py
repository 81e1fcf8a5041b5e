"""Repeats a call to the database that failed on a conflict with another, within bounds.

For threads that may wait. The event loops have the same rule in `consumers/worker_database.py`.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from django.db import Error, OperationalError, connection, transaction

from progrock.database_errors import Trouble, drop, trouble

T = TypeVar("T")

#: A call is repeated at most so many times, and for no longer than so many seconds.
CONFLICTS = 20
CONFLICTS_FOR = 5.0
#: The longest random wait before it is repeated, in seconds.
CONFLICT_WAIT = 0.2


class NoAnswer(OperationalError):
    """Raised when the database's answer was lost, so nobody knows whether the call was done."""


def attempt(call: Callable[[], T]) -> T:
    """What `call` returns. It is repeated, within bounds, where it failed on a conflict.

    Inside a transaction of the caller's it is called once, because only the whole transaction can
    be repeated.
    Raises OperationalError where the database is away or the conflicts did not end. NoAnswer, and
    errors that would come again at any time (Trouble.MISTAKE), come out as they are.
    """
    begun = time.monotonic()
    for n in range(CONFLICTS + 1):
        try:
            return call()
        except Error as error:
            if connection.in_atomic_block:
                raise  # the caller's transaction is lost as a whole
            found = trouble(error)
            last = n == CONFLICTS or time.monotonic() - begun > CONFLICTS_FOR
            if found is Trouble.CONFLICT and not last:
                time.sleep(random.uniform(0, CONFLICT_WAIT))
                continue
            drop()
            if found is Trouble.MISTAKE or isinstance(error, NoAnswer):
                raise
            raise OperationalError(one_line(error)) from error
    raise AssertionError


@contextmanager
def all_or_nothing() -> Iterator[None]:
    """A transaction, or a savepoint in the caller's. An error means that nothing was done.

    The exception is NoAnswer, which is raised where the answer to the commit was lost.
    """
    commits, complete = not connection.in_atomic_block, False
    try:
        with transaction.atomic():
            yield
            complete = True
    except Error as error:
        if commits and complete and trouble(error) is Trouble.AWAY:
            raise NoAnswer(one_line(error)) from error
        raise


def one_line(error: Exception) -> str:
    """The text of an error on one line, because psycopg writes several."""
    return " ".join(str(error).split()) or type(error).__name__
