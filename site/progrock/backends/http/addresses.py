"""Where a request goes: an address made of `url` and a path with holes, within fixed limits.

No value of an answer or of a job can lead a worker to another server than those in the file.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from progrock.backends.templates import Hole, Scope, Text, Unfillable, as_text

#: What `{+handle}` keeps of RFC 6570's reserved characters: `?` and `#` would end the path.
_KEPT = "/:@!$&'()*+,;=~%"
_PORTS = {"http": 80, "https": 443}
_PRINTABLE = re.compile(r"[!-\[\]-~]+")  # printable ASCII without a backslash
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")  # what stands in a path as it is
Origin = tuple[str, str, int]
#: What is wanted of an address in the file, for errors.
ADDRESS = "an address such as https://render.internal/v1, without ? and #"
SERVER = "an address such as http://proxy.internal:3128 or https://login.internal/token"


class Address(NamedTuple):
    """A whole address, and whether it is on the backend's own server."""

    url: str
    own: bool


def is_address(text: str) -> bool:
    """Whether a text is an http or https address of a server, without user, `?` and `#`."""
    try:
        origin_of(text)
    except ValueError:
        return False
    return not set("?#{}") & set(text)


def is_server(text: str) -> bool:
    """Whether a text is an http or https address. That of a proxy may have user and password."""
    return re.fullmatch(r"https?://[!-\[\]-~]+", text) is not None


def origin_of(address: str) -> Origin:
    """Scheme, host and port of an absolute address. Raises ValueError where it is none."""
    if not _PRINTABLE.fullmatch(address):
        raise ValueError("a character that no address may hold")
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname or "@" in parts.netloc:
        raise ValueError("no address of a server")
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("the port 0")
    return parts.scheme, parts.hostname, port


@dataclass(frozen=True)
class Servers:
    """The backend's server at `url`, as the file has it, and the `others` that are allowed."""

    url: str = field(repr=False)  # a variable may have put a secret into it
    others: Collection[str] = ()
    _base: str = field(init=False, repr=False)
    _origin: Origin = field(init=False)
    _allowed: frozenset[Origin] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_base", self.url.rstrip("/"))
        object.__setattr__(self, "_origin", origin_of(self.url))
        object.__setattr__(self, "_allowed", frozenset(map(origin_of, self.others)))

    def address(self, path: Text, scope: Scope) -> Address:
        """The address of a request. Raises Unfillable for a value that may not stand there."""
        if (around := path.around_handle) and scope.job and _PLAIN.fullmatch(scope.job.handle):
            before, behind = around  # the fast way, which serves most addresses
            return Address(self._base + before + scope.job.handle + behind, own=True)
        first = path.parts[0]
        if isinstance(first, Hole) and first.kind == "+":
            rest = Text(path.parts[1:]).filled(scope, put_in_path)
            return self._resolved(first, as_text(first, scope.find(first)), rest)
        filled = path.filled(scope, put_in_path)
        _refuse_climbing(filled.partition("?")[0], path.holes)
        if "#" in filled or not _PRINTABLE.fullmatch(filled):  # only a ${file:…} can bring one
            raise Unfillable("the path has a character that no path may hold")
        return Address(self._base + filled, own=True)

    def _resolved(self, hole: Hole, value: str, rest: str) -> Address:
        """The address of a value, absolute or relative to `url` (RFC 3986), with `rest` behind."""
        wrong = f"{hole.name} is an address that may not be asked"
        if not (value := quote(value.strip(), safe=_KEPT + "?#[]")):
            raise Unfillable(f"{hole.name} is empty")
        middle = ("?" in value and rest and not rest.startswith("&")) or "#" in value + rest
        if middle:
            raise Unfillable(f"{wrong}, because it has ? or # in the middle")
        _refuse_climbing(value.partition("?")[0], [hole])
        _refuse_climbing(rest.partition("?")[0], [hole])
        try:
            url = urljoin(self.url, value) + rest
            origin = origin_of(url)
        except ValueError as error:
            raise Unfillable(f"{wrong} ({error})") from None
        if origin == self._origin:
            return Address(url, own=True)
        if origin in self._allowed and (origin[0] == "https" or self._origin[0] == "http"):
            return Address(url, own=False)
        raise Unfillable(
            f"{wrong}, because it leads to another server, which `origins` does not name"
        )


def put_in_path(hole: Hole, found: Any) -> str:
    """A value as it stands in a path, percent-encoded. `{+…}` keeps the characters of _KEPT.

    Handles are encoded one by one and joined with commas. Raises Unfillable for an empty value,
    because the path would then mean something else.
    """
    if hole.root == "handles":
        return ",".join(quote(as_text(hole, each), safe="") for each in found)
    if not (value := as_text(hole, found)):
        raise Unfillable(f"{hole.name} is empty")
    if hole.kind != "+":
        return quote(value, safe="")
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", value), safe=_KEPT)


def _refuse_climbing(path: str, holes: Sequence[Hole]) -> None:
    """Raise Unfillable where a part of the path is `.` or `..`, even percent-encoded many times.

    Some servers skip blanks and control characters, or end a part at `;` or at an encoded `?`, `#`
    or NUL.
    """
    if not holes or ("." not in path and "%" not in path):
        return
    plain = path
    while (decoded := unquote(plain)) != plain:
        plain = decoded
    parts = re.split(r"[/\\]", re.sub(r"[\x01-\x20\x7f]", "", plain))
    if any(re.split("[;?#\0]", part, maxsplit=1)[0] in (".", "..") for part in parts):
        names = " or ".join(sorted({hole.name for hole in holes}))
        raise Unfillable(f"{names} climbs in the path by . or ..")
