"""Talks over HTTP, by aiohttp, to any service that runs long jobs, as its table says."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import time
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
from yarl import URL

from progrock.backends.base import JobView, Options, Status, check_handle
from progrock.backends.errors import BackendError
from progrock.backends.http.answers import (
    is_html,
    read_handle,
    read_reason,
    read_status,
    read_statuses,
    retry_after,
)
from progrock.backends.http.failures import translate
from progrock.backends.http.table import HttpSpec

T = TypeVar("T")

#: Statuses of a start that mean "not now" and not "no". 409: a request with the same key runs.
NOT_NOW = (408, 409, 423, 425, 429)
#: Statuses between 400 and 499 that do not depend on the job: any other job would get them too.
OF_ANY_JOB = (401, 403, 408, 425, 429)
UNKNOWN_JOB = (404, 410)


class HttpBackend:
    """The generic backend. It opens its session at the first call, in the running loop."""

    def __init__(self, options: Options, spec: HttpSpec, headers: Mapping[str, str]) -> None:
        self.options = options
        self._spec = spec
        self._base = str(URL(spec.url)).rstrip("/")
        self._headers = {"Accept": "application/json", **headers}
        self._slots = asyncio.Semaphore(options.concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._read_status = partial(read_status, spec)

    async def start(self, job: JobView) -> str:
        """See Backend. A 4xx is the backend's final no, except for those that mean "not now"."""
        start = self._spec.start
        headers = {"Content-Type": "application/json", "Idempotency-Key": job.id}
        # Connecting gets a little less time than the whole request. When it takes too long, we
        # then know that the request was not sent.
        connecting = aiohttp.ClientTimeout(connect=0.9 * self.options.timeout, ceil_threshold=1e9)
        arguments = {"headers": headers, "data": orjson.dumps(job.params), "timeout": connecting}
        read, sent = partial(read_handle, self._spec), False
        try:
            async with asyncio.timeout(self.options.timeout), self._slots:
                sent = True
                return await self._ask(start.method, start.path, read, **arguments)
        except TimeoutError:
            raise self._late(sent) from None
        except BackendError as error:
            error.final = 400 <= (error.status or 0) < 500 and error.status not in NOT_NOW
            error.sent = error.sent and error.status != 429
            raise

    async def poll(self, jobs: Sequence[JobView]) -> dict[str, Status | BackendError]:
        """See Backend. A job without an answer at the timeout has a BackendError that says so."""
        found: dict[str, Status | BackendError] = {}
        try:
            async with asyncio.timeout(self.options.timeout):
                await self._poll_all(self._grouped(jobs), found)
        except TimeoutError:
            late = self._late()
            found |= {job.id: late for job in jobs if job.id not in found}
        return found

    async def cancel(self, job: JobView) -> Status | None:
        """See Backend. Does nothing where the table has no `cancel`."""
        if (cancel := self._spec.cancel) is None:
            return None
        try:
            async with asyncio.timeout(self.options.timeout), self._slots:
                await self._ask(cancel.method, _fill(cancel.path, [job]), lambda body, wait: None)
        except TimeoutError:
            raise self._late() from None
        except BackendError as error:
            if not 400 <= (error.status or 0) < 500 or error.status in OF_ANY_JOB:
                raise
            status = (await self.poll([job]))[job.id]
            if not isinstance(status, BackendError):
                return status
            if not (error.forgotten and status.forgotten):
                raise error from status
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _grouped(self, jobs: Sequence[JobView]) -> list[list[JobView]]:
        """The jobs by request: one each, or up to `max` where the table has `poll_many`.

        `poll_many` joins handles with commas, so a handle that has a comma goes by itself.
        """
        if (many := self._spec.poll_many) is None:
            return [[job] for job in jobs]
        joint = [job for job in jobs if "," not in job.handle]
        groups = [joint[i : i + many.max] for i in range(0, len(joint), many.max)]
        return groups + [[job] for job in jobs if "," in job.handle]

    async def _poll_all(
        self, groups: Collection[list[JobView]], found: dict[str, Status | BackendError]
    ) -> None:
        """Poll each group and put the outcome into `found`.

        A few tasks share the groups. A task for each group was later at the same load.
        """
        queue, pullers = deque(groups), min(self.options.concurrency, len(groups))
        if pullers <= 1:
            await self._pull(queue, found)
        else:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(pullers):
                    tasks.create_task(self._pull(queue, found))

    async def _pull(
        self, queue: deque[list[JobView]], found: dict[str, Status | BackendError]
    ) -> None:
        """Poll one group of the queue after the other until it is empty."""
        single, many = self._spec.poll, self._spec.poll_many
        while queue:
            jobs = queue.popleft()
            try:
                async with self._slots:
                    if many and (len(jobs) > 1 or single is None):
                        read = partial(read_statuses, self._spec, many, jobs)
                        found |= await self._ask("GET", _fill(many.path, jobs), read)
                    elif single:
                        path = _fill(single.path, jobs)
                        found[jobs[0].id] = await self._ask("GET", path, self._read_status)
            except BackendError as error:
                if single and len(jobs) > 1 and _may_be_one_jobs(error):
                    await self._poll_all([[job] for job in jobs], found)
                else:
                    asked_alone = single is not None and len(jobs) == 1
                    error.forgotten = error.forgotten and asked_alone
                    found |= {job.id: error for job in jobs}

    async def _ask(
        self, method: str, path: str, read: Callable[[bytes, float | None], T], **arguments: Any
    ) -> T:
        """Send one request. Whoever calls this limits its time. Raises BackendError.

        `read` gets the body of a 2xx answer and its Retry-After in seconds.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.options.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(),  # that is: none
                trust_env=False,
            )
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.request(
                method, url, allow_redirects=False, **arguments
            ) as answer:
                wait = retry_after(
                    answer.headers.get("Retry-After"), answer.headers.get("Date"), time()
                )
                try:
                    if answer.status >= 300:
                        raise await self._refusal(answer)
                    return read(await self._body(answer), wait)
                except BackendError as error:
                    error.retry_after = wait
                    raise
        except aiohttp.ClientError as error:
            raise translate(error) from error

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body. One that is larger than `max_answer` is not read to its end."""
        chunks, left = [], self.options.max_answer - (answer.content_length or 0)
        if left >= 0:
            left = self.options.max_answer
            async for chunk in answer.content.iter_any():
                chunks.append(chunk)
                left -= len(chunk)
                if left < 0:
                    break
        if left < 0:
            answer.close()
            limit = f"{self.options.max_answer:,} bytes"
            raise BackendError(f"the backend's answer is larger than {limit}", status=answer.status)
        return b"".join(chunks)

    async def _refusal(self, answer: aiohttp.ClientResponse) -> BackendError:
        """What to say of an answer that is not a 2xx; for a 4xx with the backend's own reason."""
        sentence = f"the backend answered {answer.status}"
        forgotten = answer.status in UNKNOWN_JOB
        if answer.status < 400:
            sentence += ", a redirect, and those are not followed"
        elif answer.status < 500 and answer.status not in OF_ANY_JOB:
            with suppress(BackendError):  # without a reason the status must do
                body = await self._body(answer)
                if forgotten and is_html(answer.content_type, body):
                    forgotten = False  # a proxy says so, and not the backend
                    sentence += " with an HTML page, which is a proxy's"
                elif reason := read_reason(self._spec.error, body):
                    sentence += f": {reason}"
        return BackendError(sentence, status=answer.status, forgotten=forgotten)

    def _late(self, sent: bool = True) -> BackendError:
        return BackendError(
            f"the backend did not answer within {self.options.timeout:g} s", sent=sent
        )


def _may_be_one_jobs(error: BackendError) -> bool:
    """Whether one job of several may have spoiled the answer: a 4xx, or a 2xx that is too large.

    Each job is then asked about alone. Anything else concerns the backend as a whole.
    """
    status = error.status or 500
    return status < 300 or (400 <= status < 500 and status not in OF_ANY_JOB)


def _fill(path: str, jobs: Sequence[JobView]) -> str:
    handles = ",".join(quote(check_handle(job.handle), safe="") for job in jobs)
    return path.replace("{handles}", handles).replace("{handle}", handles)
