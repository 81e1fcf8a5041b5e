"""The function for PROGROCK_AUDIENCES that docs/http.md shows.

The bearer of a token is an audience, over HTTP and over sockets.
"""

from collections.abc import Mapping
from typing import Any

from progrock import audiences as own

TOKEN = "Bearer of-the-build"


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """The audience of the service whose token it is, or else those of the session."""
    if dict(scope["headers"]).get(b"authorization", b"").decode("latin-1") == TOKEN:
        return ["service:build"]
    return own.audiences(scope)
