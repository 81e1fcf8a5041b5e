"""Middleware for the time while the database is away: 503 and a sentence, in place of 500 and a traceback."""

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin


class DatabaseAway(MiddlewareMixin):
    """Answers for views that could not reach the database."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """503 with Retry-After; any other exception is not ours."""
        if not isinstance(exception, OperationalError | InterfaceError):
            return None
        sentence = "The database is away; try again in a moment.\n"
        return HttpResponse(
            sentence, status=503, content_type="text/plain", headers={"Retry-After": "5"}
        )
