"""For PROGROCK_AUDIENCES: what docs/http.md shows. A token is an audience, on both doors."""

from collections.abc import Mapping
from typing import Any

from progrock import audiences as own

TOKEN = "Bearer of-the-build"


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """That of the service whose token it is, or else those of the session."""
    if dict(scope["headers"]).get(b"authorization", b"").decode("latin-1") == TOKEN:
        return ["service:build"]
    return own.audiences(scope)
