"""Middleware for when the database is away: 503 and a sentence instead of 500 and a traceback."""

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin


class DatabaseAway(MiddlewareMixin):
    """Answers for views that could not reach the database."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer a database error with 503 and Retry-After; leave other exceptions alone."""
        if not isinstance(exception, OperationalError | InterfaceError):
            return None
        sentence = "The database is away; try again in a moment.\n"
        return HttpResponse(
            sentence, status=503, content_type="text/plain", headers={"Retry-After": "5"}
        )
