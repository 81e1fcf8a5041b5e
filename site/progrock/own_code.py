"""Decides what a visitor and the log read when a function of the project's own fails."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from progrock.database_errors import Trouble, trouble
from progrock.errors import Refused

logger = logging.getLogger(__name__)

#: A function that goes on failing is logged once in so many seconds.
LOG_EVERY = 10.0
#: When the function of each setting was logged last.
_logged: dict[str, float] = {}


@contextmanager
def own_code(
    setting: str, sentence: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Log what the project's function of `setting` raises, and raise Refused in its place.

    The visitor reads the code `misconfigured` and `sentence`, and nothing of the mistake itself.
    Exceptions of the types `passing` come out as they are, and so do errors of a database that is
    away or busy.
    """
    try:
        yield
    except passing:
        raise
    except Exception as error:
        if isinstance(error, Error) and trouble(error) is not Trouble.MISTAKE:
            raise
        _log(setting, error)
        raise Refused("misconfigured", sentence) from error


def _log(setting: str, error: Exception) -> None:
    """Log a mistake, but not once for each of a thousand visitors."""
    now, before = time.monotonic(), _logged.get(setting)
    if before is None or now - before >= LOG_EVERY:
        _logged[setting] = now
        known = isinstance(error, ImproperlyConfigured)
        logger.error(
            "visitors are refused, because of a mistake in the project: %s",
            error if known else f"the function of {setting} failed",
            exc_info=None if known else error,
        )
