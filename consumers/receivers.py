"""Runs a project's signal receivers, in threads of their own and never in the way of a round."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from django.db import close_old_connections

from progrock import wire
from progrock.broker.tasks import bucket_of
from progrock.ledger import Row
from progrock.signals import job_changed, job_finished

logger = logging.getLogger(__name__)

#: So many receivers run at once. All signals of one job are sent by the same thread, in order.
THREADS = 4
#: So many signals may wait for a thread. Further ones are dropped. The ledger remembers the ends
#: among them, so these are sent later.
MOST_WAITING = 1000
#: A receiver that runs for so many seconds is named in the log.
SLOW = 5.0
_DISPATCHER = str(Path("django", "dispatch", "dispatcher.py"))


class Receivers:
    """Sends `job_changed` and `job_finished`; a receiver that raises, or is slow, is logged."""

    def __init__(self) -> None:
        self._lines = [_Line(n) for n in range(THREADS)]

    @property
    def exist(self) -> bool:
        """Whether anybody listens, so that frames need to be made."""
        return bool(job_changed.has_listeners() or job_finished.has_listeners())

    async def send(self, rows: Sequence[Row]) -> list[str]:
        """Send the signals of these jobs; returns the ids of those that were sent."""
        if not self.exist:
            return [row.id for row in rows]
        done = await asyncio.gather(*(self._send(wire.job_frame(row)) for row in rows))
        return [row.id for row, sent in zip(rows, done, strict=True) if sent]

    async def _send(self, frame: dict[str, Any]) -> bool:
        line = self._lines[bucket_of(frame["job"]) % THREADS]
        if not line.has_room():
            return False
        line.waiting += 1
        try:
            running = asyncio.get_running_loop().run_in_executor(line.pool, line.send, frame)
            while True:
                done, _ = await asyncio.wait([running], timeout=SLOW)
                if done:
                    await running
                    return True
                line.warn_if_slow()
        finally:
            line.waiting -= 1

    def close(self) -> None:
        """Wait for no receiver. Ends that were not sent are sent later, by another worker."""
        for line in self._lines:
            line.pool.shutdown(wait=False, cancel_futures=True)


class _Line:
    """One thread, and the signals that wait for it."""

    def __init__(self, number: int) -> None:
        self.pool = ThreadPoolExecutor(1, f"receivers-{number}")
        self.waiting = 0
        self._name = f"receivers-{number}"
        self._dropping = False  # whether it was logged that signals are dropped
        self._thread: int | None = None
        self._since = 0.0  # monotonic: when the receivers of the present signal began
        self._doing = ""
        self._warned = False  # whether these receivers were logged as slow

    def has_room(self) -> bool:
        """Whether one more signal may wait. Logs when signals begin to be dropped, and the end.

        It has ended when half of those that wait have been sent, so that the log is not full of it.
        """
        if self.waiting >= MOST_WAITING and not self._dropping:
            self._dropping = True
            logger.error(
                "signal receivers are too slow, so their signals are dropped, and ends are sent"
                " later, thread=%s",
                self._name,
            )
        elif self.waiting <= MOST_WAITING // 2 and self._dropping:
            self._dropping = False
            logger.info("signal receivers get all signals again, thread=%s", self._name)
        return self.waiting < MOST_WAITING

    def send(self, frame: dict[str, Any]) -> None:
        """Run all receivers of one change, in this line's thread."""
        self._thread = threading.get_ident()
        close_old_connections()
        try:
            self._run(job_changed, "job_changed", frame)
            if frame["complete"]:
                self._run(job_finished, "job_finished", frame)
        finally:
            self._since = 0.0
            close_old_connections()

    def _run(self, signal: Any, name: str, frame: dict[str, Any]) -> None:
        self._since, self._doing, self._warned = (
            time.monotonic(),
            f"{name}, job={frame['job']}",
            False,
        )
        for receiver, answer in signal.send_robust(sender=None, job=frame):
            if isinstance(answer, Exception):
                logger.error(
                    "a signal receiver failed: %r, job=%s",
                    receiver,
                    frame["job"],
                    exc_info=answer,
                )

    def warn_if_slow(self) -> None:
        """Log once where a receiver is that has run for too long."""
        since, thread = self._since, self._thread
        if not since or thread is None or self._warned or time.monotonic() - since < SLOW:
            return
        self._warned = True
        seconds = time.monotonic() - since
        logger.warning("a receiver of %s has run for %.3g s: %s", self._doing, seconds, _at(thread))


def _at(thread: int) -> str:
    """Where a thread is in the receiver that Django called."""
    frame = sys._current_frames().get(thread)  # documented for finding out where a thread hangs
    stack = traceback.extract_stack(frame) if frame else []
    calls = [n for n, each in enumerate(stack) if each.filename.endswith(_DISPATCHER)]
    if not calls or calls[-1] + 1 == len(stack):
        return "between two receivers"
    receiver = stack[calls[-1] + 1]
    return f"{receiver.name}, {receiver.filename}:{receiver.lineno}"
