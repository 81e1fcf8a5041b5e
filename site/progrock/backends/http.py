"""Talks to any HTTP service that runs long jobs, as its table in the backends' file says (on aiohttp)."""

import asyncio
import json
import re
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from time import time
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
from jmespath.exceptions import JMESPathError
from yarl import URL

from progrock.backends.base import Handle, JobView, Options, Status, check_handle, percent
from progrock.backends.config import Find, HttpSpec, Many
from progrock.backends.errors import BackendError

T = TypeVar("T")

#: aiohttp's errors, the special before the general: the sentence, and whether the request may have arrived.
SENTENCES: tuple[tuple[type[Exception], str, bool], ...] = (
    (aiohttp.ConnectionTimeoutError, "the backend accepts no connection", False),
    (aiohttp.ClientConnectorDNSError, "the backend's name was not found", False),
    (aiohttp.ClientSSLError, "no trusted TLS connection to the backend", False),
    (aiohttp.ServerFingerprintMismatch, "no trusted TLS connection to the backend", False),
    (aiohttp.ClientConnectorError, "the backend cannot be reached", False),
    (aiohttp.ClientPayloadError, "the backend closed the connection half-way", True),
    (aiohttp.ClientConnectionError, "the backend closed the connection", True),
    (aiohttp.ClientResponseError, "the backend answered with something that is not HTTP", True),
    (aiohttp.InvalidURL, "the backend's address is wrong", False),
    (aiohttp.ClientError, "the backend could not be asked", True),
)
_PASSING = (
    408,
    409,
    423,
    425,
    429,
)  # "not now" rather than "no"; 409: the same key is being worked on
_NOT_THE_JOBS = (401, 403, 408, 425, 429)  # would be said of any job
_GONE = (404, 410)


class HttpBackend:
    """The generic backend. Its session is made in the running loop at the first call."""

    def __init__(self, options: Options, spec: HttpSpec, headers: Mapping[str, str]) -> None:
        self.options = options
        self._spec = spec
        self._base = str(URL(spec.url)).rstrip("/")
        self._headers = {"Accept": "application/json", **headers}
        self._slots = asyncio.Semaphore(options.concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def start(self, job: JobView) -> str:
        """See Backend. A 4xx is the backend's no and final, but for those that only mean "not now"."""
        start = self._spec.start
        headers = {"Content-Type": "application/json", "Idempotency-Key": job.id}
        # Connecting is given a little less time than the whole, to tell apart what surely never left.
        connecting = aiohttp.ClientTimeout(connect=0.9 * self.options.timeout, ceil_threshold=1e9)
        arguments = {"headers": headers, "data": orjson.dumps(job.params), "timeout": connecting}
        sent = False
        try:
            async with asyncio.timeout(self.options.timeout), self._slots:
                sent = True
                return await self._ask(start.method, start.path, self._handle, **arguments)
        except TimeoutError:
            raise self._late(sent) from None
        except BackendError as error:
            error.final = 400 <= (error.status or 0) < 500 and error.status not in _PASSING
            error.sent = error.sent and error.status != 429
            raise

    async def poll(self, jobs: Sequence[JobView]) -> dict[str, Status | BackendError]:
        """See Backend. Whatever has no answer when the time is over has a BackendError that says so."""
        many, found = self._spec.poll_many, dict[str, Status | BackendError]()
        if many is None:
            work = [[job] for job in jobs]
        else:  # a comma inside a handle would be taken for one between two
            joint = [job for job in jobs if "," not in job.handle]
            work = [joint[i : i + many.max] for i in range(0, len(joint), many.max)]
            work += [[job] for job in jobs if "," in job.handle]
        try:
            async with asyncio.timeout(self.options.timeout):
                await self._poll_all(work, found)
        except TimeoutError:
            late = self._late()
            found |= {job.id: late for job in jobs if job.id not in found}
        return found

    async def cancel(self, job: JobView) -> Status | None:
        """See Backend. Nothing to do where no cancel is configured."""
        if (cancel := self._spec.cancel) is None:
            return None
        try:
            async with asyncio.timeout(self.options.timeout), self._slots:
                await self._ask(cancel.method, _fill(cancel.path, [job]), lambda raw, wait: None)
        except TimeoutError:
            raise self._late() from None
        except BackendError as error:
            if error.status in _GONE:
                return None
            if not 400 <= (error.status or 0) < 500 or error.status in _NOT_THE_JOBS:
                raise
            stands = (await self.poll([job]))[job.id]
            if isinstance(stands, BackendError):
                raise error from stands
            return stands
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _poll_all(
        self, work: Collection[list[JobView]], found: dict[str, Status | BackendError]
    ) -> None:
        """Ask about each of `work`, by a few pullers rather than by a task each (less lateness at the same load)."""
        queue, pullers = deque(work), min(self.options.concurrency, len(work))
        if pullers <= 1:
            await self._pull(queue, found)
        else:
            async with asyncio.TaskGroup() as group:
                for _ in range(pullers):
                    group.create_task(self._pull(queue, found))

    async def _pull(
        self, queue: deque[list[JobView]], found: dict[str, Status | BackendError]
    ) -> None:
        single, many = self._spec.poll, self._spec.poll_many
        while queue:
            jobs = queue.popleft()
            try:
                async with self._slots:
                    if many and (len(jobs) > 1 or single is None):
                        read = partial(self._statuses, many, jobs)
                        found |= await self._ask("GET", _fill(many.path, jobs), read)
                    elif single:
                        found[jobs[0].id] = await self._ask(
                            "GET", _fill(single.path, jobs), self._status
                        )
            except BackendError as error:
                code = error.status or 500
                if (
                    len(jobs) > 1
                    and single
                    and (code < 300 or 400 <= code < 500)
                    and code not in _NOT_THE_JOBS
                ):
                    await self._poll_all(
                        [[job] for job in jobs], found
                    )  # one of them spoils it: each by itself
                else:
                    error.forgotten = len(jobs) == 1 and single is not None and code in _GONE
                    found |= {job.id: error for job in jobs}

    def _handle(self, raw: bytes, wait: float | None) -> Handle:
        return Handle(check_handle(_look(self._spec.handle, _json(raw))), wait)

    def _statuses(
        self, many: Many, jobs: Sequence[JobView], raw: bytes, wait: float | None
    ) -> dict[str, Status | BackendError]:
        items = _look(many.items, _json(raw))
        if not isinstance(items, list):
            raise BackendError("the backend answered without a list of jobs")
        by_handle, found = (
            {_text(_look(many.id, item)): item for item in items},
            dict[str, Status | BackendError](),
        )
        for job in jobs:
            try:
                if job.handle not in by_handle:
                    raise BackendError("the backend does not know this job", forgotten=True)
                found[job.id] = self._look_at(by_handle[job.handle], wait)
            except BackendError as error:
                error.retry_after = wait
                found[job.id] = error
        return found

    def _status(self, raw: bytes, wait: float | None) -> Status:
        return self._look_at(_json(raw), wait)

    def _look_at(self, answer: Any, wait: float | None) -> Status:
        spec = self._spec
        if (word := _text(_look(spec.state, answer))) is None:
            raise BackendError("the backend answered without a state")
        if (state := spec.states.get(word.lower())) is None:
            raise BackendError(f"the backend answered with an unknown state: {word[:50]}")
        return Status(
            state=state,
            progress=percent(_look(spec.progress, answer), spec.progress_scale),
            message=_text(_look(spec.message, answer)),
            result=_look(spec.result, answer) if state == "succeeded" else None,
            error=_text(_look(spec.error, answer)) if state in ("failed", "cancelled") else None,
            retry_after=wait,
        )

    async def _ask(
        self, method: str, path: str, read: Callable[[bytes, float | None], T], **arguments: Any
    ) -> T:
        """One request; `read` gets the body of a 2xx answer and its Retry-After. Raises BackendError."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self.options.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(),  # none: whoever calls `_ask` bounds the time
                trust_env=False,
            )
        url = URL(self._base + path, encoded=True)
        try:
            async with self._session.request(
                method, url, allow_redirects=False, **arguments
            ) as answer:
                wait = retry_after(answer.headers.get("Retry-After"), time())
                try:
                    if answer.status >= 300:
                        raise await self._refusal(answer)
                    return read(await self._read(answer), wait)
                except BackendError as error:
                    error.retry_after = wait
                    raise
        except aiohttp.ClientError as error:
            raise translate(error) from error

    async def _read(self, answer: aiohttp.ClientResponse) -> bytes:
        """The body; an answer above `max_answer` is dropped in the middle."""
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
        """What to say of an answer that is none, with the backend's own words where it gives a reason (4xx)."""
        sentence = f"the backend answered {answer.status}"
        if answer.status < 400:
            sentence += ", a redirect, and those are not followed"
        elif answer.status < 500 and answer.status not in _NOT_THE_JOBS and self._spec.error:
            with suppress(BackendError):
                reason = _text(_look(self._spec.error, _json(await self._read(answer))))
                sentence += f": {reason}" if reason else ""
        return BackendError(sentence, status=answer.status)

    def _late(self, sent: bool = True) -> BackendError:
        return BackendError(
            f"the backend did not answer within {self.options.timeout:g} s", sent=sent
        )


def translate(error: aiohttp.ClientError) -> BackendError:
    """aiohttp's error in ProgRock's words."""
    if isinstance(error, aiohttp.ClientConnectorError) and isinstance(
        error.os_error, ConnectionRefusedError
    ):
        return BackendError("connection refused", sent=False)
    sentence, sent = next(
        (sentence, sent) for kind, sentence, sent in SENTENCES if isinstance(error, kind)
    )
    return BackendError(sentence, sent=sent)


def retry_after(value: str | None, now: float) -> float | None:
    """Retry-After in seconds from now, of either form (RFC 9110, 10.2.3); None for none and for nonsense."""
    if not value:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", value.strip()):
        return float(value)
    try:
        date: datetime = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - now)


def _fill(path: str, jobs: Sequence[JobView]) -> str:
    handles = ",".join(quote(check_handle(job.handle), safe="") for job in jobs)
    return path.replace("{handles}", handles).replace("{handle}", handles)


def _json(raw: bytes) -> Any:
    """The answer as JSON; Python's own reader is asked second, for the NaN and Infinity that many servers write."""
    try:
        return orjson.loads(raw)
    except ValueError:
        try:
            return orjson.loads(orjson.dumps(json.loads(raw, parse_constant=lambda name: None)))
        except (ValueError, TypeError, RecursionError):
            raise BackendError("the backend answered with something that is not JSON") from None


def _look(find: Find | None, answer: Any) -> Any:
    """What an expression finds in an answer; None without an expression."""
    try:
        return find and find(answer)
    except (
        JMESPathError,
        TypeError,
        ValueError,
        AttributeError,
        LookupError,
        ArithmeticError,
        RecursionError,
    ) as e:
        raise BackendError("the backend's answer has an unexpected form") from e


def _text(value: Any) -> str | None:
    """Text as it is, everything else as JSON."""
    try:
        return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
    except TypeError as error:  # nested too deep to be written
        raise BackendError("the backend's answer has an unexpected form") from error
