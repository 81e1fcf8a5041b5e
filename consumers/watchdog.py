"""Notices when the event loop of a process was held, and names in the log what held it.

Everything in a worker, or in a web process, shares one event loop. Code that does not give it back,
such as a `time.sleep` in a class backend, stops all the rest.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from asyncio import events, runners

logger = logging.getLogger(__name__)

#: A loop that is held for more than so many seconds is logged.
LIMIT = 1.0
#: Seconds between two checks.
EVERY = 0.5
#: At most so many calls are named, the innermost first.
CALLS = 20

#: The files of asyncio that run a loop. Calls from these outwards are the same in every process.
_LOOP = {events.__file__, runners.__file__}


async def watch() -> None:
    """Watch the running event loop until this is cancelled."""
    watchdog = Watchdog()
    watchdog.start()
    try:
        await asyncio.Event().wait()
    finally:
        watchdog.stop()


class Watchdog:
    """A thread that asks the running event loop for a sign of life, again and again.

    `limit` and `every` are in seconds, as LIMIT and EVERY.
    """

    def __init__(self, *, limit: float = LIMIT, every: float = EVERY) -> None:
        self._limit, self._every = limit, every
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._alive = threading.Event()
        self.thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch. The thread ends with the loop, or with the process."""
        self.thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._alive.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            self._alive.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._alive.wait(self._limit) and not self._stopped.is_set():
                self._log(asked)

    def _log(self, asked: float) -> None:
        """Log where the loop is held, and at the end for how long since `asked` (monotonic)."""
        # If this thread stood still as well, the machine was suspended, or the process was stopped.
        # In that case the loop gets the limit once more.
        stood_still = time.monotonic() - asked > self._limit + self._every
        if (stood_still and self._alive.wait(self._limit)) or not self._loop.is_running():
            return
        where = _where(self._loop_thread)
        logger.warning("the event loop is held for more than %g s: %s", self._limit, where)
        while not self._alive.wait(self._every):
            if self._stopped.is_set() or self._loop.is_closed():
                return
        if not self._stopped.is_set():
            seconds = time.monotonic() - asked
            logger.warning("the event loop goes on; it was held for %.3g s", seconds)


def _where(thread: int) -> str:
    """The calls that an event loop has under way in a thread, each as `function, file:line`.

    The innermost is first.
    """
    frame = sys._current_frames().get(thread)  # documented for finding out where a thread hangs
    calls: list[str] = []
    for each, line in traceback.walk_stack(frame) if frame else ():
        if each.f_code.co_filename in _LOOP or len(calls) == CALLS:
            break
        calls.append(f"{each.f_code.co_name}, {each.f_code.co_filename}:{line}")
    return " < ".join(calls) or "no Python code"
