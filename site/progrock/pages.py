"""The page of one job, as HTML for people: all that is known of it, readable without JavaScript."""

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from progrock import conf
from progrock.ledger import LARGE_RESULT
from progrock.models import Job

#: What a definition list can show of params: nothing that has parts of its own.
_SCALAR = str | int | float | bool | None
#: Above so many characters a value stands in the JSON and not in a list.
_LONGEST_SCALAR = 200


def job_page(request: HttpRequest, job: Job, *, own: bool) -> HttpResponse:
    """The page of a job.

    `own`: the visitor is of its audience, so the page keeps up to date and can cancel the job.
    """
    large = job.result_size is not None and job.result_size > LARGE_RESULT
    context = {
        "job": job,
        "own": own,
        "anonymous": conf.anonymous(),
        "name": job.label or f"{job.backend} {str(job.pk)[:4]}",
        "backend_title": _title(job.backend),
        "params": _listed(job.params),
        "params_text": pretty(job.params),
        "duration": job.ended_at and duration((job.ended_at - job.created_at).total_seconds()),
        "large": large,
        "result": pretty(job.result) if job.result_size is not None and not large else None,
    }
    return render(request, "progrock/job.html", context)


def missing_page(request: HttpRequest) -> HttpResponse:
    """404 for whoever may not see a job. It does not tell whether there is one."""
    return render(request, "progrock/missing.html", status=404)


def may_see_all(request: HttpRequest) -> bool:
    """Whether this visitor may see the jobs of everybody: staff with `progrock.view_job`."""
    user = getattr(request, "user", None)
    return user is not None and user.is_staff and user.has_perm("progrock.view_job")


def pretty(value: Any) -> str:
    """A JSON value as text with an indent."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Seconds in the words of the client: "12 s", "3 min 5 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if whole < 60:
        return _("%(s)d s") % {"s": whole}
    if whole < 3600:
        return _("%(min)d min %(s)d s") % {"min": minutes, "s": rest}
    return _("%(h)d h %(min)d min") % {"h": hours, "min": left}


def _title(backend: str) -> str:
    """What people call a backend; its name, where it is no longer configured."""
    options = conf.backends().get(backend)
    return (options.title if options else "") or backend


def _listed(params: Any) -> list[tuple[str, str]] | None:
    """The params as names and texts; None where a list cannot show them."""
    if not isinstance(params, dict):
        return None
    listed = []
    for name, value in params.items():
        if not isinstance(value, _SCALAR):
            return None
        text = value if isinstance(value, str) else json.dumps(value)
        if len(text) > _LONGEST_SCALAR or "\n" in text:
            return None
        listed.append((name, text))
    return listed
