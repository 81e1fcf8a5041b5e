"""Calls a backend, bounded in time, and says what each answer means for its job."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from progrock import clock, lifecycle
from progrock.backends import Backend, BackendError, JobView, Options
from progrock.backends.outcomes import by_job, failure, outcome_of
from progrock.consumers.backend_log import BackendLog
from progrock.ledger import Row
from progrock.lifecycle import Decision, Moment

logger = logging.getLogger(__name__)

V = TypeVar("V")

#: A backend's class that fails is logged, with a traceback, once in so many seconds.
SAY_AGAIN = 10.0

#: Jobs, each with what was decided for it.
Decided = list[tuple[Row, Decision]]


class Calls:
    """Asks one backend, within a time limit, and says what each answer means for its job.

    Errors of a custom backend class count as a failed call and do not fail the round. `draw` gives
    random numbers in [0, 1) for the backoff.
    """

    def __init__(self, backend: Backend, options: Options, draw: Callable[[], float]) -> None:
        self.backend, self.options = backend, options
        self._draw = draw
        self._backend_log = BackendLog(options.name)
        self._room_for_cancels = asyncio.Semaphore(options.concurrency)
        self._said = -SAY_AGAIN  # when an error of the backend's class was logged

    async def poll(self, rows: Sequence[Row]) -> Decided:
        """Ask where running jobs stand."""
        found = await self._ask(self.backend.poll, [_view(row) for row in rows])
        answers, silence = by_job(found)
        outcomes = [(row, answers.get(row.id, silence)) for row in rows]
        failed = (each for _, each in outcomes if isinstance(each, BackendError))
        self._backend_log.note(next(failed, None))
        at = Moment(clock.now(), 0.0, self.options)
        return [
            (row, lifecycle.same(row, self.options))
            if lifecycle.says_the_same(row, each, at)
            else (row, self._decide(lifecycle.after_poll, row, each))
            for row, each in outcomes
        ]

    async def cancel(self, row: Row) -> Decided:
        """Cancel a running job."""
        async with self._room_for_cancels:
            outcome = await self._ask(self.backend.cancel, _view(row))
        self._backend_log.note(outcome)
        return [(row, self._decide(lifecycle.after_cancel, row, outcome))]

    async def cancel_expired(self, row: Row) -> None:
        """Ask the backend once to cancel a job that has expired, whatever it answers."""
        await self._ask(self.backend.cancel, _view(row))

    async def start(self, row: Row, *, repeated: bool) -> Decided:
        """Start a job whose intent is committed; `repeated`: an earlier call may have arrived."""
        outcome = await self._ask(self.backend.start, _view(row))
        self._backend_log.note(outcome)
        return [(row, self._decide(lifecycle.after_start, row, outcome, repeated=repeated))]

    async def _ask(self, call: Callable[[V], Awaitable[Any]], about: V) -> Any:
        """What the backend says, or the BackendError that says why it said nothing."""
        return await outcome_of(call, about, self.options, self._log)

    def _decide(
        self, decide: Callable[..., Decision], row: Row, outcome: Any, **more: Any
    ) -> Decision:
        at = Moment(clock.now(), self._draw(), self.options)
        try:
            return decide(row, outcome, at, **more)
        except Exception as error:  # a custom class may answer with whatever it likes
            self._log(error)
            return decide(row, failure(error), at, **more)

    def _log(self, error: Exception) -> None:
        if clock.elapsed() > self._said + SAY_AGAIN:
            self._said = clock.elapsed()
            logger.error(
                "the backend's class failed, backend=%s", self.options.name, exc_info=error
            )


def _view(row: Row) -> JobView:
    return JobView(row.id, row.handle, row.params, again=row.attempts > 0)
