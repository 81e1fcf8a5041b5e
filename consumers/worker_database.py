"""How a worker calls the database: in one thread, and it waits until the database answers."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import Error

from progrock import ledger, lifecycle
from progrock.attempts import CONFLICT_WAIT, CONFLICTS, one_line
from progrock.consumers.outages import Outage
from progrock.database_errors import Trouble, drop, trouble
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

#: Results of so many bytes together go into one statement. PostgreSQL takes less than 256 MB.
STATEMENT = 64 * 2**20


class WorkerDatabase:
    """How a worker calls the database, and waits for it: `await self.database(function, …)`.

    All calls run in one thread, which keeps its connection.
    """

    def __init__(self) -> None:
        self._outage = Outage("the ledger is away, rounds wait for it", "the ledger is back")
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
