"""Who may see a job: the audiences of a socket or a request, and the feeds of their changes."""

import zlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from django.contrib.auth import get_user
from django.contrib.auth.base_user import AbstractBaseUser
from django.http import HttpRequest
from django.utils.module_loading import import_string

from progrock import conf
from progrock.errors import Refused
from progrock.gate import (
    A_USER,
    A_VISITOR,
    audience_of_name,
    audience_of_user,
    checked_audiences,
    not_an_audience,
)
from progrock.sessions import VISITOR, digests, make_visitor, save, set_cookie


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """The audiences of an ASGI scope with `user` and `session`: the user, then the visitor.

    A new job belongs to the first of them.
    """
    found = []
    user = scope.get("user")
    if user is not None and user.is_authenticated:
        found.append(f"{A_USER}{user.pk}")
    if (found or conf.anonymous()) and (visitor := scope["session"].get(VISITOR)):
        found.append(f"{A_VISITOR}{visitor}")
    return found


def audiences_of(scope: Mapping[str, Any]) -> list[str]:
    """What the project's own function (`PROGROCK_AUDIENCES`) returns. It may query the database.

    Raises ImproperlyConfigured where it does not return a list of usable names.
    """
    path = conf.audiences_path()
    function: Callable[[Mapping[str, Any]], Any] = import_string(path)
    return checked_audiences(function(scope), path)


def audiences_of_request(request: Any) -> list[str]:
    """The audiences of an HttpRequest. Without a session they are those of its user alone."""
    return audiences_of(scope_of(request))


def scope_of(request: Any) -> dict[str, Any]:
    """An HttpRequest in the form of an ASGI scope, under WSGI too; `type` is "http"."""
    return {
        "type": "http",
        "method": request.method,
        "path": request.path,
        "query_string": request.META.get("QUERY_STRING", "").encode("latin-1", "replace"),
        "headers": [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
            for name, value in request.headers.items()
        ],
        "cookies": request.COOKIES,
        "session": getattr(request, "session", {}),
        "user": getattr(request, "user", None),
    }


def audience_of(value: Any) -> str:
    """The audience that a string, a user or an HttpRequest stands for.

    A request stands for its first audience. A visitor without a login gets an id in the session, as
    on our page. Raises Refused for a value that has no audience, TypeError for any other type.
    """
    if isinstance(value, str):
        return audience_of_name(value)
    if isinstance(value, AbstractBaseUser):
        return audience_of_user(value)
    if getattr(value, "is_anonymous", False) is True:
        raise Refused("login_required", "An anonymous user has no audience: sign in first.")
    if not isinstance(value, HttpRequest):
        raise not_an_audience(value)
    found = audiences_of_request(value)
    if not found and hasattr(value, "session") and conf.anonymous() and make_visitor(value.session):
        found = audiences_of_request(value)
    if not found:
        raise not_admitted(getattr(value, "user", None))
    return found[0]


def not_admitted(user: Any) -> Refused:
    """The refusal for a user, or None, whose requests and sockets have no audience.

    Somebody who is signed in is not told to sign in, because it is PROGROCK_AUDIENCES that has
    returned no audience.
    """
    if user is not None and user.is_authenticated:
        return Refused("no_audience", "You are signed in, but your account may see no jobs here.")
    return Refused("login_required", "Sign in to run jobs and to see yours.")


def identify(scope: dict[str, Any]) -> tuple[list[str], str | None]:
    """The audiences of a WebSocket handshake, and the cookie to set when its session is new.

    Also puts the names of the session into the scope, as `progrock.sessions`. Queries the database.
    """
    session = scope["session"]
    _find_user(scope)
    cookie = None
    # An earlier try, which failed on a conflict in the database, may have made the visitor's id
    # without saving it.
    if conf.anonymous() and (make_visitor(session) or session.modified):
        save(session)
        cookie = set_cookie(session)
    scope["progrock.sessions"] = digests(session)
    return audiences_of(scope), cookie


def known_audiences(scope: dict[str, Any]) -> list[str]:
    """The audiences of a request with a session. A new visitor gets no id, and so has no audience.

    Also puts the names of the session into the scope, as `identify` does. Queries the database.
    """
    _find_user(scope)
    scope["progrock.sessions"] = digests(scope["session"])
    return audiences_of(scope)


def _find_user(scope: dict[str, Any]) -> None:
    if "user" not in scope:  # a project's own middleware may have set one
        request: Any = SimpleNamespace(session=scope["session"])  # get_user reads nothing else
        scope["user"] = get_user(request)


def feed_of(audience: str) -> str:
    """The group of the channel layer in which an audience's changes travel."""
    return f"progrock.feed.{zlib.crc32(audience.encode()) % conf.feeds()}"
