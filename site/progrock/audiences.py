"""Who may see a job: audiences of a socket or request, and the groups that changes travel in."""

import hashlib
import logging
import uuid
import zlib
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from django.contrib.auth.signals import user_logged_out
from django.dispatch import receiver
from django.utils.module_loading import import_string

from progrock import conf
from progrock.broker import blocking
from progrock.broker.errors import BrokerError

logger = logging.getLogger(__name__)

#: The key, inside a session, of a visitor's random id. Never the session's own key: that is a secret, and a login changes it.
VISITOR = "progrock_visitor"
#: The channel layer group that every web process is in, for what concerns sessions.
SESSIONS = "progrock.sessions"


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """The audiences of an ASGI scope with `user` and `session`: the user, then the visitor. New jobs belong to the first."""
    found = []
    user = scope.get("user")
    if user is not None and user.is_authenticated:
        found.append(f"user:{user.pk}")
    if (found or conf.anonymous()) and (visitor := scope["session"].get(VISITOR)):
        found.append(f"visitor:{visitor}")
    return found


def audiences_of(scope: Mapping[str, Any]) -> list[str]:
    """What the project's own function (`PROGROCK_AUDIENCES`) says of a scope; may query the database."""
    function: Callable[[Mapping[str, Any]], list[str]] = import_string(conf.audiences_path())
    return function(scope)


def audiences_of_request(request: Any) -> list[str]:
    """The audiences of an HttpRequest."""
    return audiences_of({"user": getattr(request, "user", None), "session": request.session})


def make_visitor(session: MutableMapping[str, Any]) -> bool:
    """Give the session a visitor's id where it has none; returns whether it was changed."""
    if VISITOR in session:
        return False
    session[VISITOR] = str(uuid.uuid4())
    return True


def feed_of(audience: str) -> str:
    """The channel layer group in which changes for an audience travel."""
    return f"progrock.feed.{zlib.crc32(audience.encode()) % conf.feeds()}"


def session_mark(session_key: str) -> str:
    """A session's name in messages: a digest, since the key itself is a secret."""
    return hashlib.sha256(session_key.encode()).hexdigest()


@receiver(user_logged_out)
def close_sockets(sender: Any, request: Any, **kwargs: Any) -> None:
    """Tell all web processes that a session has ended."""
    key = getattr(getattr(request, "session", None), "session_key", None)
    if not key:
        return
    try:
        blocking.group_send(
            conf.amqp_url(), SESSIONS, {"type": "session.ended", "session": session_mark(key)}
        )
    except BrokerError as error:
        logger.warning(
            "sockets of a session that logged out stay open until they reconnect: %s", error
        )
