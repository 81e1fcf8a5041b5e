"""A backend class that costs nothing: its jobs run for ever, and it says so at once."""

import random
from collections.abc import Mapping, Sequence

from progrock.backends import BackendError, JobView, Options, Status
from tests.bench.tables import news_below

RUNNING = Status(state="running")


class Noop:
    """Shows what ProgRock itself costs.

    `changes` is which part of the jobs has news for the browser at each poll, from 0 to 1.
    """

    def __init__(self, options: Options, changes: float = 0) -> None:
        self.options, self.changes = options, changes
        self._below = news_below(changes)
        # Another process may poll the same jobs, so it must not count as we do.
        self._polls = random.randrange(10**9)

    async def start(self, job: JobView) -> str:
        """The job's own id is its handle."""
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        """All jobs are running."""
        ids = [job.id for job in jobs]
        if not self.changes:
            return dict.fromkeys(ids, RUNNING)
        self._polls += 1
        status = Status(
            state="running", progress=self._polls % 1000 / 10, message=f"step {self._polls}"
        )
        if self.changes >= 1:
            return dict.fromkeys(ids, status)
        return {each: status if each < self._below else RUNNING for each in ids}

    async def cancel(self, job: JobView) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to close."""
