"""How a web process calls the database: it gives up after some seconds."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

from progrock import pulse
from progrock.attempts import NoAnswer, attempt
from progrock.consumers.outages import Outage

P = ParamSpec("P")
T = TypeVar("T")

#: A web process waits so many seconds for an answer.
ANSWER = pulse.ANSWER
#: What a call of a web process raises when the database is away, whatever the driver raised.
AWAY = (OperationalError, InterfaceError)
#: While the database is away, a web process tries a write once in so many seconds.
TOUCH = 1.0


class WebDatabase:
    """How a web process calls the database, and gives up: `await database(function, …)`.

    The calls run one after the other, in Django's database thread or in a thread of `executor`.
    `quiet`: log nothing.
    """

    def __init__(self, executor: ThreadPoolExecutor | None = None, *, quiet: bool = False) -> None:
        self._outage = Outage(
            "the database is away", "the database is back", pause=TOUCH, quiet=quiet
        )
        self._executor = executor
        self._calls = 0  # that wait or run
        self._moved = 0.0  # when a call last began or ended

    @property
    def away(self) -> bool:
        """Whether calls found it away, and no write has worked since."""
        return self._outage.away

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` once.

        Raises OperationalError if the database is away: then nothing was done. Raises NoAnswer if
        no answer comes in time, or if `function` raises it because the answer to a commit was lost.
        """
        try:
            answer: T = await self._in_time(partial(function, *args, **kwargs))
        except AWAY as error:
            self._outage.begun(error)
            raise error from None
        await self._outage.answered(self._in_time)
        return answer

    async def _in_time(self, call: Callable[[], T]) -> T:
        """The answer of `call`, unless no call begins or ends for ANSWER seconds.

        Raises NoAnswer if `call` runs by then. If it still stands in line, it never runs, and
        OperationalError is raised.
        """
        if not self._calls:
            self._moved = time.monotonic()
        self._calls += 1
        begun, given_up = threading.Event(), threading.Event()
        sensitive = self._executor is None
        run = database_sync_to_async(
            self._noted, thread_sensitive=sensitive, executor=self._executor
        )
        running = asyncio.ensure_future(run(call, begun, given_up))
        try:
            while not running.done():
                left = self._moved + ANSWER - time.monotonic()
                if left <= 0:
                    given_up.set()
                    kind = NoAnswer if begun.is_set() else OperationalError
                    raise kind(f"no answer within {ANSWER:g} s")
                await asyncio.wait({running}, timeout=left)
            answer: T = running.result()
            return answer
        finally:
            self._calls -= 1
            given_up.set()
            running.cancel()

    def _noted(self, call: Callable[[], T], begun: threading.Event, given_up: threading.Event) -> T:
        begun.set()  # in this order, so that a call which gives up knows whether it runs
        if given_up.is_set():
            raise OperationalError("given up")  # which nobody sees
        self._moved = time.monotonic()
        try:
            return attempt(call)
        finally:
            self._moved = time.monotonic()


#: The database of this web process, for all its sockets.
database = WebDatabase()
