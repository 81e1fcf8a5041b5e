"""A backend of one's own for tests: it kills its process for the jobs that ask for it."""

import os
from collections.abc import Mapping, Sequence

from progrock.backends import JobView, Options, Status


class Fragile:
    """Jobs with params {"deadly": "start"} or {"deadly": "poll"} kill; the others run as long as they say, in polls."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.polls: dict[str, int] = {}

    async def start(self, job: JobView) -> str:
        """Start at once, or never."""
        if job.params.get("deadly") == "start":
            os._exit(9)
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status]:
        """Done at the third poll of this process."""
        if any(job.params.get("deadly") == "poll" for job in jobs):
            os._exit(9)
        found = {}
        for job in jobs:
            self.polls[job.id] = seen = self.polls.get(job.id, 0) + 1
            found[job.id] = Status(state="running" if seen < 3 else "succeeded", progress=seen * 33.0)
        return found

    async def cancel(self, job: JobView) -> None:
        """Cancel at once."""

    async def aclose(self) -> None:
        """Nothing was opened."""
