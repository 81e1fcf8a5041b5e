"""The project's own functions, PROGROCK_AUDIENCES and PROGROCK_AUTHORIZE: how mistakes are told."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.core.exceptions import ImproperlyConfigured
from django.db import Error

from progrock.database_errors import Trouble, trouble
from progrock.errors import Refused

logger = logging.getLogger(__name__)

#: Seconds between two log lines of mistakes in the function of one setting.
SAY_AGAIN = 10.0
_said: dict[str, float] = {}


@contextmanager
def own_code(
    setting: str, sentence: str, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Log what the project's function of `setting` raises, and raise Refused in its place.

    The visitor reads the code `misconfigured` and `sentence`, and nothing of the mistake itself.
    What is `passing` comes out as it is, and so do errors of a database that is away or busy.
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
    """Log a mistake, but not for each of a thousand visitors."""
    now, before = time.monotonic(), _said.get(setting)
    if before is None or now - before >= SAY_AGAIN:
        _said[setting] = now
        known = isinstance(error, ImproperlyConfigured)
        logger.error(
            "visitors are refused: %s",
            error if known else f"the function of {setting} failed",
            exc_info=None if known else error,
        )
