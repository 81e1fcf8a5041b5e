"""Custom backend classes for tests: one kills its process, one answers nonsense, one too much.

A job's params say when.
"""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from progrock.backends import JobView, Options, Status


class Fragile:
    """Kills the process for jobs with the params {"deadly": "start"} or {"deadly": "poll"}.

    All other jobs succeed at their third poll.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.polls: dict[str, int] = {}

    async def start(self, job: JobView) -> str:
        """Start at once, or kill the process."""
        if job.params.get("deadly") == "start":
            os._exit(9)
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status]:
        """Running twice, then succeeded, as this process counts; or kill the process."""
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


#: Wrong answers of a class to a start, in place of a handle.
STARTS: dict[str, Any] = {
    "none": None,
    "true": True,
    "empty": "",
    "list": ["handle"],
    "object": object(),
}
#: Wrong answers to a poll, in place of a mapping.
POLLS: dict[str, Any] = {"nothing": None, "number": 7, "statuses": [Status(state="running")]}
#: Wrong answers about one job, in place of a Status.
STATUSES: dict[str, Any] = {
    "no status": None,
    "text": "running",
    # The wrong types are the point, here and below.
    "unknown state": Status(state="paused"),  # type: ignore[arg-type]
    "number for a state": Status(state=7),  # type: ignore[arg-type]
    "list for a state": Status(state=["running"]),  # type: ignore[arg-type]
    "number for a message": Status(state="running", message=7),  # type: ignore[arg-type]
    "bytes for a progress": Status(state="running", progress=b"half"),  # type: ignore[arg-type]
    "text for a wait": Status(state="running", retry_after="soon"),  # type: ignore[arg-type]
    "NaN for a wait": Status(state="running", retry_after=float("nan")),
}


class Careless:
    """Answers the first start or poll of a job with the nonsense that its params name.

    After that it answers as it should.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.wrong: set[str] = set()  # the jobs that have had their wrong answer

    async def start(self, job: JobView) -> Any:
        """A handle, or one of STARTS."""
        if (name := job.params.get("start")) and job.id not in self.wrong:
            self.wrong.add(job.id)
            return STARTS[name]
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Any:
        """All jobs succeeded; or nonsense for one of them or for all; or no answer at all."""
        found: dict[str, Any] = {}
        for job in jobs:
            name = job.params.get("poll")
            if job.id in self.wrong or not name:
                found[job.id] = Status(state="succeeded")
                continue
            self.wrong.add(job.id)
            if name == "hang":
                await asyncio.sleep(3600)
            if name == "block":
                time.sleep(3)  # what no class may do: the whole worker stands still
                return {job.id: Status(state="succeeded") for job in jobs}
            if name in POLLS:
                return POLLS[name]
            found[job.id] = STATUSES[name]
        return found

    async def cancel(self, job: JobView) -> Any:
        """Always nonsense; so only the next poll can tell that the job was cancelled."""
        return "cancelled"

    async def aclose(self) -> None:
        """Nothing was opened."""


class Bulky:
    """Every job succeeds at its first poll, with a text of `mib` MiB (of params) as its result."""

    def __init__(self, options: Options) -> None:
        self.options = options

    async def start(self, job: JobView) -> str:
        """Start at once."""
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status]:
        """All of them have succeeded."""
        return {
            job.id: Status(state="succeeded", result="x" * (job.params["mib"] << 20))
            for job in jobs
        }

    async def cancel(self, job: JobView) -> None:
        """Cancel at once."""

    async def aclose(self) -> None:
        """Nothing was opened."""
