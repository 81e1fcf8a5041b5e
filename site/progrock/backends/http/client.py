"""A backend that talks over HTTP to any service that runs long jobs, as its table says.

A class of your own may extend `HttpBackend` and override `headers` or `look`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp

from progrock.backends.base import JobView, Options, Status
from progrock.backends.errors import BackendError
from progrock.backends.http.answers import Answer
from progrock.backends.http.looks import Looks
from progrock.backends.http.outgoing import Outgoing
from progrock.backends.http.reader import Reader
from progrock.backends.http.requests import Request
from progrock.backends.http.sender import Observe, Sender
from progrock.backends.http.spec import HttpSpec
from progrock.backends.outcomes import late
from progrock.backends.templates import Scope, Unfillable, as_text

logger = logging.getLogger(__name__)


class HttpBackend:
    """The generic backend. It connects at its first call, in the running loop.

    `options` are those that `build` makes, so their variables are filled in.
    """

    def __init__(self, options: Options) -> None:
        if not isinstance(options.spec, HttpSpec):
            raise TypeError("the options were not made by build()")
        self.options = options
        self.spec = options.spec
        self.reader = Reader(self.spec, self._note)
        adds_headers = type(self).headers is not HttpBackend.headers
        self._sender = Sender(options, self.spec, self.headers if adds_headers else None)
        self._looks = Looks(options, self.spec, self._sender, self.reader, self.look)
        self._needed = self.spec.needed_params
        self._heard: Callable[[str, str, Any], None] | None = None
        self._missing: set[str] = set()  # keys whose finding nothing was logged

    # What a class of your own may override

    async def headers(self, request: Outgoing) -> Mapping[str, str]:
        """Headers to add to a request to the backend's own server, for instance its signature."""
        return {}

    async def look(self, job: JobView) -> Status:
        """Where one job stands. Raises BackendError."""
        return (await self._looks.one(job))[0]

    # What it may call

    async def ask(self, name: str, request: Request, scope: Scope) -> Answer:
        """Send one request of the table, called `name` there, and read its answer.

        Raises BackendError where there is no whole answer.
        """
        return await self._sender.ask(name, request, scope)

    # The protocol

    async def start(self, job: JobView) -> str | Status:
        """See Backend. A start is never sent again after an answer."""
        request, scope, sent = self.spec.start, Scope(job), False
        timeout = request.timeout or self.options.timeout

        def leaving() -> None:
            nonlocal sent
            sent = True

        # Connecting gets a little less time than the whole request. When it takes too long, we
        # then know that the request was not sent.
        connecting = aiohttp.ClientTimeout(connect=0.9 * timeout, ceil_threshold=1e9)
        try:
            for hole in self._needed:
                as_text(hole, scope.find(hole))
            async with asyncio.timeout(timeout), self._sender.slots:
                answer = await self._sender.ask("start", request, scope, connecting, leaving)
        except TimeoutError:
            raise late(timeout, sent=sent) from None
        except Unfillable as error:
            error.final = True
            raise
        return self.reader.start(answer, scope)

    async def poll(self, jobs: Sequence[JobView]) -> dict[str, Status | BackendError]:
        """See Backend. A job without an answer at the timeout has a BackendError that says so."""
        return await self._looks.many(jobs)

    async def cancel(self, job: JobView) -> Status | None:
        """See Backend. Does nothing where the table has no `cancel`.

        Before a second cancel, after one that failed, the job is looked at. Where the table has
        another cancel for some answers (`instead`), it is looked at before each cancel.
        """
        if (request := self.spec.cancel) is None:
            return None
        before = moved = None
        status: Status | BackendError | None = None
        if request.instead:
            status, before = await self._look_before(job)
        elif job.again:
            status = await self._look_again(job)
        if isinstance(status, Status):
            if status.state != "running":
                return status
            if moved := status.handle:
                job = job.moved(moved)
        scope = Scope(job)
        if before and request.instead:
            scope = Scope(job, answer=before.json, headers=before.headers)
            if self.reader.find("when", request.instead.when, before.seen(scope)):
                request = request.instead
        timeout = request.timeout or self.options.timeout
        try:
            async with asyncio.timeout(timeout), self._sender.slots:
                answer = await self._sender.ask("cancel", request, scope)
        except TimeoutError:
            raise late(timeout) from None
        if answer.status >= 300:
            return await self._after_refusal(answer, job, moved)
        if not request.wait:
            return None
        return Status(state="running", cancelling=True, handle=moved, retry_after=answer.wait)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sender.aclose()

    # Parts of a cancel

    async def _look_before(self, job: JobView) -> tuple[Status, Answer]:
        """Where a job stands, and the answer that says so. Raises BackendError."""
        limit = self._looks.limit
        try:
            async with asyncio.timeout(limit), self._sender.slots:
                return await self._looks.one(job)
        except TimeoutError:
            raise late(limit) from None

    async def _look_again(self, job: JobView) -> Status | BackendError:
        """Where a job stands, as any poll would find it."""
        return (await self.poll([job]))[job.id]

    async def _after_refusal(
        self, answer: Answer, job: JobView, moved: str | None
    ) -> Status | None:
        """What to answer to a cancel that the backend has refused, after another look at the job.

        The job may have ended or be gone. If it runs on, `error` says why. `moved` is the new
        handle that a look before the cancel found, if it did. Raises BackendError.
        """
        refused = self.reader.refusal(answer, Scope(job))
        status = await self._look_again(job)
        if isinstance(status, BackendError):
            if refused.forgotten and status.forgotten:
                return None
            raise refused from status
        if status.state != "running":
            return status
        return Status(
            state="running",
            progress=status.progress,
            error=refused.sentence,
            handle=status.handle or moved,
            retry_after=max(filter(None, (answer.wait, status.retry_after)), default=None),
        )

    # What `manage.py backend try` hears and changes

    def listen(self, observe: Observe, note: Callable[[str, str, Any], None]) -> None:
        """Call `observe` with each request and answer, and `note` with what each key finds.

        `note` gets the key, its expression, and what it found or None.
        """
        self._sender.observe, self._heard = observe, note
        self.reader.notes_all = True

    def look_by(self, spec: HttpSpec) -> None:
        """Look at jobs by the `poll` and `poll_many` of this spec from now on."""
        self._looks.spec = spec

    def _note(self, key: str, written: str, found: Any) -> None:
        """Log once of each key that it found nothing."""
        if self._heard:
            self._heard(key, written, found)
        if found is None and key not in self._missing:
            self._missing.add(key)
            logger.info("`%s` (%s) found nothing, backend=%s", key, written, self.options.name)
