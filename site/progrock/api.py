"""The Python API, by which a project's own code starts and cancels jobs.

Visitors come through `progrock.doors`. What follows a start or a cancel is sent from here for both.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from channels.db import database_sync_to_async
from django.db import transaction

from progrock import clock, conf, dispatch, installation, journal, ledger
from progrock.attempts import attempt
from progrock.audiences import audience_of
from progrock.broker.errors import BrokerError
from progrock.creation import create
from progrock.dispatch import Outbound
from progrock.ledger import Row
from progrock.models import Job
from progrock.sending import hand_over

logger = logging.getLogger(__name__)

#: Asynchronous code waits up to so many seconds for RabbitMQ. To send one job's task takes 8 at
#: most, but other sendings may come before it.
LONGEST_WAIT = 10.0


def start(
    backend: str, params: dict[str, Any] | None = None, *, audience: Any, request: str | None = None
) -> Job:
    """Start a job and return it, queued. Its poll task is published when the transaction commits.

    `audience` says who may see the job. It is a string such as "user:7" or "team:blue", a user, or
    an HttpRequest, which stands for its first audience. `request` is a string of the caller's
    choosing: a second start with the same `request` and audience returns the first one's job.
    Raises `progrock.Refused` where the backend is unknown, where params are not a dict, are too
    large or do not fit the backend's schema, where too many jobs of the audience are active, and
    where it has started too many in the last hour.
    While RabbitMQ is away the job waits in the database, and it starts when RabbitMQ is back.
    """
    return _start(backend, params, audience, request, send_now)


def cancel(job: Job | uuid.UUID | str) -> bool:
    """Ask for a job's cancellation; a worker tells the backend.

    Returns False where the job has ended, is being cancelled already, or does not exist. Raises
    ValueError for an id that is no UUID.
    """
    return _cancel(job, send_now)


async def astart(
    backend: str, params: dict[str, Any] | None = None, *, audience: Any, request: str | None = None
) -> Job:
    """`start`, from asynchronous code. Django's database thread does not wait for RabbitMQ."""
    sending = _Sending()
    job: Job = await database_sync_to_async(_start)(
        backend, params, audience, request, sending.begin
    )
    await sending.wait()
    return job


async def acancel(job: Job | uuid.UUID | str) -> bool:
    """`cancel`, from asynchronous code. Django's database thread does not wait for RabbitMQ."""
    sending = _Sending()
    asked: bool = await database_sync_to_async(_cancel)(job, sending.begin)
    await sending.wait()
    return asked


def id_of(job: Job | uuid.UUID | str) -> str:
    """The id of `job`, which is a Job or an id. Raises ValueError for an id that is no UUID."""
    return str(job.pk if isinstance(job, Job) else uuid.UUID(str(job)))


_Send = Callable[[Sequence[str], Outbound], object]


def _start(backend: str, params: Any, audience: Any, request: str | None, send: _Send) -> Job:
    name = audience_of(audience)
    job, created = attempt(lambda: create(name, backend, params, request))
    if created:
        transaction.on_commit(lambda: send_after_commit([str(job.pk)], send))
    return job


def _cancel(job: Job | uuid.UUID | str, send: _Send) -> bool:
    job_id = id_of(job)
    found = attempt(lambda: ledger.request_cancel(job_id, clock.measured())) is not None
    if found:
        transaction.on_commit(lambda: send_after_commit([job_id], send))
    return found


class _Sending:
    """Sends to RabbitMQ for asynchronous code, in other threads than that of the database."""

    def __init__(self) -> None:
        self._under_way: list[Future[None]] = []

    def begin(self, job_ids: Sequence[str], outbound: Outbound) -> None:
        """Send soon. Inside a transaction this is called when it commits."""
        if begun := hand_over(lambda: send_now(job_ids, outbound)):
            self._under_way.append(begun)

    async def wait(self) -> None:
        """Wait for the sending, up to LONGEST_WAIT. It goes on after that."""
        if waiting := [asyncio.wrap_future(each) for each in self._under_way]:
            await asyncio.wait(waiting, timeout=LONGEST_WAIT)


def send_now(job_ids: Sequence[str], outbound: Outbound) -> None:
    """Send the tasks and pushes of these jobs. A failure is logged, because workers send later."""
    try:
        dispatch.send_now(conf.amqp_url(), outbound)
    except Exception as error:
        _not_sent(job_ids, error)


def send_soon(row: Row) -> None:
    """Send, in another thread, the task and the push after a visitor's committed start or cancel.

    Never raises.
    """
    try:
        _announce([row], lambda job_ids, outbound: hand_over(lambda: send_now(job_ids, outbound)))
    except Exception as error:
        _not_sent([row.id], error)


def send_after_commit(job_ids: Sequence[str], send: _Send = send_now) -> None:
    """Send the tasks and pushes of jobs whose start or cancel has just been committed.

    Never raises, because the caller's transaction has committed and its view must go on.
    """
    try:
        _announce(list(ledger.load(job_ids).values()), send)
    except Exception as error:
        _not_sent(job_ids, error)


def _announce(rows: Sequence[Row], send: _Send) -> None:
    installation.read()  # messages and pushes bear its id
    for row in rows:
        journal.asked(row)
    asked = [dispatch.asked(row) for row in rows]
    send([row.id for row in rows], dispatch.after(asked, conf.backends()))


def _not_sent(job_ids: Sequence[str], error: Exception) -> None:
    """Log the error. A worker's sweep sends the task later, and a web process's repair the push."""
    known, more = isinstance(error, BrokerError), len(job_ids) - 1
    logger.warning(
        "job %s%s is in the database, but could not be sent to RabbitMQ: %s;"
        " a worker finds it there later, by itself",
        job_ids[0],
        f" (like {more} others)" if more else "",
        error if known else type(error).__name__,
        exc_info=None if known else error,
    )
