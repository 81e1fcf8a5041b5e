"""Logs one line when a backend stops answering, and one when it answers again."""

import logging
import time

from progrock.backends import BackendError

logger = logging.getLogger(__name__)

#: A backend is well again when so many seconds have passed without a failure, because one that
#: fails now and then would otherwise be logged on and off.
CALM = 10.0


class BackendLog:
    """Whether calls of one backend fail."""

    def __init__(self, backend: str) -> None:
        self._backend = backend
        self._failed: float | None = None  # monotonic: the latest failure; None while all is well

    def note(self, outcome: object) -> None:
        """Take account of what a call gave: an answer, or the BackendError in its place."""
        if isinstance(outcome, BackendError) and not outcome.asked:
            return
        if not isinstance(outcome, BackendError) or outcome.final or outcome.forgotten:
            if self._failed is not None and time.monotonic() - self._failed > CALM:
                self._failed = None
                logger.info("the backend answers again, backend=%s", self._backend)
            return
        if self._failed is None:
            sentence = " ".join(outcome.sentence.split())
            logger.warning("calls fail and are retried: %s, backend=%s", sentence, self._backend)
        self._failed = time.monotonic()
