"""`{% load progrock %}{% job_progress job %}`: a job's live progress in anybody's template."""

import uuid
from typing import Any

from django import template
from django.template import Context
from django.urls import NoReverseMatch, reverse

from progrock.models import Job

register = template.Library()


@register.inclusion_tag("progrock/job_progress.html", takes_context=True)
def job_progress(
    context: Context, job: Job | uuid.UUID | str, label: str = "", src: str = ""
) -> dict[str, Any]:
    """Show a job, or the job with this id.

    It is called `label`, or what the job's own label says, or else "render 3f2a".

    `src` is the socket's address where the project serves it elsewhere than at `/prog/`.

    Without JavaScript it shows how the job stood when the page was made. progrock.js keeps it live;
    the first tag of a template loads that. For its looks, link `progrock/progrock.css` or write
    your own (docs/javascript.md).
    """
    row = job if isinstance(job, Job) else None
    job_id = str(job if row is None else row.pk)
    try:
        href = reverse("progrock:job", args=[job_id])
    except NoReverseMatch:  # a project need not route our pages
        href = ""
    first = not context.render_context.get("job_progress")
    context.render_context["job_progress"] = True
    name = label or (row and row.label) or f"{row.backend if row else 'job'} {job_id[:4]}"
    percent = None if row is None or row.progress is None else int(row.progress)
    return {
        "job": row,
        "id": job_id,
        "href": href,
        "label": label,
        "src": src,
        "name": name,
        "percent": percent,
        "first": first,
    }
