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

logger = logging.getLogger(__name__)

#: A loop that is held for more than so many seconds is told.
LIMIT = 1.0
#: Seconds between two looks.
EVERY = 0.5
#: So many calls are named, the innermost first.
CALLS = 5


class Watchdog:
    """A thread that asks the running event loop for a sign of life, again and again."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._stopped = threading.Event()
        self._alive = threading.Event()

    def start(self) -> None:
        """Begin to watch. The thread ends with the loop, or with the process."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._alive.set()

    def _run(self) -> None:
        while not self._stopped.wait(EVERY):
            self._alive.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if not self._alive.wait(LIMIT):
                self._tell(asked)

    def _tell(self, asked: float) -> None:
        """The loop gave no sign within the limit: tell where it is, and then for how long."""
        # Where this thread stood still as well, the machine was suspended, or the process stopped.
        # The loop then gets its time once more.
        stood_still = time.monotonic() - asked > LIMIT + EVERY
        if (stood_still and self._alive.wait(LIMIT)) or not self._loop.is_running():
            return
        where = _where(self._loop_thread)
        logger.warning("the event loop is held for more than %g s: %s", LIMIT, where)
        while not self._alive.wait(EVERY):
            if self._loop.is_closed():
                return
        if not self._stopped.is_set():
            seconds = time.monotonic() - asked
            logger.warning("the event loop goes on; it was held for %.3g s", seconds)


def _where(thread: int) -> str:
    """The calls under way in a thread, the innermost first, each as `function, file:line`."""
    frame = sys._current_frames().get(thread)  # documented for finding out where a thread hangs
    stack = traceback.extract_stack(frame)[-CALLS:] if frame else []
    calls = [f"{each.name}, {each.filename}:{each.lineno}" for each in reversed(stack)]
    return " < ".join(calls) or "its thread has ended"
