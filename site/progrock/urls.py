"""The URLs of the pages and the HTTP API, for a project to include as namespace `progrock`."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from progrock import http_api, pages, views

app_name = "progrock"
urlpatterns = [
    path("", views.index, name="index"),
    path("jobs", http_api.jobs, name="jobs"),
    path("jobs/<uuid:job_id>", http_api.job, name="job"),
    path("jobs/<uuid:job_id>/again", http_api.again, name="again"),
    path("jobs/<uuid:job_id>/result", http_api.result, name="result"),
    path("backends", http_api.backends, name="backends"),
    path("events", views.events, name="events"),
    path("jobs/all", views.everybody, name="everybody"),
    path("favicon/<int:running>.svg", pages.favicon, name="favicon"),
    path("login/", LoginView.as_view(template_name="progrock/login.html"), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("healthz", views.healthz, name="healthz"),
]
