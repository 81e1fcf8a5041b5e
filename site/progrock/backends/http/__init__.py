"""Backends over HTTP: `table` says what their table may hold, `client` asks them.

`HttpBackend` is loaded when somebody first names it. Processes that read the backends' file but
poll nothing, such as the web server, then need not load aiohttp.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progrock.backends.http.client import HttpBackend
    from progrock.backends.http.outgoing import Outgoing

__all__ = ["HttpBackend", "Outgoing"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from progrock.backends.http import client

    return getattr(client, name)
