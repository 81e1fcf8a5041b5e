"""Sends one request of a backend's table and reads its answer, within the limits of the table."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from time import monotonic
from typing import Any

import aiohttp
from yarl import URL

from progrock.backends.base import Options
from progrock.backends.http.answers import Answer
from progrock.backends.http.failures import translate
from progrock.backends.http.manners import PAUSES, Gate
from progrock.backends.http.outgoing import Maker, Outgoing
from progrock.backends.http.receiving import received
from progrock.backends.http.requests import Request
from progrock.backends.http.sessions import Sessions, tls_context
from progrock.backends.http.spec import HttpSpec
from progrock.backends.http.tokens import Tokens
from progrock.backends.outcomes import late
from progrock.backends.templates import Scope

#: The part of a time limit that a request may wait for its turn, where the table has a `rate`.
_PATIENCE = 0.5
#: When the present look at several jobs is over (monotonic seconds). No request waits beyond it.
over_at: ContextVar[float] = ContextVar("over_at", default=math.inf)

#: Called with each request before it is sent, and with its answer when that is there
#: (`manage.py backend try`).
Observe = Callable[[Outgoing, Answer | None], None]
#: Gives headers to add to a request, for instance its signature.
Added = Callable[[Outgoing], Awaitable[Mapping[str, str]]]


class Sender:
    """Sends the requests of one backend.

    Whoever asks holds one of the `slots` meanwhile, so that at most `concurrency` requests are
    under way.
    """

    def __init__(self, options: Options, spec: HttpSpec, added: Added | None) -> None:
        self.observe: Observe | None = None
        self.slots = asyncio.Semaphore(options.concurrency)
        self._options, self._spec, self._added = options, spec, added
        self._has_longer_looks = spec.longest_look(options.timeout) > options.timeout
        self._maker = Maker(spec)
        self._sessions = Sessions(options.concurrency, tls_context(options.name, spec.tls))
        self._gate = Gate(spec.rate, monotonic, random.random)
        self._tokens = Tokens(spec.auth, monotonic) if spec.auth else None

    async def ask(
        self,
        name: str,
        request: Request,
        scope: Scope,
        connecting: aiohttp.ClientTimeout | None = None,
        leaving: Callable[[], None] | None = None,
    ) -> Answer:
        """Send one request and read its answer, within its timeout.

        A request has no timer of its own where the caller's timeout is the same, because each
        timer costs something. `connecting` limits how long connecting may take. `leaving` is
        called when the request is about to be sent. Raises BackendError where there is no whole
        answer.
        """
        limit = request.timeout
        if limit is None and self._has_longer_looks:
            limit = self._options.timeout
        if limit is None:
            return await self._asked(name, request, scope, connecting, leaving)
        try:
            async with asyncio.timeout(limit):
                return await self._asked(name, request, scope, connecting, leaving)
        except TimeoutError:
            raise late(limit) from None

    async def aclose(self) -> None:
        """Close the connections."""
        await self._sessions.aclose()

    async def _asked(
        self,
        name: str,
        request: Request,
        scope: Scope,
        connecting: aiohttp.ClientTimeout | None,
        leaving: Callable[[], None] | None,
        again: bool = False,
    ) -> Answer:
        """Make the request, wait for its turn and send it; after a 401 once more with a new token.

        Raises BackendError.
        """
        outgoing = self._maker.made(name, request, scope)
        self._gate.check()
        if self._spec.rate is not None:
            await self._take_turn(request)
        answer = await self._sent(outgoing, request, connecting, leaving)
        if answer.status == 401 and self._tokens and outgoing.token and not again:
            self._tokens.forget(outgoing.token)
            return await self._asked(name, request, scope, connecting, leaving, again=True)
        if answer.status in PAUSES and answer.wait:
            self._gate.close(min(answer.wait, self._options.deadline))  # no job lives longer
        return answer

    async def _take_turn(self, request: Request) -> None:
        """Wait until the table's rate lets one more request leave. Raises BackendError."""
        timeout = request.timeout or self._options.timeout
        left = over_at.get() - monotonic()
        if wait := self._gate.wait(min(_PATIENCE * timeout, left - (1 - _PATIENCE) * timeout)):
            await asyncio.sleep(wait)
            self._gate.check()

    async def _sent(
        self,
        outgoing: Outgoing,
        request: Request,
        connecting: aiohttp.ClientTimeout | None,
        leaving: Callable[[], None] | None,
    ) -> Answer:
        """Send a request and read its answer. Raises BackendError."""
        once = outgoing.name == "start" and not request.repeat
        session = self._sessions.once() if once else self._sessions.keeping()
        more: dict[str, Any] = {"timeout": connecting} if connecting else {}
        if outgoing.method != "GET":  # otherwise aiohttp adds one
            more["skip_auto_headers"] = ("content-type",)
        if self._spec.proxy:
            more["proxy"] = self._spec.proxy.filled(Scope())
        try:
            if outgoing.own and self._tokens:
                outgoing.token = await self._tokens.current(session, more.get("proxy"))
                outgoing.add({"Authorization": f"Bearer {outgoing.token}"})
            if outgoing.own and self._added and (added := await self._added(outgoing)):
                outgoing.add(added)
            if leaving:
                leaving()
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
                answer = await received(response, self._options.max_answer)
            finally:
                response.release()
        except aiohttp.ClientError as error:
            raise translate(error) from error
        if self.observe:
            self.observe(outgoing, answer)
        return answer
