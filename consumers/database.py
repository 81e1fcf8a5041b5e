"""How a web process calls the database: in its one thread, never without a limit, with one log line when it goes or comes."""

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ANSWER = 8.0
#: What Django raises where a database is gone, refuses, or hangs up; anything else is a mistake of ours.
AWAY = (OperationalError, InterfaceError)


class Database:
    """`await database(function, …)`; `away` says whether the latest call found nobody."""

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


def one_line(error: Exception) -> str:
    """What an error says, on one line; psycopg writes several."""
    return " ".join(str(error).split()) or type(error).__name__


database = Database()
