"""Makes the HTML page of one job and the list of everybody's, readable without JavaScript."""

import json
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from progrock import conf, everybody, wire
from progrock.milestones import WORDS, Event, Milestone
from progrock.models import Job
from progrock.owners import names_of

#: The types of params that a definition list can show. The others have parts of their own.
_SCALAR = str | int | float | bool | None
#: If a value of the params is longer, in characters, they are shown as JSON and not as a list.
_LONGEST_SCALAR = 200


def job_page(request: HttpRequest, job: Job, *, own: bool) -> HttpResponse:
    """The page of a job.

    `own` is whether the job is the visitor's own. Then the page stays up to date and can cancel it.
    """
    large = wire.is_large(job.result_size)
    context = {
        "job": job,
        "own": own,
        "owner": None if own else names_of([job.audience])[job.audience],
        "anonymous": conf.anonymous(),
        "name": name_of(job),
        "stage": f"{job.state} {'true' if job.cancel_requested and job.active else 'false'}",
        "backend_title": _title(job.backend),
        "params": _listed(job.params),
        "params_text": pretty(job.params),
        "took": _took(job),
        "story": [_shown(event) for event in job.story],
        "large": large,
        "result": pretty(job.result) if job.result_size is not None and not large else None,
    }
    return render(request, "progrock/job.html", context)


def everybody_page(request: HttpRequest) -> HttpResponse:
    """The list of everybody's jobs, with the filter and the place that the address names."""
    wanted = {name: request.GET.get(name, "") for name in ("state", "backend", "owner", "q")}
    found = everybody.page(wanted, everybody.Place.read(request.GET.get("before", "")))
    owners = names_of({job.audience for job in found.jobs})
    query = {name: value for name, value in wanted.items() if value}
    context = {
        "jobs": [
            {
                "row": job,
                "name": name_of(job),
                "owner": owners[job.audience],
                "backend": _title(job.backend),
                "took": _took(job),
            }
            for job in found.jobs
        ],
        "chosen": wanted,
        "filtered": bool(query),
        "first": "before" not in request.GET,
        "states": states(),
        "backends": [(name, options.title or name) for name, options in conf.backends().items()],
        "newest": urlencode(query),
        "older": found.after and urlencode({**query, "before": str(found.after)}),
        "now": timezone.now(),
    }
    return render(request, "progrock/everybody.html", context)


def states() -> list[tuple[str, str]]:
    """The values of the filter by state, each with its word for people."""
    return [
        ("active", _("Active")),
        ("ended", _("Ended")),
        ("succeeded", _("Succeeded")),
        ("failed", _("Failed")),
        ("cancelled", _("Cancelled")),
        ("expired", _("Expired")),
    ]


def missing_page(request: HttpRequest) -> HttpResponse:
    """404 for whoever may not see a job. It does not say whether that job exists."""
    return render(request, "progrock/missing.html", status=404)


@cache_control(public=True, max_age=7 * 86400)
@require_safe
def favicon(request: HttpRequest, running: int) -> HttpResponse:
    """The icon of a page with a count of running jobs.

    The server draws it, because a strict Content-Security-Policy allows no icon made by a script.
    """
    context = {"running": running if running < 10 else "9+"}
    return render(request, "progrock/favicon.svg", context, content_type="image/svg+xml")


def may_see_all(request: HttpRequest) -> bool:
    """Whether this visitor may see the jobs of everybody: staff with `progrock.view_job`."""
    user: Any = getattr(request, "user", None)
    return bool(getattr(user, "is_staff", False) and user.has_perm("progrock.view_job"))


def pretty(value: Any) -> str:
    """A JSON value as text with an indent."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Seconds in words, the same as progrock.js uses: "12 s", "3 min 5 s", "2 h 10 min"."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, left = divmod(minutes, 60)
    if whole < 60:
        return _("%(s)d s") % {"s": whole}
    if whole < 3600:
        return _("%(min)d min %(s)d s") % {"min": minutes, "s": rest}
    return _("%(h)d h %(min)d min") % {"h": hours, "min": left}


def name_of(job: Job) -> str:
    """What a job is called, as on its card."""
    return job.label or f"{job.backend} {str(job.pk)[:4]}"


def _took(job: Job) -> str:
    """How long a job took; "" while it is active."""
    return duration((job.ended_at - job.created_at).total_seconds()) if job.ended_at else ""


def _shown(event: Event) -> dict[str, Any]:
    """A milestone for the template. `job` is there only if it has the id of another job."""
    shown: dict[str, Any] = {"at": event.at, "word": WORDS[event.what], "text": event.text}
    return shown | ({"job": event.text} if event.what == Milestone.AGAIN else {})


def _title(backend: str) -> str:
    """The backend's title, or its name where it has none or is no longer configured."""
    options = conf.backends().get(backend)
    return (options.title if options else "") or backend


def _listed(params: Any) -> list[tuple[str, str]] | None:
    """The params as pairs of a name and a text; None where a list cannot show them."""
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
