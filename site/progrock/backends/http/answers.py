"""An answer over HTTP: its status, its headers, and its body as JSON. No network here."""

from collections.abc import Mapping
from typing import Any

from progrock.backends.errors import BackendError
from progrock.backends.http.values import Seen
from progrock.backends.templates import MISSING, Scope
from progrock.storable import read_leniently, read_strictly


class Answer:
    """An answer of a backend. `headers` finds a name in lower case.

    `raw` is the body, and None where it is larger than `limit` bytes. `wait` is how many seconds
    the backend asks to wait before the next request; None where it does not say so.
    """

    __slots__ = ("_json", "headers", "limit", "raw", "status", "wait")

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        raw: bytes | None,
        *,
        limit: int = 0,
        wait: float | None = None,
    ) -> None:
        self.status, self.headers, self.raw = status, headers, raw
        self.limit, self.wait = limit, wait
        self._json: Any = ...

    @property
    def body(self) -> bytes:
        """The body. Raises BackendError where it is too large."""
        if self.raw is None:
            raise BackendError(self.too_large, status=self.status, retry_after=self.wait)
        return self.raw

    @property
    def too_large(self) -> str:
        """The sentence for a body that is larger than `limit`."""
        return f"the backend's answer is larger than {self.limit:,} bytes"

    @property
    def json(self) -> Any:
        """The body as JSON values, or MISSING where it is too large or not JSON."""
        if self._json is ...:
            try:
                self._json = parse(self.raw) if self.raw else MISSING
            except BackendError:
                self._json = MISSING
        return self._json

    @property
    def is_html(self) -> bool:
        """Whether the body is a page for people, by its type or its first characters."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml"):
            return True
        return (self.raw or b"")[:100].lstrip().lower().startswith((b"<!doctype html", b"<html"))

    def seen(self, scope: Scope) -> Seen:
        """What values are looked up in."""
        return Seen(self.json, self.headers, scope)


def parse(body: bytes) -> Any:
    """The body as JSON values. Raises BackendError.

    Many servers write JSON with mistakes. `read_leniently` says which of them are understood.
    """
    try:
        return read_strictly(body)
    except ValueError:
        pass
    try:
        return read_leniently(body)
    except (ValueError, TypeError, RecursionError):
        raise BackendError("the backend answered with something that is not JSON") from None
