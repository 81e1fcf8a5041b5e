"""How processes call the database: in one thread, with one log line when it goes or comes. A web process gives up, a worker waits."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError, ProgrammingError, close_old_connections

from progrock import ledger

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ANSWER = 8.0
#: What Django raises where a database is gone, refuses, or hangs up; anything else is a mistake of ours.
AWAY = (OperationalError, InterfaceError)


class Database:
    """A web process's way: `await database(function, …)`; `away` says whether the latest call found nobody."""

    def __init__(self) -> None:
        self.away = False

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it once. Raises OperationalError, too, where there is no answer in time: what was begun may yet be done."""
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


class Ledger:
    """The worker's way to the ledger: one thread with a connection that it keeps, and patience while the database is away."""

    def __init__(self) -> None:
        self.away = False
        self._thread = ThreadPoolExecutor(1, "ledger")

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of `progrock.ledger` until the database answers. Logs one line when it goes, one when it is back."""
        wait, doubt = 0.5, False
        while True:
            try:
                answer = await self._run(partial(function, *args, **kwargs))
                if (
                    doubt and function is ledger.commit
                ):  # the try before may have been done, and its answer lost
                    found = await self._run(partial(cast(Any, ledger.committed), *args))
                    cast(dict[str, Any], answer).update(found)
            except (
                *AWAY,
                ProgrammingError,
            ) as error:  # the latter: its schema is older, or newer, than this worker
                doubt = True
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
                return answer

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def one_line(error: Exception) -> str:
    """What an error says, on one line; psycopg writes several."""
    return " ".join(str(error).split()) or type(error).__name__


database = Database()
