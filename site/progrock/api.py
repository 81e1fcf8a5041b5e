"""The Python API: a project's own code starts and cancels jobs here; visitors come by `doors`."""

import asyncio
import logging
import reprlib
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from channels.db import database_sync_to_async
from django.db import IntegrityError, transaction

from progrock import clock, conf, dispatch, installation, journal, ledger
from progrock.attempts import all_or_nothing, attempt
from progrock.audiences import audience_of
from progrock.backends import labels, schemas
from progrock.broker.errors import BrokerError
from progrock.broker.tasks import bucket_of
from progrock.dispatch import Outbound
from progrock.errors import Refused
from progrock.gate import MAX_REQUEST, checked_params
from progrock.ledger import Row
from progrock.models import ACTIVE, Job
from progrock.sending import hand_over

logger = logging.getLogger(__name__)

#: Asynchronous code waits so many seconds for RabbitMQ. One sending ends within 8 seconds, but
#: others may stand before it.
LONGEST_WAIT = 10.0


def start(
    backend: str, params: dict[str, Any] | None = None, *, audience: Any, request: str | None = None
) -> Job:
    """Start a job and return it, queued. Its poll task is published when the transaction commits.

    `audience` says who may see the job: a string such as "user:7" or "team:blue", a user, or an
    HttpRequest, whose first audience is taken. `request` is a string of the caller's choosing:
    however often an audience starts the same one, there is one job.
    Raises `progrock.Refused` where the backend is unknown, where params are not a dict, are too
    large or do not fit the backend's schema, where too many jobs of the audience are active, and
    where it has started too many in the last hour.
    While RabbitMQ is away the job is kept, and it starts when RabbitMQ is back.
    """
    return _start(backend, params, audience, request, send_now)


def cancel(job: Job | uuid.UUID | str) -> bool:
    """Ask for a job's cancellation; a worker tells the backend.

    Returns False where there is nothing to cancel. Raises ValueError for what is no job's id.
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
    await sending.over()
    return job


async def acancel(job: Job | uuid.UUID | str) -> bool:
    """`cancel`, from asynchronous code. Django's database thread does not wait for RabbitMQ."""
    sending = _Sending()
    asked: bool = await database_sync_to_async(_cancel)(job, sending.begin)
    await sending.over()
    return asked


def checked(backend: Any, params: Any, request: Any) -> dict[str, Any]:
    """The params of a start, as plain JSON. Raises Refused where a part of the start is wrong."""
    options = conf.backends().get(backend) if isinstance(backend, str) else None
    if options is None:
        names = ", ".join(conf.backends())
        raise Refused(
            "unknown_backend", f"There is no backend {reprlib.repr(backend)}; there is: {names}."
        )
    plain = checked_params(params)
    if wrong := schemas.complaint(options.params_schema, plain):
        raise Refused("bad_params", f"{wrong}.")
    if request is not None and not (
        isinstance(request, str) and 0 < len(request) <= MAX_REQUEST and request.isprintable()
    ):
        wanted = f"a string of 1 to {MAX_REQUEST} printable characters"
        raise Refused("bad_request", f"request must be {wanted}.")
    return plain


def id_of(job: Job | uuid.UUID | str) -> str:
    """The id of a job, which is given itself or by its id. Raises ValueError for what is no id."""
    return str(job.pk if isinstance(job, Job) else uuid.UUID(str(job)))


def known(audience: str, request: str | None) -> Job | None:
    """The job that this request of the audience started before, if there is one."""
    if request is None:
        return None
    return Job.objects.filter(audience=audience, request=request).first()


def create(
    audience: str, backend: str, params: Any, request: Any, *, like: str | None = None
) -> tuple[Job, bool]:
    """A new job, or the one that this request started before; and whether it is new.

    `like` is the id of the job that is started again, which is a milestone of it. Raises Refused.
    """
    params = checked(backend, params, request)
    options = conf.backends()[backend]
    now = clock.measured()
    job_id = uuid.uuid4()
    job = Job(
        id=job_id,
        bucket=bucket_of(str(job_id)),
        audience=audience,
        backend=backend,
        params=params,
        request=request,
        label=labels.label_of(options.label, params),
        due_at=clock.as_datetime(now),
        deadline_at=clock.as_datetime(now + options.deadline),
    )
    try:
        with all_or_nothing():
            if before := known(audience, request):
                return before, False
            active = Job.objects.filter(audience=audience, state__in=ACTIVE).count()
            if active >= conf.max_active_jobs():
                raise Refused(
                    "too_many_jobs",
                    f"{active} of your jobs are active; wait for one to end, or cancel one.",
                )
            most = conf.max_starts_an_hour()
            if most and ledger.started_since(audience, 3600.0) >= most:
                raise Refused(
                    "too_many_starts", f"{most} jobs in an hour are the limit; try again later."
                )
            job.save(force_insert=True)
            if like is not None:
                ledger.note_again(like, str(job_id))
    except IntegrityError:  # the same request, at the same time; or else a mistake
        if before := known(audience, request):
            return before, False
        raise
    return job, True


_Send = Callable[[Sequence[str], Outbound], object]


def _start(backend: str, params: Any, audience: Any, request: str | None, send: _Send) -> Job:
    name = audience_of(audience)
    job, created = attempt(lambda: create(name, backend, params, request))
    if created:
        transaction.on_commit(lambda: follow([str(job.pk)], send))
    return job


def _cancel(job: Job | uuid.UUID | str, send: _Send) -> bool:
    job_id = id_of(job)
    found = attempt(lambda: ledger.request_cancel(job_id, clock.measured())) is not None
    if found:
        transaction.on_commit(lambda: follow([job_id], send))
    return found


class _Sending:
    """What asynchronous code sends, in other threads than that of the database."""

    def __init__(self) -> None:
        self._under_way: list[Future[None]] = []

    def begin(self, job_ids: Sequence[str], outbound: Outbound) -> None:
        """Send soon. Inside a transaction this is called when it commits."""
        if begun := hand_over(lambda: send_now(job_ids, outbound)):
            self._under_way.append(begun)

    async def over(self) -> None:
        """Wait for what was begun, but not for long: it goes on by itself."""
        if waiting := [asyncio.wrap_future(each) for each in self._under_way]:
            await asyncio.wait(waiting, timeout=LONGEST_WAIT)


def send_now(job_ids: Sequence[str], outbound: Outbound) -> None:
    """Send. While RabbitMQ is away it is late, and not lost."""
    try:
        dispatch.send_now(conf.amqp_url(), outbound)
    except Exception as error:
        _not_sent(job_ids, error)


def send_soon(row: Row) -> None:
    """Send what follows a visitor's start or cancel that stands in the ledger, in another thread.

    Nothing comes out of here.
    """
    try:
        _announce([row], lambda job_ids, outbound: hand_over(lambda: send_now(job_ids, outbound)))
    except Exception as error:
        _not_sent([row.id], error)


def follow(job_ids: Sequence[str], send: _Send = send_now) -> None:
    """After the commit of starts or cancels: send what follows.

    Nothing comes out of here: the caller's transaction has committed, and its view must go on.
    """
    try:
        _announce(list(ledger.load(job_ids).values()), send)
    except Exception as error:
        _not_sent(job_ids, error)


def _announce(rows: Sequence[Row], send: _Send) -> None:
    installation.read()  # what is sent bears it
    for row in rows:
        journal.asked(row)
    asked = [dispatch.asked(row) for row in rows]
    send([row.id for row in rows], dispatch.after(asked, conf.backends()))


def _not_sent(job_ids: Sequence[str], error: Exception) -> None:
    """Log it. Whatever the error is, a sweep and a repair see to the jobs."""
    known, more = isinstance(error, BrokerError), len(job_ids) - 1
    logger.warning(
        "job %s%s is in the ledger, but its task or its push was not sent: %s;"
        " a worker's sweep or a repair does it later",
        job_ids[0],
        f" (like {more} others)" if more else "",
        error if known else type(error).__name__,
        exc_info=None if known else error,
    )
