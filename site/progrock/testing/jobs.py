"""What a test does with jobs: see which were started, and decide what becomes of them."""

import uuid
from collections.abc import Iterable

from asgiref.sync import async_to_sync

from progrock.backends import Backend, Status
from progrock.models import Job
from progrock.testing import runner
from progrock.testing.script import Polled, Script
from progrock.testing.starts import capture_starts


class Jobs:
    """Takes jobs through a worker's own rules, ledger and signals, in the process of the test.

    Name a job by its id or by a `Job`, which is then brought up to date. Each method returns the
    job as it is afterwards. Signal receivers are called in the test's thread, and the method raises
    what they raise. No method waits, because the job's clock is put forward to each step. The
    methods that begin with `a` are for asynchronous code.
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
        """The backend says that the job has succeeded; `result` is any JSON. Else as `progress`."""
        return async_to_sync(self.afinish)(job, result=result, message=message)

    def fail(self, job: Job | uuid.UUID | str, *, error: str = "", message: str = "") -> Job:
        """The backend says that the job has failed, and why. Else as `progress`."""
        return async_to_sync(self.afail)(job, error=error, message=message)

    def run(
        self,
        job: Job | uuid.UUID | str,
        backend: Iterable[Polled] | Script | Backend,
        *,
        steps: int = 1000,
    ) -> Job:
        """Run the job on a backend, which may be a list of answers to polls, a Script or a Backend.

        This ends when the job has ended or the answers are used up. Raises AssertionError where the
        job has not ended after so many steps.
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
