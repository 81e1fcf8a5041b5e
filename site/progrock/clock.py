"""Tells the time by the database's clock, which all processes share, and not by the machine's.

A process asks the database now and then. In between it counts on with a clock that nobody can set
and that goes on while the machine is suspended. Before it has asked, it uses the machine's clock.
"""

import logging
import time
from contextvars import ContextVar
from datetime import UTC, datetime

from django.conf import settings
from django.db import connection
from django.utils.timezone import make_naive

from progrock import sql

logger = logging.getLogger(__name__)

#: `measured` asks the database again when its last answer is older than so many seconds.
MEASURE = 60.0
#: A machine's clock that is off by more than so many seconds is logged and shown to operators.
OFF = 1.0
#: How exact a database's answer is, in seconds. SQLite's clock has milliseconds.
RESOLUTION = 0.002

#: How many seconds a test has put the clock ahead (`progrock.testing`).
ahead: ContextVar[float] = ContextVar("ahead", default=0.0)

_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds on a clock that never goes back. On Linux it counts also during a suspension."""
    return time.clock_gettime(_COUNTER)


_start = time.time() - elapsed()  # the time at which `elapsed` was 0
_measured: float | None = None  # when the database answered, by `elapsed`
_logged = 0.0  # by how many seconds the clock was off in the latest log line


def now() -> float:
    """The database's time in seconds since the epoch, by its latest answer. Asks nobody."""
    return _start + elapsed() + ahead.get()


def measured() -> float:
    """The same, but asks the database first if its latest answer is older than MEASURE."""
    if _measured is None or elapsed() - _measured > MEASURE:
        measure()
    return now()


def measure() -> None:
    """Ask the database for its time, and correct ours where it is surely wrong.

    The database read its clock at some moment between our question and its answer. Our time is left
    alone if it fits any such moment, so that a slow answer spoils nothing.
    """
    global _start, _measured
    connection.ensure_connection()  # so that the time it takes to open one does not count
    asked = elapsed()
    [[theirs]] = sql.execute(f"SELECT {sql.now_as_epoch()}", [], ("n_id",))
    answered = elapsed()
    low, high = theirs - answered - RESOLUTION, theirs - asked + RESOLUTION
    _start = min(max(_start, low), high)
    _measured = answered
    _log()


def off_by() -> float:
    """By how many seconds this machine's clock is ahead of the database's; below 0: behind."""
    return time.time() - now()


def trouble() -> str:
    """A sentence for operators where this machine's clock is known to be off; else empty."""
    off = off_by()
    if _measured is None or abs(off) <= OFF:
        return ""
    side = "ahead of" if off > 0 else "behind"
    return f"the clock of this machine is {abs(off):.1f} s {side} the database's"


def as_datetime(seconds: float) -> datetime:
    """A time as Django's models have it: with a zone, or local where `USE_TZ` is off."""
    aware = datetime.fromtimestamp(seconds, UTC)
    return aware if settings.USE_TZ else make_naive(aware)


def _log() -> None:
    """Log a line when the machine's clock goes wrong, when its error changes, and when it is right.

    A change counts from half a second on, so that a clock near the limit does not fill the log.
    """
    global _logged
    off = off_by()
    if abs(off - _logged) <= (OFF if _logged == 0.0 else OFF / 2):
        return
    if sentence := trouble():
        logger.error("%s: jobs go by the database's clock; set both clocks by NTP", sentence)
        _logged = off
    else:
        logger.warning("the clock of this machine agrees with the database's again")
        _logged = 0.0
