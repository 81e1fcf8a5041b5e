"""A custom backend class for tests: its jobs run for ever and want a poll every ten minutes."""

from collections.abc import Mapping, Sequence

from progrock.backends import JobView, Options, Status


class Patient:
    """Never ends a job."""

    def __init__(self, options: Options) -> None:
        self.options = options

    async def start(self, job: JobView) -> str:
        """Start at once."""
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status]:
        """Still running."""
        return {job.id: Status(state="running", progress=1.0, retry_after=600.0) for job in jobs}

    async def cancel(self, job: JobView) -> None:
        """Cancel at once."""

    async def aclose(self) -> None:
        """Nothing was opened."""
