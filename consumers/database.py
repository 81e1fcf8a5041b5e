"""How processes call the database: a web process gives up after some seconds, a worker waits.

Both log one line when the database goes away and one when it is back.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError, ProgrammingError, close_old_connections

from progrock import ledger
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: A web process waits so many seconds for an answer.
ANSWER = 8.0
#: What Django raises when the database is gone, refuses a connection or closes one.
#: Any other error is a mistake of ours.
AWAY = (OperationalError, InterfaceError)


class WebDatabase:
    """The way of a web process, which gives up: `await database(function, …)`.

    `away` says whether the latest call got no answer.
    """

    def __init__(self) -> None:
        self.away = False

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` once, in Django's database thread.

        Raises OperationalError as well when there is no answer in time. The call may then still
        have its effect.
        """
        try:
            async with asyncio.timeout(ANSWER):
                answer: T = await database_sync_to_async(function)(*args, **kwargs)
        except (*AWAY, TimeoutError) as error:
            silence = isinstance(error, TimeoutError)
            found = OperationalError(f"no answer within {ANSWER:g} s") if silence else error
            if not self.away:
                logger.warning("the database is away: %s", one_line(found))
            self.away = True
            raise found from None
        if self.away:
            logger.warning("the database is back")
        self.away = False
        return answer


class WorkerDatabase:
    """The way of a worker, which waits: `await self.database(function, …)`.

    All calls run in one thread, which keeps its connection.
    """

    def __init__(self) -> None:
        self.away = False
        self._thread = ThreadPoolExecutor(1, "database")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of `progrock.ledger`, again and again until the database answers."""
        answer, _ = await self._wait_for(partial(function, *args, **kwargs))
        return answer

    async def commit(self, decided: Sequence[tuple[Row, Decision]], now: float) -> list[Committed]:
        """`ledger.commit`. Where an answer was lost, it also finds what an earlier try wrote."""
        won, repeated = await self._wait_for(partial(ledger.commit, decided, now))
        if repeated:
            won += await self(ledger.committed, decided, now)
        return won

    async def _wait_for(self, call: Callable[[], T]) -> tuple[T, bool]:
        """The answer of `call`, and whether it took more than one try."""
        wait, repeated = 0.5, False
        while True:
            try:
                answer = await self._run(call)
            # ProgrammingError: a migration has not run yet, or is newer than this worker.
            except (*AWAY, ProgrammingError) as error:
                repeated = True
                await self._run(close_old_connections)
                if not self.away:
                    logger.warning("the ledger is away, rounds wait for it: %s", one_line(error))
                self.away = True
                await asyncio.sleep(wait)
                wait = min(wait * 2, 5.0)
            else:
                if self.away:
                    logger.warning("the ledger is back")
                self.away = False
                return answer, repeated

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def one_line(error: Exception) -> str:
    """The text of an error on one line, because psycopg writes several."""
    return " ".join(str(error).split()) or type(error).__name__


#: The database of this web process, for all its sockets.
database = WebDatabase()
