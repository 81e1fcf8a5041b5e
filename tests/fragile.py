"""Backends of one's own for tests: one kills its process for the jobs that ask for it, one answers nonsense."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any

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
            found[job.id] = Status(
                state="running" if seen < 3 else "succeeded", progress=seen * 33.0
            )
        return found

    async def cancel(self, job: JobView) -> None:
        """Cancel at once."""

    async def aclose(self) -> None:
        """Nothing was opened."""


#: What a class may answer to a start in place of a handle, and to a poll in place of a mapping, or of one job's Status.
STARTS: dict[str, Any] = {
    "none": None,
    "true": True,
    "empty": "",
    "list": ["handle"],
    "object": object(),
}
POLLS: dict[str, Any] = {"nothing": None, "number": 7, "statuses": [Status(state="running")]}
STATUSES: dict[str, Any] = {
    "no status": None,
    "text": "running",
    "unknown state": Status(state="paused"),  # type: ignore[arg-type]  # that is the point, here and below
    "number for a state": Status(state=7),  # type: ignore[arg-type]
    "list for a state": Status(state=["running"]),  # type: ignore[arg-type]
    "number for a message": Status(state="running", message=7),  # type: ignore[arg-type]
    "bytes for a progress": Status(state="running", progress=b"half"),  # type: ignore[arg-type]
    "text for a wait": Status(state="running", retry_after="soon"),  # type: ignore[arg-type]
    "NaN for a wait": Status(state="running", retry_after=float("nan")),
}


class Careless:
    """Answers the first start, or the first poll, of a job with what its params name; afterwards as it should."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.wrong: set[str] = set()  # the jobs that have had their nonsense

    async def start(self, job: JobView) -> Any:
        """A handle, or one of STARTS."""
        if (name := job.params.get("start")) and job.id not in self.wrong:
            self.wrong.add(job.id)
            return STARTS[name]
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Any:
        """Each job done, or nonsense for one of them or for all, or no answer at all."""
        found: dict[str, Any] = {}
        for job in jobs:
            name = job.params.get("poll")
            if job.id in self.wrong or not name:
                found[job.id] = Status(state="succeeded")
                continue
            self.wrong.add(job.id)
            if name == "hang":
                await asyncio.sleep(3600)
            if name in POLLS:
                return POLLS[name]
            found[job.id] = STATUSES[name]
        return found

    async def cancel(self, job: JobView) -> Any:
        """Nonsense, always: the job has then to be cancelled by its next poll."""
        return "cancelled"

    async def aclose(self) -> None:
        """Nothing was opened."""
