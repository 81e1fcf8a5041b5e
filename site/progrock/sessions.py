"""What ProgRock does with Django's sessions.

It keeps a visitor's random id in them, makes the cookie of a new one for a WebSocket handshake, and
closes the sockets of a session that logs out.
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
#: The channel layer group for news of sessions. Every web process is in it.
SESSIONS = "progrock.sessions"


def make_visitor(session: MutableMapping[str, Any] | SessionBase) -> bool:
    """Give the session a visitor's id if it has none; returns whether it was changed."""
    if VISITOR in session:
        return False
    session[VISITOR] = str(uuid.uuid4())
    return True


def save(session: SessionBase) -> None:
    """Save the session. A new one costs one INSERT and no query.

    Django first asks whether its random key is taken. The INSERT would tell as well.
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
    """How messages name a session, the lasting name first. May query the database.

    The visitor's id lasts as long as the session. The key changes with a login, or with a new
    password; it counts for sessions without a visitor, and where only the cookie is left of a
    session. Both are secrets, so they travel as digests.
    """
    found = []
    if visitor := session.get(VISITOR):
        found.append(_digest(f"visitor:{visitor}"))
    if key := getattr(session, "session_key", None):
        found.append(_digest(str(key)))  # a store of sessions may have other keys than strings
    return found


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


@receiver(user_logged_out)
def session_ended(sender: Any, request: Any, **kwargs: Any) -> None:
    """Close the sockets of a session that ends, in all web processes."""
    try:  # Django signs the user out after its receivers, so nothing may come out of this one
        if (session := getattr(request, "session", None)) is not None:
            _close_sockets(digests(session))
    except Exception as error:
        _stay_open(error)


@receiver(user_logged_in)
def session_begun(sender: Any, request: Any, **kwargs: Any) -> None:
    """Give the session its lasting id, and close the sockets of the session whose place it took.

    Django has thrown away the session of another user by now, so only the cookie still names it.
    The session of a visitor who signs in goes on: it has its visitor's id already.
    """
    try:  # a login, too, must not fail because of us
        session = getattr(request, "session", None)
        if session is None or not make_visitor(session):
            return
        key = getattr(request, "COOKIES", {}).get(settings.SESSION_COOKIE_NAME)
        if key and key != session.session_key:
            _close_sockets([_digest(key)])
    except Exception as error:
        _stay_open(error)


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
    except Exception as error:  # whatever it is, nobody else would log it
        _stay_open(error)


def _stay_open(error: Exception) -> None:
    known = isinstance(error, BrokerError)
    logger.warning(
        "sockets of a session that has ended stay open until they reconnect: %s",
        error if known else type(error).__name__,
        exc_info=None if known else error,
    )
