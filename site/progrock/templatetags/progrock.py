"""`{% load progrock %}{% job_progress job %}`: a job's live progress in anybody's template."""

import uuid
from typing import Any

from django import template
from django.template import Context
from django.urls import NoReverseMatch, reverse

from progrock.models import Job

register = template.Library()


@register.inclusion_tag("progrock/job_progress.html", takes_context=True)
def job_progress(context: Context, job: Job | uuid.UUID | str, label: str = "") -> dict[str, Any]:
    """Show a job (or the job with this id), named `label` or else as in "render 3f2a".

    Without JavaScript it shows how the job stood when the page was made; progrock.js, which the first tag of a template
    loads, keeps it live. For its looks, link `progrock/progrock.css` or write your own (docs/javascript.md).
    """
    row = job if isinstance(job, Job) else None
    key = str(job.pk if isinstance(job, Job) else job)
    try:
        href = reverse("progrock:job", args=[key])
    except NoReverseMatch:  # a project need not route our pages
        href = ""
    seen, context.render_context["job_progress"] = (
        context.render_context.get("job_progress", False),
        True,
    )
    name = label or f"{row.backend if row else 'job'} {key[:4]}"
    percent = None if row is None or row.progress is None else int(row.progress)
    return {
        "job": row,
        "id": key,
        "href": href,
        "label": label,
        "name": name,
        "percent": percent,
        "first": not seen,
    }
