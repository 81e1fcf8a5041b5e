"""Looks at several jobs at once: one request for each, or one for many of them."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from time import monotonic
from typing import Any, NamedTuple

from progrock.backends.base import JobView, Options, Status
from progrock.backends.errors import BackendError
from progrock.backends.http.answers import Answer
from progrock.backends.http.reader import OF_ANY_JOB, Reader
from progrock.backends.http.requests import Request
from progrock.backends.http.sender import Sender, over_at
from progrock.backends.http.spec import HttpSpec
from progrock.backends.outcomes import late
from progrock.backends.templates import Scope

#: What is known of each job, by its id. It fills up in the course of a look.
Found = dict[str, Status | BackendError]


class _End(NamedTuple):
    """A job that has ended, and the item that says so in an answer about many jobs."""

    job: JobView
    status: Status
    answer: Answer
    item: Any


class Looks:
    """Looks at the jobs of one backend, within `limit` seconds.

    `look` asks about one job: it is HttpBackend's, or that of a class that extends it. `spec` may
    be replaced by one without `poll` or without `poll_many` (`manage.py backend try`).
    """

    def __init__(
        self,
        options: Options,
        spec: HttpSpec,
        sender: Sender,
        reader: Reader,
        look: Callable[[JobView], Awaitable[Status]],
    ) -> None:
        self.spec = spec
        self.limit = spec.longest_look(options.timeout)
        self._at_once = options.concurrency
        self._sender, self._reader, self._look = sender, reader, look

    async def one(self, job: JobView) -> tuple[Status, Answer]:
        """Where one job stands, and the answer that says so. Raises BackendError."""
        if (request := self.spec.poll) is None:
            raise TypeError("the table has no `poll`")
        scope = Scope(job)
        answer = await self._sender.ask("poll", request, scope)
        status = self._reader.look(answer, scope)
        if self.spec.fetch is not None:
            status = await self._finished(status, answer, answer.json, job)
        return status, answer

    async def many(self, jobs: Sequence[JobView]) -> Found:
        """Where each job stands. One without an answer in time has a BackendError that says so."""
        found: Found = {}
        before = over_at.set(monotonic() + self.limit)
        try:
            async with asyncio.timeout(self.limit):
                await self._look_at_all(self._grouped(jobs), found)
        except TimeoutError:
            error = late(self.limit)
            found |= {job.id: error for job in jobs if job.id not in found}
        finally:
            over_at.reset(before)
        return found

    def _grouped(self, jobs: Sequence[JobView]) -> list[list[JobView]]:
        """The jobs by request: one each, or up to `max` where the table has `poll_many`.

        Where `poll_many` joins handles with commas, a handle that has a comma goes by itself.
        """
        if (many := self.spec.poll_many) is None:
            return [[job] for job in jobs]
        alone = [job for job in jobs if many.joins_handles and "," in job.handle]
        joint = [job for job in jobs if job not in alone] if alone else list(jobs)
        groups = [joint[i : i + many.max] for i in range(0, len(joint), many.max)]
        return groups + [[job] for job in alone]

    async def _look_at_all(self, groups: Collection[list[JobView]], found: Found) -> None:
        """Look at each group and put the outcome into `found`.

        A few tasks share the groups. With a task for each group, looks came later at the same load.
        """
        queue, pullers = deque(groups), min(self._at_once, len(groups))
        if pullers <= 1:
            await self._pull(queue, found)
        else:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(pullers):
                    tasks.create_task(self._pull(queue, found))

    async def _pull(self, queue: deque[list[JobView]], found: Found) -> None:
        """Look at one group of the queue after the other until it is empty."""
        single, many = self.spec.poll, self.spec.poll_many
        while queue:
            jobs = queue.popleft()
            ends: list[_End] = []
            try:
                async with self._sender.slots:
                    if many and (len(jobs) > 1 or single is None):
                        ends = await self._look_at_many(many, jobs, found)
                    else:
                        found[jobs[0].id] = await self._look(jobs[0])
            except BackendError as error:
                if single and len(jobs) > 1 and _may_be_one_jobs(error):
                    await self._look_at_all([[job] for job in jobs], found)
                else:
                    asked_alone = single is not None and len(jobs) == 1
                    error.forgotten = error.forgotten and asked_alone
                    found |= {job.id: error for job in jobs}
            else:
                await self._fetch_all(deque(ends), found)

    async def _look_at_many(
        self, request: Request, jobs: Sequence[JobView], found: Found
    ) -> list[_End]:
        """Ask about these jobs in one request, and put what is known into `found`.

        Returns the jobs that have ended and for which the table has a second request.
        """
        scope = Scope(handles=[job.handle for job in jobs])
        answer = await self._sender.ask("poll_many", request, scope)
        items = self._reader.items(answer, request, scope.handles)
        looks = self._reader.looks(answer, items, jobs)
        ends = []
        if fetch := self.spec.fetch:
            for job in jobs:
                status = looks[job.id]
                if isinstance(status, Status) and status.state in fetch.on:
                    ends.append(_End(job, status, answer, items[job.handle]))
                    del looks[job.id]
        found |= looks
        return ends

    # The second request

    async def _fetch_all(self, ends: deque[_End], found: Found) -> None:
        """Send the second request of each of these jobs, several at once.

        What has arrived when the time is over counts, so only the others are asked for again.
        """

        async def pull() -> None:
            while ends:
                job, status, answer, item = ends.popleft()
                try:
                    async with self._sender.slots:
                        found[job.id] = await self._finished(status, answer, item, job)
                except BackendError as error:
                    found[job.id] = error

        if ends:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._at_once, len(ends))):
                    tasks.create_task(pull())

    async def _finished(self, status: Status, answer: Answer, said: Any, job: JobView) -> Status:
        """The status with what the table's second request brings, where it has one.

        `said` is what the answer says of this job: all of it, or an item of `poll_many`.
        """
        request = self.spec.fetch
        if request is None or status.state not in request.on:
            return status
        scope = Scope(job, answer=said, headers=answer.headers)
        fetched = await self._sender.ask("fetch", request, scope)
        return self._reader.fetched(fetched, request, status, scope)


def _may_be_one_jobs(error: BackendError) -> bool:
    """Whether one job of several may have spoiled the answer: a 4xx, or a 2xx that is too large.

    Each job is then asked about alone. Anything else concerns the backend as a whole.
    """
    status = error.status or 500
    return status < 300 or (400 <= status < 500 and status not in OF_ANY_JOB)
