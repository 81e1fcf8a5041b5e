"""Middleware that answers health probes first, because they come by IP and over plain HTTP."""

from django.http import HttpRequest, HttpResponse
from django.urls import NoReverseMatch, reverse
from django.utils.deprecation import MiddlewareMixin

from progrock import views


class HealthFirst(MiddlewareMixin):
    """Answers `/healthz`, so put it before all middleware that checks the host (ALLOWED_HOSTS)."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        """Answer a probe; leave all other requests alone."""
        try:
            address = reverse("progrock:healthz")
        except NoReverseMatch:  # the project does not include our URLs
            return None
        return views.healthz(request) if request.path == address else None
