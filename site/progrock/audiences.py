"""Who may see a job: the audiences of a socket or a request, and the feeds of their changes."""

import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import get_user
from django.utils.module_loading import import_string

from progrock import conf
from progrock.sessions import VISITOR, make_visitor, set_cookie


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """The audiences of an ASGI scope with `user` and `session`: the user, then the visitor.

    New jobs belong to the first.
    """
    found = []
    user = scope.get("user")
    if user is not None and user.is_authenticated:
        found.append(f"user:{user.pk}")
    if (found or conf.anonymous()) and (visitor := scope["session"].get(VISITOR)):
        found.append(f"visitor:{visitor}")
    return found


def audiences_of(scope: Mapping[str, Any]) -> list[str]:
    """What the project's own function (`PROGROCK_AUDIENCES`) returns. It may query the database."""
    function: Callable[[Mapping[str, Any]], list[str]] = import_string(conf.audiences_path())
    return function(scope)


def audiences_of_request(request: Any) -> list[str]:
    """The audiences of an HttpRequest."""
    return audiences_of({"user": getattr(request, "user", None), "session": request.session})


def identify(scope: dict[str, Any]) -> tuple[list[str], str | None]:
    """The audiences of a WebSocket handshake, and the cookie to set when its session is new.

    Queries the database.
    """
    session = scope["session"]
    if "user" not in scope:  # a project's own middleware may have set one
        request: Any = SimpleNamespace(session=session)  # get_user reads nothing else
        scope["user"] = get_user(request)
    cookie = None
    if conf.anonymous() and make_visitor(session):
        session.save()
        cookie = set_cookie(session)
    return audiences_of(scope), cookie


def feed_of(audience: str) -> str:
    """The channel layer group on which changes for an audience travel."""
    return f"progrock.feed.{zlib.crc32(audience.encode()) % conf.feeds()}"
