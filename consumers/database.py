"""How processes call the database: a web process gives up after some seconds, a worker waits.

Both log one line when the database goes away and one when it is back.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import Error, InterfaceError, OperationalError

from progrock import ledger, lifecycle, pulse
from progrock.attempts import CONFLICT_WAIT, CONFLICTS, NoAnswer, attempt, one_line
from progrock.database_errors import Trouble, drop, trouble
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: A web process waits so many seconds for an answer.
ANSWER = pulse.ANSWER
#: What a call of a web process raises when the database is away, whatever the driver raised.
AWAY = (OperationalError, InterfaceError)
#: While the database is away, a web process tries a write once in so many seconds.
TOUCH = 1.0
#: Results of so many bytes together go into one statement. PostgreSQL takes less than 256 MB.
STATEMENT = 64 * 2**20


class _Outage:
    """Whether the database is away. The log has a line when it goes and one when it is back.

    It is back when `pulse.touch` works. That is tried after an answer, unless it was tried in the
    last `pause` seconds.
    """

    def __init__(self, gone: str, back: str, *, pause: float = 0.0, quiet: bool = False) -> None:
        self.away = False
        self._gone, self._back, self._quiet = gone, back, quiet
        self._pause = pause
        self._tried = -pause

    def begun(self, error: Exception) -> None:
        """A call found the database away."""
        if not self.away and not self._quiet:
            logger.warning("%s: %s", self._gone, one_line(error))
        self.away = True

    async def answered(self, run: Callable[[Callable[[], None]], Awaitable[Any]]) -> None:
        """A call was answered. `run` calls the database. Raises no error of the database."""
        now = time.monotonic()
        if not self.away or now - self._tried < self._pause:
            return
        self._tried = now
        try:
            await run(pulse.touch)
        except Error as error:
            if trouble(error) is not Trouble.MISTAKE:
                return
        if self.away and not self._quiet:
            logger.warning(self._back)
        self.away = False


class WebDatabase:
    """How a web process calls the database, and gives up: `await database(function, …)`.

    The calls run one after the other, in Django's database thread or in a thread of `executor`.
    `quiet`: log nothing.
    """

    def __init__(self, executor: ThreadPoolExecutor | None = None, *, quiet: bool = False) -> None:
        self._outage = _Outage(
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


class WorkerDatabase:
    """How a worker calls the database, and waits for it: `await self.database(function, …)`.

    All calls run in one thread, which keeps its connection.
    """

    def __init__(self) -> None:
        self._outage = _Outage("the ledger is away, rounds wait for it", "the ledger is back")
        self._thread = ThreadPoolExecutor(1, "database")

    @property
    def away(self) -> bool:
        """Whether calls found it away, and no write has worked since."""
        return self._outage.away

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of `progrock.ledger`, again and again until the database answers.

        Raises the database's error if the call is a mistake, because it would fail again.
        """
        answer, _ = await self._wait_for(partial(function, *args, **kwargs))
        return answer

    async def commit(
        self, decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
    ) -> list[Committed]:
        """Call `ledger.commit`. If an answer was lost, also find what an earlier try wrote.

        `now` is in epoch seconds, `lease` in seconds. A job whose step the database cannot hold
        fails. The others of its batch go on.
        """
        won: list[Committed] = []
        for some in _statements(decided):
            try:
                won += await self._commit(some, now, lease)
            except Error as error:
                if len(decided) == 1:
                    won += await self._fail(some[0][0], error, now)
                else:
                    for step in some:
                        won += await self.commit([step], now, lease)
        return won

    async def _commit(
        self, decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
    ) -> list[Committed]:
        won, repeated = await self._wait_for(partial(ledger.commit, decided, now, lease))
        if repeated:
            won += await self(ledger.committed, decided, now, lease)
        return won

    async def _fail(self, row: Row, error: Error, now: float) -> list[Committed]:
        """End a job whose step cannot be written. Raises the error if its end cannot be written."""
        logger.error(
            "the database refused a step, so its job fails: %s, job=%s", one_line(error), row.id
        )
        sentence = f"the database cannot hold what came of this job: {one_line(error)}"
        return await self._commit([(row, lifecycle.unwritable(row, sentence))], now)

    async def _wait_for(self, call: Callable[[], T]) -> tuple[T, bool]:
        """The answer of `call`, and whether an earlier try may have had its effect."""
        wait, repeated, conflicts = 0.5, False, 0
        while True:
            try:
                answer = await self._run(call)
            except Error as error:
                found = trouble(error)
                if found is Trouble.CONFLICT and conflicts < CONFLICTS:
                    conflicts += 1
                    await asyncio.sleep(random.uniform(0, CONFLICT_WAIT))
                    continue
                await self._run(drop)
                if found is Trouble.MISTAKE:
                    raise
                repeated = True
                self._outage.begun(error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)
            else:
                await self._outage.answered(self._run)
                return answer, repeated

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def _statements(
    decided: Sequence[tuple[Row, Decision]],
) -> list[Sequence[tuple[Row, Decision]]]:
    """The steps, in parts whose results fit into one statement."""
    if sum(decision.result.size or 0 for _, decision in decided) <= STATEMENT:
        return [decided]
    parts: list[Sequence[tuple[Row, Decision]]] = []
    part: list[tuple[Row, Decision]] = []
    room = STATEMENT
    for step in decided:
        size = step[1].result.size or 0
        if part and size > room:
            parts.append(part)
            part, room = [], STATEMENT
        part.append(step)
        room -= size
    return [*parts, part]


#: The database of this web process, for all its sockets.
database = WebDatabase()
