"""The template tags for any project, `{% load progrock %}`: a job's progress, and its script."""

import uuid
from typing import Any

from django import template
from django.template import Context

from progrock.client import nonce_of, page_data
from progrock.models import Job
from progrock.pages import name_of
from progrock.wire import address_of

register = template.Library()


@register.inclusion_tag("progrock/client.html", takes_context=True)
def progrock_client(context: Context, nonce: str = "", page: bool = False) -> dict[str, Any]:
    """Load progrock.js, and hand it the server's addresses and the texts of the page's language.

    For pages whose own scripts use the client. `{% job_progress %}` does the same by itself. Of
    several such tags in a template only the first one writes something.

    `nonce` is that of the Content-Security-Policy; left out, it is the request's, if there is one.
    `page=True` adds the texts that the pages of `progrock.urls` and form.js need.
    """
    return _client(context, nonce, page)


@register.inclusion_tag("progrock/job_progress.html", takes_context=True)
def job_progress(
    context: Context,
    job: Job | uuid.UUID | str,
    label: str = "",
    src: str = "",
    href: str = "",
    nonce: str = "",
) -> dict[str, Any]:
    """Show a job's progress. `job` is a Job or its id.

    `label` is what the job is called on the page. Left out, it is the job's own label, or else a
    name such as "render 3f2a".
    `src` is the address of the WebSocket, where it is not that of the rest of the page. `href` is
    the address of the job as JSON; left out, it is `jobs/<id>` of `progrock.urls`. `nonce` is that
    of the Content-Security-Policy; left out, it is the request's, if there is one.

    The HTML shows the job as it was when the page was made. progrock.js, which the first tag of a
    template loads, keeps it up to date. For its style, link `progrock/progrock.css` or write your
    own (docs/javascript.md).
    """
    row = job if isinstance(job, Job) else None
    job_id = str(job if row is None else row.pk)
    href = href or address_of(job_id) or ""
    name = label or (name_of(row) if row else f"job {job_id[:4]}")
    percent = None if row is None or row.progress is None else int(row.progress)
    return {
        "job": row,
        "id": job_id,
        "href": href,
        "label": label,
        "src": src,
        "name": name,
        "percent": percent,
        **_client(context, nonce),
    }


def _client(context: Context, nonce: str, page: bool = False) -> dict[str, Any]:
    """The context of client.html. `first` is false where this template has the script already."""
    first = not context.render_context.get("progrock")
    context.render_context["progrock"] = True
    if not first:
        return {"first": False}
    request = context.get("request")
    nonce = nonce or str(context.get("csp_nonce") or "") or nonce_of(request)
    return {"first": True, "nonce": nonce, "data": page_data(request, page=page)}
