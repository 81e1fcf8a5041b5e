"""A page of the host's own that starts a job of ProgRock and shows it."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.template import engines

import broker
import progrock
from jobs.models import Job

PAGE = """{% load progrock %}<!doctype html>
<title>Printing</title>
<h1>{{ print.title }}</h1>
<p>Printed by {{ broker }}</p>
{% job_progress run %}
"""


@login_required(login_url="/progress/login/")
def printing(request: HttpRequest) -> HttpResponse:
    """Start a print and show its progress."""
    run = progrock.start("press", {"seconds": 8}, audience=request)
    print_job = Job.objects.create(title="A poster", run=run.pk)
    context = {"print": print_job, "run": run, "broker": broker.VERSION}
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))
