"""A backend class that costs nothing: its jobs run for ever, and it says so at once."""

from collections.abc import Mapping, Sequence

from progrock.backends import BackendError, JobView, Options, Status

RUNNING = Status(state="running")


class Noop:
    """Shows what ProgRock itself costs; with `changes`, each poll has news for the browser."""

    def __init__(self, options: Options, changes: bool = False) -> None:
        self.options, self.changes = options, changes
        self._polls = 0

    async def start(self, job: JobView) -> str:
        """The job's own id is its handle."""
        return job.id

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        """All jobs are running."""
        if not self.changes:
            return dict.fromkeys([job.id for job in jobs], RUNNING)
        self._polls += 1
        status = Status(
            state="running", progress=self._polls % 1000 / 10, message=f"step {self._polls}"
        )
        return dict.fromkeys([job.id for job in jobs], status)

    async def cancel(self, job: JobView) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to close."""
