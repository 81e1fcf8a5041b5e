"""Makes the job of a start, after a check of what was asked for; each request makes one job only.

Whatever starts a job comes here: the Python API, visitors (`progrock.doors`), and operators.
"""

import reprlib
import uuid
from typing import Any

from django.db import IntegrityError

from progrock import clock, conf, ledger
from progrock.attempts import all_or_nothing
from progrock.backends import labels, schemas
from progrock.broker.tasks import bucket_of
from progrock.errors import Refused
from progrock.gate import MAX_REQUEST, checked_params
from progrock.models import ACTIVE, Job


def checked(backend: Any, params: Any, request: Any) -> dict[str, Any]:
    """The params of a start, as plain JSON. Raises Refused where any of the arguments is wrong."""
    options = conf.backends().get(backend) if isinstance(backend, str) else None
    if options is None:
        raise Refused(
            "unknown_backend",
            f"There is no backend {reprlib.repr(backend)}; wanted one of:"
            f" {', '.join(conf.backends())}.",
        )
    plain = checked_params(params)
    if wrong := schemas.complaint(options.params_schema, plain):
        raise Refused("bad_params", f"{wrong}.")
    if request is not None and not (
        isinstance(request, str) and 0 < len(request) <= MAX_REQUEST and request.isprintable()
    ):
        raise Refused(
            "bad_request",
            f"request is {reprlib.repr(request)};"
            f" wanted a string of 1 to {MAX_REQUEST} printable characters.",
        )
    return plain


def started_before(audience: str, request: str | None) -> Job | None:
    """The job that this audience has started with the same `request`, if there is one."""
    if request is None:
        return None
    return Job.objects.filter(audience=audience, request=request).first()


def create(
    audience: str, backend: str, params: Any, request: Any, *, original_id: str | None = None
) -> tuple[Job, bool]:
    """A new job, or the one that was started with the same `request`; and whether it is new.

    `original_id` is the id of the job that is run again. That job gets a milestone which names the
    new one. Raises Refused.
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
            if before := started_before(audience, request):
                return before, False
            active = Job.objects.filter(audience=audience, state__in=ACTIVE).count()
            if active >= (allowed := conf.max_active_jobs()):
                raise Refused(
                    "too_many_jobs",
                    f"{active} of your jobs are active, and {allowed} may be;"
                    " wait for one to end, or cancel one.",
                )
            most = conf.max_starts_an_hour()
            if most and (started := ledger.started_since(audience, 3600.0)) >= most:
                raise Refused(
                    "too_many_starts",
                    f"You have started {started} jobs in the last hour, and {most} are allowed;"
                    " try again later.",
                )
            job.save(force_insert=True)
            if original_id is not None:
                ledger.note_again(original_id, str(job_id))
    except IntegrityError:  # the same request was started at the same time; else it is a mistake
        if before := started_before(audience, request):
            return before, False
        raise
    return job, True
