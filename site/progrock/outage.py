"""Middleware for when the database is away: 503 and a sentence instead of 500 and a traceback."""

from django.db import Error, connection
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from progrock.database_errors import Trouble, trouble


class DatabaseAway(MiddlewareMixin):
    """Answers for views that could not reach the database."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer a database that is away or busy with 503; leave other exceptions alone."""
        if not isinstance(exception, Error) or trouble(exception) is Trouble.MISTAKE:
            return None
        if trouble(exception) is Trouble.AWAY and not connection.in_atomic_block:
            connection.close()  # a read-only server would keep it, and the next request too
        sentence = "The database is away; try again in a moment.\n"
        return HttpResponse(
            sentence, status=503, content_type="text/plain", headers={"Retry-After": "5"}
        )
