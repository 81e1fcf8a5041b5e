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
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.base import SessionBase
from django.dispatch import receiver
from django.http import HttpResponse

from progrock import conf, installation
from progrock.broker import blocking
from progrock.broker.errors import BrokerError
from progrock.broker.names import INSTALLATION

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


def session_digest(session_key: str) -> str:
    """How messages name a session: by a digest, because the key itself is a secret."""
    return hashlib.sha256(session_key.encode()).hexdigest()


@receiver(user_logged_out)
def close_sockets(sender: Any, request: Any, **kwargs: Any) -> None:
    """Tell all web processes that a session has ended."""
    try:  # Django signs the user out after its receivers, so nothing may come out of this one
        key = getattr(getattr(request, "session", None), "session_key", None)
        if not key:
            return
        event = {
            "type": "session.ended",
            "session": session_digest(str(key)),
            INSTALLATION: installation.known(),
        }
        blocking.group_send(conf.amqp_url(), SESSIONS, event, conf.names())
    except Exception as error:
        known = isinstance(error, BrokerError)
        logger.warning(
            "sockets of a session that logged out stay open until they reconnect: %s",
            error if known else type(error).__name__,
            exc_info=None if known else error,
        )
