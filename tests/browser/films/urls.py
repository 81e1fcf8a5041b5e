"""URLs: the built pages, and the htmx example of docs/javascript.md."""

import runpy

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import include, path
from django.views.static import serve

from progrock.models import Job

#: The view of the documentation.
start = runpy.run_path(str(settings.PAGES / "views.py"))["film"]


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "htmx.html")


def film(request: HttpRequest, job: str) -> HttpResponse:
    return HttpResponse(f"The film: {job}")


def card(request: HttpRequest, job: str) -> HttpResponse:
    return render(request, "job.html", {"job": Job.objects.get(pk=job)})


urlpatterns = [
    path("film/<uuid:job>/card", card),
    path("htmx", page),
    path("film", start),
    path("film/<job>", film),
    path("pages/<path:path>", serve, {"document_root": settings.PAGES / "dist"}),
    path("", include("config.urls")),
]
