"""Middleware for when the database is away: it answers 503 with a sentence, in place of 500."""

from django.contrib.sessions.middleware import SessionMiddleware
from django.db import Error, connection
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from progrock.database_errors import Trouble, drop, trouble
from progrock.errors import DATABASE_AWAY
from progrock.problems import RETRY_AFTER


class DatabaseAway(MiddlewareMixin):
    """Answers in place of views that could not reach the database."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer a database that is away or busy with 503; leave other exceptions alone."""
        return _answer(exception) if isinstance(exception, Error) else None


class Sessions(SessionMiddleware):
    """Django's SessionMiddleware, but it answers 503 where the session cannot be saved.

    Django saves a session after the view, where `DatabaseAway` does not see the exception.
    """

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        """Save the session, and answer with 503 where the database is away or busy."""
        try:
            return super().process_response(request, response)
        except Error as error:
            if (answer := _answer(error)) is None:
                raise
            return answer


def _answer(error: Error) -> HttpResponse | None:
    """503 for a database that is away or busy; None for a mistake."""
    found = trouble(error)
    if found is Trouble.MISTAKE:
        return None
    if found is Trouble.AWAY and not connection.in_atomic_block:
        drop()  # else the next request might use the same read-only server again
    headers = {"Retry-After": str(RETRY_AFTER)}
    return HttpResponse(
        f"{DATABASE_AWAY}\n", status=503, content_type="text/plain", headers=headers
    )
