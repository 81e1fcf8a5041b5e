"""The views of the pages, which decide who may see each one; and `/healthz`."""

import uuid
from typing import Any

from channels.layers import channel_layers
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from progrock import clock, conf, pages
from progrock.audiences import audiences_of_request
from progrock.models import Job
from progrock.problems import problem
from progrock.pulse import pulse
from progrock.sessions import make_visitor


@never_cache
@require_safe
def index(request: HttpRequest) -> HttpResponseBase:
    """The page on which a visitor starts jobs and watches them."""
    if not conf.anonymous() and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    make_visitor(request.session)
    context = {"anonymous": conf.anonymous(), "states": pages.states()}
    return render(request, "progrock/index.html", context)


@never_cache
@require_safe
def everybody(request: HttpRequest) -> HttpResponseBase:
    """The jobs of everybody, for staff with `progrock.view_job`; 403 for anybody else."""
    if pages.may_see_all(request):
        return pages.everybody_page(request)
    if not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    raise PermissionDenied


def job_page(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    """The page of a job, where a browser asks for `jobs/<id>`; 404 for whoever may not see it."""
    found = Job.objects.defer("result").filter(pk=job_id).first()
    own = found is not None and found.audience in audiences_of_request(request)
    if found is None or not (own or pages.may_see_all(request)):
        return pages.missing_page(request)
    return pages.job_page(request, found, own=own)


@require_safe
def events(request: HttpRequest) -> HttpResponse:
    """Says why there is no stream of events here, where `http_application` has not answered it."""
    sentence = (
        "Events need an ASGI server, and `http_application` of `progrock.consumers.routing` around"
        " Django in the project's asgi.py."
    )
    return problem("needs_asgi", sentence)


@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while this process can serve pages.

    The answer also has the state of RabbitMQ, without which the pages still work. What it says of
    the database is at most a second old, so that many probes cost no more than one.
    """
    state: dict[str, Any] = {
        "database": pulse.state(),
        "rabbitmq": "not in use: no socket was opened yet",
    }
    if (layer := channel_layers.backends.get(conf.channel_layer())) is not None:
        state["rabbitmq"] = "ok" if getattr(layer, "connected", True) else "unreachable"
    if sentence := clock.trouble():
        state["clock"] = sentence
    return JsonResponse(state, status=200 if state["database"] == "ok" else 503)
