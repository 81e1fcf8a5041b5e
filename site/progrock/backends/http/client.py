"""Talks over HTTP, by aiohttp, to any service that runs long jobs, as its table says.

A class of your own may extend `HttpBackend` and override `headers` or `look`.
"""

import asyncio
import logging
import math
import random
import ssl
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import cached_property
from time import monotonic, time
from types import SimpleNamespace
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from progrock.backends import bodies
from progrock.backends.base import JobView, Options, Status
from progrock.backends.errors import BackendError, ConfigError
from progrock.backends.http.addresses import Servers
from progrock.backends.http.answers import OF_ANY_JOB, Answer, Reader
from progrock.backends.http.failures import translate
from progrock.backends.http.manners import Gate, retry_after
from progrock.backends.http.requests import Request, fits_header
from progrock.backends.http.table import HttpSpec
from progrock.backends.http.tokens import Tokens
from progrock.backends.templates import Scope, Text, Unfillable, as_text

logger = logging.getLogger(__name__)

#: The part of a time limit that a request may wait for its turn, where the table has a `rate`.
_PATIENCE = 0.5
#: aiohttp keeps so many bytes of a body, in however small pieces, without stopping the sender.
_SMALL = 4_096
#: When the present look at many jobs is over (monotonic seconds).
_over_at: ContextVar[float] = ContextVar("over_at", default=math.inf)


class Outgoing:
    """A request that is about to be sent. `headers` may be changed; `body` is what goes out."""

    __slots__ = ("body", "headers", "method", "name", "token", "url")

    def __init__(
        self, name: str, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> None:
        self.name, self.method, self.url = name, method, url
        self.headers, self.body = headers, body
        self.token = ""  # the access token that it goes out with


class _End(NamedTuple):
    """A job that has ended by the answer about many, and the item that says so."""

    job: JobView
    status: Status
    answer: Answer
    item: Any


#: Called with each request before it is sent, and with its answer when that is there
#: (`manage.py backend try`).
Observe = Callable[[Outgoing, Answer | None], None]


class HttpBackend:
    """The generic backend. It opens its session at the first call, in the running loop.

    `options` are those that `build` makes, so their variables are filled in.
    """

    def __init__(self, options: Options) -> None:
        if not isinstance(options.spec, HttpSpec):
            raise TypeError("the options were not made by build()")
        self.options = options
        self.spec = options.spec
        self.reader = Reader(self.spec, self._note)
        self.observe: Observe | None = None
        self._heard: Callable[[str, str, Any], None] | None = None
        self._servers = Servers(self.spec.url.filled(Scope()), self.spec.origins)
        self._needed = self.spec.needed_params
        self._tls = _tls(options.name, self.spec.tls)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._gate = Gate(self.spec.rate, monotonic, random.random)
        self._tokens = Tokens(self.spec.auth, monotonic) if self.spec.auth else None
        self._session: aiohttp.ClientSession | None = None
        self._once: aiohttp.ClientSession | None = None  # for what must not be sent twice
        self._adds_headers = type(self).headers is not HttpBackend.headers
        self._missing: set[str] = set()  # keys that found nothing, which was said
        self._constant: dict[int, dict[str, str]] = {}  # headers by request

    # What a class of your own may override

    async def headers(self, request: Outgoing) -> Mapping[str, str]:
        """Headers to add to a request to the backend's own server, for instance its signature."""
        return {}

    async def look(self, job: JobView) -> Status:
        """Where one job stands. Raises BackendError."""
        if (request := self.spec.poll) is None:
            raise TypeError("the table has no `poll`")
        scope = Scope(job)
        answer = await self.ask("poll", request, scope)
        status = self.reader.look(answer, scope)
        if self.spec.fetch is None:
            return status
        return await self._finished(status, answer, answer.json, job)

    # The protocol

    async def start(self, job: JobView) -> str | Status:
        """See Backend. A start is never sent again after an answer."""
        request, scope, sent = self.spec.start, Scope(job), False
        timeout = request.timeout or self.options.timeout

        def sending() -> None:
            nonlocal sent
            sent = True

        # Connecting gets a little less time than the whole request. When it takes too long, we
        # then know that the request was not sent.
        connecting = aiohttp.ClientTimeout(connect=0.9 * timeout, ceil_threshold=1e9)
        try:
            for hole in self._needed:
                as_text(hole, scope.find(hole))
            async with asyncio.timeout(timeout), self._slots:
                answer = await self.ask("start", request, scope, connecting, sending)
        except TimeoutError:
            raise self._late(timeout, sent) from None
        except Unfillable as error:
            error.final = True
            raise
        return self.reader.start(answer, scope)

    async def poll(self, jobs: Sequence[JobView]) -> dict[str, Status | BackendError]:
        """See Backend. A job without an answer at the timeout has a BackendError that says so."""
        found: dict[str, Status | BackendError] = {}
        limit = self._look_limit
        before = _over_at.set(monotonic() + limit)
        try:
            async with asyncio.timeout(limit):
                await self._poll_all(self._grouped(jobs), found)
        except TimeoutError:
            late = self._late(limit)
            found |= {job.id: late for job in jobs if job.id not in found}
        finally:
            _over_at.reset(before)
        return found

    async def cancel(self, job: JobView) -> Status | None:
        """See Backend. Does nothing where the table has no `cancel`.

        After a cancel that failed, the job is looked at before another one is sent; always, where
        the table has another cancel for some answers.
        """
        if (request := self.spec.cancel) is None:
            return None
        moved, before = None, None
        status: Status | BackendError | None = None
        if request.instead:
            status, before = await self._look_before(job)
        elif job.again:
            status = (await self.poll([job]))[job.id]
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
            async with asyncio.timeout(timeout), self._slots:
                answer = await self.ask("cancel", request, scope)
        except TimeoutError:
            raise self._late(timeout) from None
        if answer.status < 300:
            taken = Status(state="running", cancelling=True, handle=moved, retry_after=answer.wait)
            return taken if request.wait else None
        refused = self.reader.refusal(answer, Scope(job))
        status = (await self.poll([job]))[job.id]
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

    async def _look_before(self, job: JobView) -> tuple[Status, Answer]:
        """Where a job stands, and the answer that says so. Raises BackendError."""
        assert self.spec.poll is not None  # the table has it beside `instead`
        scope = Scope(job)
        try:
            async with asyncio.timeout(self._look_limit), self._slots:
                answer = await self.ask("poll", self.spec.poll, scope)
                status = self.reader.look(answer, scope)
                return await self._finished(status, answer, answer.json, job), answer
        except TimeoutError:
            raise self._late(self._look_limit) from None

    async def aclose(self) -> None:
        """Close the connections."""
        for session in (self._session, self._once):
            if session is not None:
                await session.close()
        self._session = self._once = None

    # Looks at many jobs

    @cached_property
    def _look_limit(self) -> float:
        """Seconds for all requests of one look: the longest poll, and the second request."""
        polls = [each.timeout for each in (self.spec.poll, self.spec.poll_many) if each]
        limit = max(each or self.options.timeout for each in polls)
        fetch = self.spec.fetch
        return limit + (fetch.timeout or self.options.timeout if fetch else 0.0)

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
        single, many = self.spec.poll, self.spec.poll_many
        while queue:
            jobs = queue.popleft()
            ends: list[_End] = []
            try:
                async with self._slots:
                    if many and (len(jobs) > 1 or single is None):
                        ends = await self._look_at_many(many, jobs, found)
                    else:
                        found[jobs[0].id] = await self.look(jobs[0])
            except BackendError as error:
                if single and len(jobs) > 1 and _may_be_one_jobs(error):
                    await self._poll_all([[job] for job in jobs], found)
                else:
                    asked_alone = single is not None and len(jobs) == 1
                    error.forgotten = error.forgotten and asked_alone
                    found |= {job.id: error for job in jobs}
            else:
                await self._fetch_all(deque(ends), found)

    async def _look_at_many(
        self, request: Request, jobs: Sequence[JobView], found: dict[str, Status | BackendError]
    ) -> list["_End"]:
        """Ask about these jobs, and put what is known into `found`.

        Returns the ends that want the table's second request.
        """
        scope = Scope(handles=[job.handle for job in jobs])
        answer = await self.ask("poll_many", request, scope)
        items = self.reader.items(answer, request, scope.handles)
        looks = self.reader.looks(answer, items, jobs)
        ends = []
        if fetch := self.spec.fetch:
            for job in jobs:
                status = looks[job.id]
                if isinstance(status, Status) and status.state in fetch.on:
                    ends.append(_End(job, status, answer, items[job.handle]))
                    del looks[job.id]
        found |= looks
        return ends

    async def _fetch_all(
        self, ends: deque["_End"], found: dict[str, Status | BackendError]
    ) -> None:
        """Send the second request of each of these jobs, several at once.

        What has come when the time is over counts: only the others are asked for again.
        """

        async def pull() -> None:
            while ends:
                job, status, answer, item = ends.popleft()
                try:
                    async with self._slots:
                        found[job.id] = await self._finished(status, answer, item, job)
                except BackendError as error:
                    found[job.id] = error

        if ends:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self.options.concurrency, len(ends))):
                    tasks.create_task(pull())

    async def _finished(self, status: Status, answer: Answer, said: Any, job: JobView) -> Status:
        """The status with what the table's second request brings, where it has one.

        `said` is what the answer says of this job: all of it, or an item of `poll_many`.
        """
        request = self.spec.fetch
        if request is None or status.state not in request.on:
            return status
        scope = Scope(job, answer=said, headers=answer.headers)
        fetched = await self.ask("fetch", request, scope)
        return self.reader.fetched(fetched, request, status, scope)

    @property
    def note(self) -> Callable[[str, str, Any], None] | None:
        """Called with each key, its expression and what it found (`manage.py backend try`)."""
        return self._heard

    @note.setter
    def note(self, heard: Callable[[str, str, Any], None] | None) -> None:
        self._heard, self.reader.notes_all = heard, heard is not None

    # One request

    async def ask(
        self,
        name: str,
        request: Request,
        scope: Scope,
        limits: aiohttp.ClientTimeout | None = None,
        sending: Callable[[], None] | None = None,
    ) -> Answer:
        """Send one request and read its answer, within its timeout.

        Where the caller's timeout is the same, that counts, since each timer costs something.
        `sending` is called when the request is about to leave. Raises BackendError where there is
        no whole answer.
        """
        limit = request.timeout
        if limit is None and self._look_limit > self.options.timeout:
            limit = self.options.timeout
        if limit is None:
            return await self._asked(name, request, scope, limits, sending)
        try:
            async with asyncio.timeout(limit):
                return await self._asked(name, request, scope, limits, sending)
        except TimeoutError:
            raise self._late(limit) from None

    async def _asked(
        self,
        name: str,
        request: Request,
        scope: Scope,
        limits: aiohttp.ClientTimeout | None,
        sending: Callable[[], None] | None,
        again: bool = False,
    ) -> Answer:
        """Make the request, wait for its turn, and send it; once more with a new token after a 401.

        Raises BackendError.
        """
        outgoing, own = self._outgoing(name, request, scope)
        self._gate.check()
        if self.spec.rate is not None:
            await self._take_turn(request)
        answer = await self._answer(outgoing, request, own, limits, sending)
        if answer.status == 401 and self._tokens and outgoing.token and not again:
            self._tokens.forget(outgoing.token)
            return await self._asked(name, request, scope, limits, sending, again=True)
        if answer.status in (429, 503) and answer.wait:
            self._gate.close(min(answer.wait, self.options.deadline))  # no job waits longer
        return answer

    async def _take_turn(self, request: Request) -> None:
        """Wait until the table's rate lets one more request leave. Raises BackendError."""
        timeout = request.timeout or self.options.timeout
        left = _over_at.get() - monotonic()
        if wait := self._gate.wait(min(_PATIENCE * timeout, left - (1 - _PATIENCE) * timeout)):
            await asyncio.sleep(wait)
            self._gate.check()

    def _outgoing(self, name: str, request: Request, scope: Scope) -> tuple[Outgoing, bool]:
        """The request as it goes out, and whether it goes to the backend's own server."""
        url, own = self._where().address(request.path, scope)
        body = None
        if request.form is not None:
            body = bodies.as_form(bodies.filled(request.form, scope))
        elif request.body is not None:
            body = bodies.as_json(bodies.filled(request.body, scope))
        elif request.sends_params and scope.job is not None:
            body = bodies.as_json(scope.job.params)
        headers = self._headers_of(request, scope, own)
        return Outgoing(name, request.method, url, headers, body), own

    def _headers_of(self, request: Request, scope: Scope, own: bool) -> dict[str, str]:
        """The headers of a request. Those that are always the same are made once."""
        if own and (kept := self._constant.get(id(request))):
            return dict(kept)
        headers = {"Accept": "application/json"}
        if request.has_body:
            form = request.form is not None
            kind = "application/x-www-form-urlencoded" if form else "application/json"
            headers["Content-Type"] = kind
        if own:
            headers = _merged(headers, _filled_headers(self.spec.headers, scope))
        if not request.has_body:
            headers = {name: v for name, v in headers.items() if name.lower() != "content-type"}
        headers = _merged(headers, _filled_headers(request.headers, scope))
        texts = [*self.spec.headers.values(), *request.headers.values()]
        if own and all(text.is_constant for text in texts):
            self._constant[id(request)] = dict(headers)
        return headers

    def _where(self) -> Servers:
        """The servers of the table, made anew where a file that `url` names has changed."""
        if self.spec.url.is_constant:
            return self._servers
        if (url := self.spec.url.filled(Scope())) != self._servers.url:
            try:
                self._servers = Servers(url, self.spec.origins)
            except ValueError:
                raise Unfillable("`url` is no address any more") from None
        return self._servers

    async def _answer(
        self,
        outgoing: Outgoing,
        request: Request,
        own: bool,
        limits: aiohttp.ClientTimeout | None,
        sending: Callable[[], None] | None,
    ) -> Answer:
        session = self._open(once=outgoing.name == "start" and not request.repeat)
        more: dict[str, Any] = {"timeout": limits} if limits else {}
        if outgoing.method != "GET":  # then aiohttp would add one
            more["skip_auto_headers"] = ("content-type",)
        if self.spec.proxy:
            more["proxy"] = self.spec.proxy.filled(Scope())
        try:
            if own and self._tokens:
                outgoing.token = await self._tokens.current(session, more.get("proxy"))
                own_token = {"Authorization": f"Bearer {outgoing.token}"}
                outgoing.headers = _merged(outgoing.headers, own_token)
            if own and self._adds_headers and (added := await self.headers(outgoing)):
                outgoing.headers = _merged(outgoing.headers, added)
            if sending:
                sending()
            if self.observe:
                self.observe(outgoing, None)
            response = await session.request(
                outgoing.method,
                URL(outgoing.url, encoded=True),
                data=outgoing.body,
                headers=outgoing.headers,
                allow_redirects=False,
                **more,
            )
            try:
                answer = await self._read(response)
            finally:
                response.release()
        except aiohttp.ClientError as error:
            raise translate(error) from error
        if self.observe:
            self.observe(outgoing, answer)
        return answer

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        """The answer. A body that is larger than `max_answer` is not read to its end."""
        limit, content = self.options.max_answer, response.content
        length = response.content_length or 0
        too_large = length > limit
        chunks: list[bytes] = []
        if 0 < length <= min(limit, _SMALL) and "content-encoding" not in response.headers:
            await content.wait_eof()  # one wait for all of it costs less than one for each piece
        if content.is_eof():
            chunks.append(content.read_nowait())
            too_large = too_large or len(chunks[0]) > limit
        elif not too_large:
            left = limit
            async for chunk in content.iter_any():
                chunks.append(chunk)
                if too_large := (left := left - len(chunk)) < 0:
                    break
        if too_large:
            response.close()
        headers = response.headers  # finds names in any letters
        body = None if too_large else b"".join(chunks)
        wait = retry_after(headers, time())
        return Answer(response.status, headers, body, limit=limit, wait=wait)

    def _open(self, *, once: bool) -> aiohttp.ClientSession:
        """The session. `once`: one that keeps no connections and opens one only for a request.

        aiohttp sends a PUT or DELETE again where its connection turns out to be dead.
        """
        session = self._once if once else self._session
        if session is None:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.options.concurrency,
                    force_close=once,
                    ssl=self._tls,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),  # that is: none
                trace_configs=[_one_connection()] if once else [],
                trust_env=False,
            )
            if once:
                self._once = session
            else:
                self._session = session
        return session

    def _late(self, seconds: float, sent: bool = True) -> BackendError:
        return BackendError(f"the backend did not answer within {seconds:g} s", sent=sent)

    def _note(self, key: str, written: str, found: Any) -> None:
        """Say once of each key that it found nothing."""
        if self._heard:
            self._heard(key, written, found)
        if found is None and key not in self._missing:
            self._missing.add(key)
            logger.info("`%s` (%s) found nothing, backend=%s", key, written, self.options.name)


def _filled_headers(headers: Mapping[str, Text], scope: Scope) -> dict[str, str]:
    """The headers with their holes filled in. Raises Unfillable."""
    filled = {}
    for name, written in headers.items():
        value = written.filled(scope)
        if not fits_header(value):
            raise Unfillable(f"the header {name} would hold a character that no header may hold")
        filled[name] = value
    return filled


def _merged(headers: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    """Both; a name that stands in both, in whatever letters, has the stronger value."""
    names = {name.lower() for name in stronger}
    kept = {name: each for name, each in headers.items() if name.lower() not in names}
    return {**kept, **stronger}


def _one_connection() -> aiohttp.TraceConfig:
    """Ends a request that would open a second connection, since it was sent on the first."""

    async def opens(_: aiohttp.ClientSession, request: SimpleNamespace, __: object) -> None:
        if hasattr(request, "opened"):
            raise aiohttp.ServerDisconnectedError
        request.opened = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(opens)
    return trace


def _tls(name: str, files: Mapping[str, str]) -> ssl.SSLContext | bool:
    """The TLS context of a table; True for the usual one. Raises ConfigError."""
    if not files:
        return True
    try:
        context = ssl.create_default_context(cafile=files.get("ca"))
        if "cert" in files:
            # With a password, even an empty one, OpenSSL does not ask for one at the terminal.
            context.load_cert_chain(files["cert"], files.get("key"), password="")
    except (OSError, ssl.SSLError) as error:
        found = f"{', '.join(files.values())}: {error}"
        raise ConfigError(f"[{name}] tls", found=found, wanted="certificates in PEM") from error
    return context


def _may_be_one_jobs(error: BackendError) -> bool:
    """Whether one job of several may have spoiled the answer: a 4xx, or a 2xx that is too large.

    Each job is then asked about alone. Anything else concerns the backend as a whole.
    """
    status = error.status or 500
    return status < 300 or (400 <= status < 500 and status not in OF_ANY_JOB)
