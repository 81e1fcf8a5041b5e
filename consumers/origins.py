"""Which pages may open a socket or a stream here: those of the hosts in ALLOWED_HOSTS."""

import logging
from typing import Any
from urllib.parse import urlsplit

from channels.security.websocket import OriginValidator, WebsocketDenier
from django.conf import settings

logger = logging.getLogger(__name__)

#: So many refused origins are logged, each once.
MOST_LOGGED = 100
_refused: set[str] = set()  # those that were logged


class SameSite(OriginValidator):  # type: ignore[misc]  # Channels is untyped
    """Refuses WebSockets of pages of other sites.

    Browsers always send an Origin (RFC 6455, 10.2). Programs send none and are let through.
    """

    def __init__(self, application: Any) -> None:
        super().__init__(application, [])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> Any:
        """Refuse an Origin that is no address at all, because OriginValidator would raise.

        The scope gets `progrock.send`, by which a consumer sends past all further middleware.
        """
        try:
            for name, value in scope["headers"]:
                if name == b"origin":
                    urlsplit(value.decode("latin-1"))
        except ValueError:
            return await WebsocketDenier()(scope, receive, send)
        return await super().__call__({**scope, "progrock.send": send}, receive, send)

    def valid_origin(self, parsed_origin: Any) -> bool:
        """Whether there is no Origin, or its host is in ALLOWED_HOSTS."""
        self.allowed_origins = settings.ALLOWED_HOSTS
        if settings.DEBUG and not self.allowed_origins:  # as Django does it
            self.allowed_origins = [".localhost", "127.0.0.1", "[::1]"]
        if parsed_origin is None or self.validate_origin(parsed_origin):
            return True
        origin = parsed_origin.geturl()[:200]
        if origin not in _refused and len(_refused) < MOST_LOGGED:
            _refused.add(origin)
            logger.warning(
                "refused a page of %r: its host is %r, and wanted is one of ALLOWED_HOSTS: %s",
                origin,
                parsed_origin.hostname,
                ", ".join(map(repr, self.allowed_origins)) or "there is none",
            )
        return False


def same_site(origin: str | None) -> bool:
    """Whether a request with this Origin may be answered. Programs, and most pages, send none."""
    try:
        return bool(SameSite(None).valid_origin(None if origin is None else urlsplit(origin)))
    except ValueError:  # it is no address at all
        return False
