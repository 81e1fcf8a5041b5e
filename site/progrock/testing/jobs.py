"""What a test does with jobs: see which were started, and take them on."""

import uuid
from collections.abc import Iterable

from asgiref.sync import async_to_sync

from progrock.backends import Backend, Status
from progrock.models import Job
from progrock.testing import runner
from progrock.testing.script import Polled, Script
from progrock.testing.starts import capture_starts


class Jobs:
    """Takes jobs through their real life: a worker's rules, ledger and signals, in the test itself.

    A job is given as a `Job`, which is brought up to date, or by its id. Each method returns the
    job as it is then. Signal receivers are called in the test's thread, and what one raises comes
    out of the method. No method waits: each step is taken at the time at which it is due, because
    the clock of the job is put forward. The methods that begin with `a` are for asynchronous code.
    """

    capture_starts = staticmethod(capture_starts)

    def progress(
        self, job: Job | uuid.UUID | str, progress: float | None, *, message: str = ""
    ) -> Job:
        """The backend says that the job runs: `progress` is 0 to 100, or None where it is unknown.

        A job that waits is started first. Raises ValueError where the job has ended.
        """
        return async_to_sync(self.aprogress)(job, progress, message=message)

    def finish(
        self, job: Job | uuid.UUID | str, *, result: object = None, message: str = ""
    ) -> Job:
        """The backend says that the job has succeeded; `result` is any JSON. As `progress`."""
        return async_to_sync(self.afinish)(job, result=result, message=message)

    def fail(self, job: Job | uuid.UUID | str, *, error: str = "", message: str = "") -> Job:
        """The backend says that the job has failed, and why. As `progress`."""
        return async_to_sync(self.afail)(job, error=error, message=message)

    def run(
        self,
        job: Job | uuid.UUID | str,
        backend: Iterable[Polled] | Script | Backend,
        *,
        steps: int = 1000,
    ) -> Job:
        """Take the job on against a backend: a list of answers to polls, a Script, or a Backend.

        It goes on until the job has ended, or the answers are used up. Raises AssertionError where
        a job has not ended after so many steps.
        """
        return async_to_sync(self.arun)(job, backend, steps=steps)

    async def aprogress(
        self, job: Job | uuid.UUID | str, progress: float | None, *, message: str = ""
    ) -> Job:
        """`progress`, from asynchronous code."""
        return await self.arun(job, [Status(state="running", progress=progress, message=message)])

    async def afinish(
        self, job: Job | uuid.UUID | str, *, result: object = None, message: str = ""
    ) -> Job:
        """`finish`, from asynchronous code."""
        return await self.arun(job, [Status(state="succeeded", result=result, message=message)])

    async def afail(self, job: Job | uuid.UUID | str, *, error: str = "", message: str = "") -> Job:
        """`fail`, from asynchronous code."""
        return await self.arun(job, [Status(state="failed", error=error, message=message)])

    async def arun(
        self,
        job: Job | uuid.UUID | str,
        backend: Iterable[Polled] | Script | Backend,
        *,
        steps: int = 1000,
    ) -> Job:
        """`run`, from asynchronous code."""
        answers = Script(backend) if isinstance(backend, Iterable) else backend
        return await runner.run(job, answers, steps)
