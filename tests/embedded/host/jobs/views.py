"""A page of the host's own that shows a job of ProgRock."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.template import engines

import progrock
from jobs.models import Job

PAGE = """{% load progrock %}<!doctype html><title>Printing</title><h1>{{ print.title }}</h1>{% job_progress run %}"""


@login_required(login_url="/progress/login/")
def printing(request: HttpRequest) -> HttpResponse:
    """Print something, and show how far it is."""
    run = progrock.start("press", {"seconds": 8}, audience=request)
    print_job = Job.objects.create(title="A poster", run=run.pk)
    return HttpResponse(
        engines["django"].from_string(PAGE).render({"print": print_job, "run": run}, request)
    )
