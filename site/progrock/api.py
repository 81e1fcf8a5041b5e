"""The Python API: a project's own code, and the WebSocket consumer, start and cancel jobs here."""

import logging
import uuid
from typing import Any

from channels.db import database_sync_to_async
from django.db import IntegrityError, transaction

from progrock import clock, conf, dispatch, installation, ledger
from progrock.audiences import audience_of
from progrock.broker.errors import BrokerError
from progrock.broker.tasks import bucket_of
from progrock.errors import Refused
from progrock.gate import checked_params
from progrock.models import ACTIVE, Job

logger = logging.getLogger(__name__)


def start(
    backend: str, params: dict[str, Any] | None = None, *, audience: Any, request: str | None = None
) -> Job:
    """Start a job and return it, queued. Its poll task is published when the transaction commits.

    `audience` says who may see the job: a string such as "user:7" or "team:blue", a user, or an
    HttpRequest, whose first audience is taken. `request` is a string of the caller's choosing:
    however often an audience starts the same one, there is one job.
    Raises `progrock.Refused` where the backend is unknown, where params are not a dict or are too
    large, and where too many jobs of the audience are active.
    While RabbitMQ is away the job is kept, and it starts when RabbitMQ is back.
    """
    job, created = create(audience_of(audience), backend, params, request)
    if created:
        transaction.on_commit(lambda: _send(str(job.pk)))
    return job


def cancel(job: Job | uuid.UUID | str) -> bool:
    """Ask for a job's cancellation; a worker tells the backend.

    Returns False where there is nothing to cancel. Raises ValueError for what is no job's id.
    """
    job_id = str(job.pk if isinstance(job, Job) else uuid.UUID(str(job)))
    found = ledger.request_cancel(job_id, clock.measured()) is not None
    if found:
        transaction.on_commit(lambda: _send(job_id))
    return found


async def astart(
    backend: str, params: dict[str, Any] | None = None, *, audience: Any, request: str | None = None
) -> Job:
    """`start`, from asynchronous code."""
    job: Job = await database_sync_to_async(start)(
        backend, params, audience=audience, request=request
    )
    return job


async def acancel(job: Job | uuid.UUID | str) -> bool:
    """`cancel`, from asynchronous code."""
    asked: bool = await database_sync_to_async(cancel)(job)
    return asked


def create(audience: str, backend: str, params: Any, request: Any) -> tuple[Job, bool]:
    """A new job, or the one that this request started before; and whether it is new.

    Raises Refused.
    """
    options = conf.backends().get(backend) if isinstance(backend, str) else None
    if options is None:
        names = ", ".join(conf.backends())
        raise Refused(
            "unknown_backend", f"There is no backend {str(backend)[:40]!r}; there is: {names}."
        )
    params = checked_params(params)
    if request is not None and not (
        isinstance(request, str) and 0 < len(request) <= 100 and request.isprintable()
    ):
        raise Refused("bad_request", "request must be a string of 1 to 100 printable characters.")
    now = clock.measured()
    job_id = uuid.uuid4()
    job = Job(
        id=job_id,
        bucket=bucket_of(str(job_id)),
        audience=audience,
        backend=backend,
        params=params,
        request=request,
        due_at=clock.as_datetime(now),
        deadline_at=clock.as_datetime(now + options.deadline),
    )
    try:
        with transaction.atomic():
            if request is not None and (
                known := Job.objects.filter(audience=audience, request=request).first()
            ):
                return known, False
            active = Job.objects.filter(audience=audience, state__in=ACTIVE).count()
            if active >= conf.max_active_jobs():
                raise Refused(
                    "too_many_jobs",
                    f"{active} of your jobs are active; wait for one to end, or cancel one.",
                )
            job.save(force_insert=True)
    except IntegrityError:  # the same request, at the same time; or else a mistake
        if request is not None and (
            known := Job.objects.filter(audience=audience, request=request).first()
        ):
            return known, False
        raise
    return job, True


def _send(job_id: str) -> None:
    """Send what follows the commit. While RabbitMQ is away it is late, and not lost.

    Nothing comes out of here: the caller's transaction has committed, and its view must go on.
    """
    try:
        installation.read()  # what is sent bears it
        committed = dispatch.asked(ledger.load([job_id])[job_id])
        dispatch.send_now(conf.amqp_url(), dispatch.after([committed], conf.backends()))
    except Exception as error:  # whatever it is, a sweep and a repair see to the job
        known = isinstance(error, BrokerError)
        logger.warning(
            "job %s is in the ledger, but its task or its push was not sent: %s;"
            " a worker's sweep or a repair does it later",
            job_id,
            error if known else type(error).__name__,
            exc_info=None if known else error,
        )
