"""Decides when a request may leave: after Retry-After, and no faster than the table's rate."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from progrock.backends.errors import BackendError

#: Statuses that ask for a pause, where a Retry-After comes with them.
PAUSES = (429, 503)

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """How many seconds the backend asks to wait (RFC 9110, 10.2.3); None where it does not.

    `headers` have their names in lower case. A date is compared with the answer's own `Date`,
    because both are by the backend's clock, and without one with `now` (epoch seconds). Azure has
    two headers of its own in milliseconds, which are more exact.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if (value := headers.get(name)) and _NUMBER.fullmatch(value := value.strip()):
            return float(value) / 1000
    if not (value := headers.get("retry-after", "").strip()):
        return None
    if _NUMBER.fullmatch(value):
        return float(value)
    if (until := _date(value)) is None:
        return None
    return max(0.0, until - (now if (at := _date(headers.get("date", ""))) is None else at))


def _date(text: str) -> float | None:
    """A date of HTTP in seconds since the epoch; None for nonsense."""
    try:
        date: datetime = parsedate_to_datetime(text)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return None


class Gate:
    """When the next request to a backend may leave this process.

    A backend that has said "not before" is closed until then. `rate` is how many requests a second
    may leave, None for any number. `clock` gives seconds, `draw` random numbers in [0, 1).
    """

    def __init__(
        self, rate: float | None, clock: Callable[[], float], draw: Callable[[], float]
    ) -> None:
        self._pace = 1 / rate if rate else 0.0
        self._clock, self._draw = clock, draw
        self._closed_until = 0.0
        self._next = 0.0  # when the next request may leave
        self._queue = 0.0  # when the last one that was sent away is to come back

    def close(self, seconds: float) -> None:
        """Let no request leave for so long."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def check(self) -> None:
        """Raise BackendError with `asked` false while the backend is closed."""
        if (closed := self._closed_until - self._clock()) > 0:
            spread = max(1.0, min(closed, 10.0)) * self._draw()
            raise BackendError(
                "the backend has asked for a pause", asked=False, retry_after=closed + spread
            )

    def wait(self, patience: float) -> float:
        """How many seconds the next request has to wait. That request then counts as sent.

        Raises BackendError with `asked` false where the wait is longer than `patience`. Its
        `retry_after` gives each request a time of its own, so that they do not come back together.
        """
        self.check()
        if not self._pace:
            return 0.0
        now = self._clock()
        wait = max(0.0, self._next - now)
        if wait > patience:
            self._queue = max(self._queue, self._next) + self._pace
            raise BackendError(
                "the backend's rate is used up", asked=False, retry_after=self._queue - now
            )
        self._next = now + wait + self._pace
        return wait
