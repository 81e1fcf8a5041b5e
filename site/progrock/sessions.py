"""What ProgRock does with Django's sessions.

It keeps a visitor's random id in the session, makes the cookie of a new session for a WebSocket
handshake, and closes the sockets of a session that logs out.
"""

import hashlib
import logging
import uuid
from collections.abc import MutableMapping
from typing import Any

from django.conf import settings
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.dispatch import receiver
from django.http import HttpResponse

from progrock import conf, installation
from progrock.broker import blocking
from progrock.broker.errors import BrokerError
from progrock.broker.names import INSTALLATION
from progrock.sending import hand_over

logger = logging.getLogger(__name__)

#: Where a session keeps its visitor's random id. That id is never the session's own key, because
#: the key is a secret and a login changes it.
VISITOR = "progrock_visitor"
#: The channel layer's group by which web processes hear that a session has ended. All are in it.
SESSIONS = "progrock.sessions"


def make_visitor(session: MutableMapping[str, Any] | SessionBase) -> bool:
    """Give the session a visitor's id if it has none; returns whether it was changed."""
    if VISITOR in session:
        return False
    session[VISITOR] = str(uuid.uuid4())
    return True


def save(session: SessionBase) -> None:
    """Save the session, a new one with one INSERT.

    Django would first query whether the new random key is in use, which the INSERT finds as well.
    """
    if session.session_key is not None:
        session.save()
        return
    session.exists = _never  # type: ignore[method-assign]
    try:
        session.save()
    finally:
        del session.exists


def _never(session_key: str) -> bool:
    return False


def set_cookie(session: SessionBase) -> str:
    """The value of the `Set-Cookie` header that gives a browser this session."""
    response = HttpResponse()
    at_close = session.get_expire_at_browser_close()
    response.set_cookie(
        settings.SESSION_COOKIE_NAME,
        session.session_key or "",
        max_age=None if at_close else session.get_expiry_age(),
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=settings.SESSION_COOKIE_HTTPONLY,
        samesite=settings.SESSION_COOKIE_SAMESITE,
    )
    return response.cookies[settings.SESSION_COOKIE_NAME].OutputString()


def digests(session: MutableMapping[str, Any] | SessionBase) -> list[str]:
    """The names of a session in messages, the more lasting one first. May query the database.

    The first is made of the visitor's id, which lasts as long as the session. The second is made of
    the session's key, which changes with a login or a new password. The key is needed for a session
    without a visitor's id, and for one of which only the cookie is left. Both are secrets, so their
    digests are sent.
    """
    found = []
    if visitor := session.get(VISITOR):
        found.append(_digest(f"visitor:{visitor}"))
    if key := getattr(session, "session_key", None):
        found.append(_digest(str(key)))  # a project's session store may have keys of another type
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@receiver(user_logged_out)
def session_ended(sender: Any, request: Any, **kwargs: Any) -> None:
    """Close the sockets of a session that ends, in all web processes."""
    try:  # an exception would stop Django's logout, which comes after its receivers
        if (session := getattr(request, "session", None)) is not None:
            _close_sockets(digests(session))
    except Exception as error:
        _log_still_open(error)


@receiver(user_logged_in)
def session_begun(sender: Any, request: Any, **kwargs: Any) -> None:
    """Give the session a visitor's id, and close the sockets of the session that it replaces.

    If another user was signed in, Django has thrown away that user's session by now, and only the
    cookie still names it. The session of a visitor who signs in goes on, and has its id already.
    """
    try:  # an exception would stop Django's login
        session = getattr(request, "session", None)
        if session is None or not make_visitor(session):
            return
        key = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
        if key and key != session.session_key:
            _close_sockets([_digest(key)])
    except Exception as error:
        _log_still_open(error)


def _close_sockets(names: list[str]) -> None:
    if names:
        event = {
            "type": "session.ended",
            "sessions": names,
            INSTALLATION: installation.known(),
        }
        if not conf.in_memory():
            url = conf.amqp_url()
            hand_over(lambda: _send(url, event))


def _send(url: str, event: dict[str, Any]) -> None:
    """Tell all web processes of sessions that have ended."""
    try:
        blocking.group_send(url, SESSIONS, event, conf.names())
    except Exception as error:  # the edge of the thread, where nobody else would log it
        _log_still_open(error)


def _log_still_open(error: Exception) -> None:
    known = isinstance(error, BrokerError)
    logger.warning(
        "sockets of a session that has ended stay open until they reconnect: %s",
        error if known else type(error).__name__,
        exc_info=None if known else error,
    )
