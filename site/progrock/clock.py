"""The time by which all processes go: the database's clock, whatever this machine's clock says.

A process counts on from the moment at which it asked the database, by a clock that nobody can set
and that goes on while the machine is suspended. Before it has asked, it believes its own clock.
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

#: `now` measures again where the last measurement is older than so many seconds.
MEASURE = 60.0
#: A clock that is off by more than so many seconds is logged, and shown to operators.
OFF = 1.0
#: SQLite's clock has milliseconds; so much (seconds) may be wrong in what a database answers.
RESOLUTION = 0.002

#: How many seconds the clock is ahead in what a test is running now (`progrock.testing`).
ahead: ContextVar[float] = ContextVar("ahead", default=0.0)

_COUNTER = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds that only ever grow, also while the machine is suspended (where the system can)."""
    return time.clock_gettime(_COUNTER)


_start = time.time() - elapsed()  # the time at which `elapsed` was 0
_measured: float | None = None  # when the database was asked, by `elapsed`
_told = 0.0  # by how many seconds the clock was said to be off


def now() -> float:
    """The database's time in seconds since the epoch, as far as it is known here. Asks nobody."""
    return _start + elapsed() + ahead.get()


def measured() -> float:
    """`now`, after a look at the database's clock if the last one is too long ago. Synchronous."""
    if _measured is None or elapsed() - _measured > MEASURE:
        measure()
    return now()


def measure() -> None:
    """Ask the database for its time, and correct ours where it is surely wrong. Synchronous.

    The database read its clock between our question and its answer. What fits in between is left
    alone, so that a slow answer spoils nothing.
    """
    global _start, _measured
    connection.ensure_connection()  # because opening one is no part of the round trip
    asked = elapsed()
    [[theirs]] = sql.execute(f"SELECT {sql.now_as_epoch()}", [], ("n_id",))
    answered = elapsed()
    low, high = theirs - answered - RESOLUTION, theirs - asked + RESOLUTION
    _start = min(max(_start, low), high)
    _measured = answered
    _tell()


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


def _tell() -> None:
    """Log one line when the clock goes wrong, when it is wrong differently, and when it is right.

    Half a second is left for a clock that is just at the border.
    """
    global _told
    off = off_by()
    if abs(off - _told) <= (OFF if _told == 0.0 else OFF / 2):
        return
    if sentence := trouble():
        logger.error("%s: jobs go by the database's clock, and NTP should set both", sentence)
        _told = off
    else:
        logger.warning("the clock of this machine agrees with the database's again")
        _told = 0.0
