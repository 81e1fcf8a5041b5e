"""Notices when the database goes away and when it is back, and logs one line each."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import Error

from progrock import pulse
from progrock.attempts import one_line
from progrock.database_errors import Trouble, trouble

logger = logging.getLogger(__name__)


class Outage:
    """Whether the database is away. The log has a line when it goes and one when it is back.

    It is back when `pulse.touch` works. That is tried after an answer, unless it was tried in the
    last `pause` seconds.
    """

    def __init__(self, gone: str, back: str, *, pause: float = 0.0, quiet: bool = False) -> None:
        self.away = False
        self._gone, self._back, self._quiet = gone, back, quiet
        self._pause = pause
        self._tried = -pause

    def begun(self, error: Exception) -> None:
        """A call found the database away."""
        if not self.away and not self._quiet:
            logger.warning("%s: %s", self._gone, one_line(error))
        self.away = True

    async def answered(self, run: Callable[[Callable[[], None]], Awaitable[Any]]) -> None:
        """A call was answered. `run` calls the database. Raises no error of the database."""
        now = time.monotonic()
        if not self.away or now - self._tried < self._pause:
            return
        self._tried = now
        try:
            await run(pulse.touch)
        except Error as error:
            if trouble(error) is not Trouble.MISTAKE:
                return
        if self.away and not self._quiet:
            logger.warning(self._back)
        self.away = False
