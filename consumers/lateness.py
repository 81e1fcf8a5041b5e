"""Logs once a minute how late the poll tasks of a worker were."""

import asyncio
import logging
from collections import Counter
from itertools import accumulate

logger = logging.getLogger(__name__)

#: Seconds between two reports.
REPORT = 60.0


class Lateness:
    """Counts tasks by how late they were, in whole milliseconds."""

    def __init__(self) -> None:
        self._tasks: Counter[int] = Counter()

    def count(self, seconds: float, tasks: int) -> None:
        """So many tasks were taken so many seconds after they were due."""
        self._tasks[int(seconds * 1e3)] += tasks

    async def report(self) -> None:
        """Log the median and the 99th percentile of each period."""
        while True:
            await asyncio.sleep(REPORT)
            late, self._tasks = self._tasks, Counter()
            if tasks := late.total():
                middle, p99 = (_quantile(late, part) for part in (0.5, 0.99))
                logger.info(
                    "tasks were late by %d ms median, %d ms p99, tasks=%d", middle, p99, tasks
                )


def _quantile(counts: Counter[int], part: float) -> int:
    """The smallest value that at least this part of all counted values does not exceed."""
    below = accumulate(count for _, count in sorted(counts.items()))
    wanted = part * counts.total()
    return next(value for value, sum_ in zip(sorted(counts), below, strict=True) if sum_ >= wanted)
