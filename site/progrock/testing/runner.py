"""Takes a job through its life as a worker does, in the thread and the transaction of a test."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from channels.db import database_sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction

from progrock import api, clock, conf, ledger, lifecycle, wire
from progrock.backends import Backend, Options
from progrock.broker.nowhere import Nowhere
from progrock.broker.tasks import Task
from progrock.consumers.receivers import Receivers
from progrock.consumers.rounds import Rounds
from progrock.consumers.worker_database import WorkerDatabase
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision, Step
from progrock.models import Job
from progrock.signals import job_changed, job_finished
from progrock.testing.script import Script

T = TypeVar("T")

#: The random number of a worker's backoff, in [0, 1). In a test it is always the same.
DRAW = 0.5


async def run(job: Job | uuid.UUID | str, backend: Backend | Script, steps: int) -> Job:
    """Take the job's steps on a backend until it has ended, or until the script is used up.

    Returns the job as it is then; a Job that was given is brought up to date.
    Raises what a signal receiver raises, ValueError for a job that has ended already, and
    AssertionError for a job that has not ended after so many steps.
    """
    key = api.id_of(job)
    row = await _load(key)
    if not row.active and not row.owed:
        raise ValueError(f"the job {key} has ended already: it is {row.state}")
    options = conf.backends().get(row.backend)
    if options is None:
        raise ValueError(f"the job {key} is of {row.backend!r}, which is not in the backends' file")
    worker = _Worker(backend, options)
    try:
        while row.active or row.owed:
            if row.active and isinstance(backend, Script) and not _goes_on(row, backend, options):
                break
            if steps <= 0:
                raise AssertionError(f"the job {key} has not ended: it is {row.state}")
            steps -= 1
            await worker.step(row)
            row = await _load(key)
    finally:
        fresh: Job = await database_sync_to_async(_fresh)(job if isinstance(job, Job) else key)
    return fresh


def _goes_on(row: Row, script: Script, options: Options) -> bool:
    """Whether the script has an answer to the job's next step. Only polls need one."""
    step = lifecycle.next_step(row, now=max(clock.now(), row.due_at), options=options)
    return step is not Step.POLL or bool(script.polls)


class _Worker:
    """A worker's rounds without RabbitMQ. Only signal receivers and sockets hear of them."""

    def __init__(self, backend: Backend, options: Options) -> None:
        options = replace(options, lease=0.0)  # so that each look is written
        self.receivers = _Receivers()
        self.rounds = Rounds(
            backend,
            options,
            database=_Database(self.settle),
            publisher=Nowhere(),
            layer=get_channel_layer(conf.channel_layer()) if conf.in_memory() else _Nobody(),
            receivers=self.receivers,
            draw=lambda: DRAW,
        )

    async def step(self, row: Row) -> None:
        """One round, at the moment at which the job is due. Raises what a receiver raised."""
        part: Any = _Part([Task(row.id, row.turn, row.due_at)])
        if not row.active:  # its end must still be told, as after a crash of the worker
            part = _Part([Task(row.id, row.turn - 1, row.due_at)], deliveries=1)
        before = clock.ahead.set(max(0.0, row.due_at - (clock.now() - clock.ahead.get())))
        try:
            await self.rounds.work([part])
            await self.settle()
        finally:
            clock.ahead.reset(before)
        if self.receivers.errors:
            raise self.receivers.errors.pop(0)

    async def settle(self) -> None:
        """Wait until all that follows a commit is done."""
        while background := self.rounds.commits.background:
            await asyncio.gather(*background)
            # Since Python 3.12, gather returns at once where all tasks are done. Each task leaves
            # the set by a callback, which runs only if this coroutine pauses.
            await asyncio.sleep(0)


class _Part(NamedTuple):
    """Due tasks, as they come from RabbitMQ (`progrock.broker.due.Due`), delivered a first time."""

    tasks: list[Task]
    deliveries: int = 0


class _Database(WorkerDatabase):
    """Calls the database in the test's thread, over its connection, and raises its errors.

    A step is written only after signal receivers were told of the step before.
    """

    def __init__(self, settle: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._settle = settle

    async def commit(
        self, decided: Sequence[tuple[Row, Decision]], now: float, lease: float = 0.0
    ) -> list[Committed]:
        """As a worker's."""
        await self._settle()
        return await super().commit(decided, now, lease)

    async def _wait_for(self, call: Callable[[], T]) -> tuple[T, bool]:
        def within() -> T:
            with transaction.atomic():  # after an error the test's own transaction is still usable
                return call()

        return await database_sync_to_async(within)(), False


class _Receivers(Receivers):
    """Calls receivers in the test's thread, and keeps what they raise."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    async def send(self, rows: Sequence[Row]) -> list[str]:
        """Send the signals of these jobs, one after the other."""
        for row in rows:
            try:
                await database_sync_to_async(_tell)(wire.job_frame(row))
            except Exception as error:  # a receiver of the project's may raise anything
                self.errors.append(error)
        return [row.id for row in rows]


class _Nobody:
    """A channel layer that nobody listens to."""

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Drop the message."""


def _tell(frame: dict[str, Any]) -> None:
    job_changed.send(sender=None, job=frame)
    if frame["complete"]:
        job_finished.send(sender=None, job=frame)


async def _load(key: str) -> Row:
    """The job. Raises Job.DoesNotExist."""
    rows: dict[str, Row] = await database_sync_to_async(ledger.load)([key])
    if key not in rows:
        raise Job.DoesNotExist(f"there is no job {key}")
    return rows[key]


def _fresh(job: Job | str) -> Job:
    """The job as the ledger holds it now."""
    if isinstance(job, str):
        return Job.objects.get(pk=job)
    job.refresh_from_db()
    return job
