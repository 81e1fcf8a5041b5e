"""Texts of the backends' file with holes, such as "/tasks/{handle}".

A hole is filled anew for each request. A variable, such as `${TOKEN}`, is filled once by `bound`,
which only workers call. A file, such as `${file:/run/secrets/token}`, is read when it has changed.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from progrock.backends.base import JobView
from progrock.backends.errors import BackendError, ConfigError

#: A value that is not there. It differs from None, which is JSON's null.
MISSING: Any = type("Missing", (), {"__repr__": lambda _: "nothing"})()

ROOTS = ("job", "handle", "handles", "params", "answer", "header")
_DOTTED = ("params", "answer", "header")
_PART = re.compile(
    r"\$\{file:(?P<file>[^{}]+)\}"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}"
    r"|\{(?P<kind>[#+]?)(?P<path>[A-Za-z_][\w-]*(?:\.[\w-]+)*)\}"
)


class Unfillable(BackendError):
    """Raised where a request cannot be made, because a value is missing or may not stand there."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, sent=False)


@dataclass(frozen=True)
class Hole:
    """`{params.x}` has the root `params` and the path `("x",)`. `kind` is "", "#" or "+"."""

    root: str
    path: tuple[str, ...] = ()
    kind: str = ""

    @property
    def name(self) -> str:
        """The name as people write it, for instance "params.x"."""
        return ".".join((self.root, *self.path))


class Filled(str):
    """The value of a variable. It may be a secret, so no repr shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


@dataclass(frozen=True)
class Variable:
    """`${NAME:-default}`: a variable of the environment."""

    name: str
    default: str | None


class File:
    """`${file:/run/secrets/token}`: a file that is read again when it has changed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._text = ""

    def read(self) -> str:
        """The text of the file without the line break at its end. Raises OSError or ValueError.

        A file that cannot be read any more keeps the text that it had.
        """
        try:
            stat = Path(self.path).stat()
            if (stamp := (stat.st_mtime_ns, stat.st_size)) != self._stamp:
                self._text = Path(self.path).read_text(encoding="utf-8").rstrip("\r\n")
                self._stamp = stamp
        except (OSError, ValueError):
            if self._stamp is None:
                raise
        return self._text


@dataclass(slots=True)
class Scope:
    """What the holes of one request stand for. `headers` have their names in lower case."""

    job: JobView | None = None
    handles: Sequence[str] = ()
    answer: Any = None
    headers: Mapping[str, str] | None = None

    def find(self, hole: Hole) -> Any:
        """The value of a hole, or MISSING."""
        found: Any
        if hole.root == "handles":
            return [_as_number(each) if hole.kind == "#" else each for each in self.handles]
        if hole.root == "header":
            return (self.headers or {}).get(hole.path[0].lower(), MISSING)
        if hole.root == "answer":
            found = self.answer
        elif self.job is None:
            return MISSING
        elif hole.root == "handle":
            return _as_number(self.job.handle) if hole.kind == "#" else self.job.handle
        elif hole.root == "job":
            return self.job.id
        else:
            found = self.job.params
        for name in hole.path:
            if isinstance(found, Mapping):
                found = found.get(name, MISSING)
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                return MISSING
        return found


@dataclass(frozen=True, slots=True)
class Text:
    """A text with holes and variables.

    `quoted` is None for a plain text. In a text that is JSON or GraphQL itself, values are put in
    as JSON, because a quotation mark in a value would else end the string that the value stands in.
    `quoted` then has the indexes of the parts that stand inside such a string.
    """

    parts: tuple[str | Hole | Variable | File, ...]
    quoted: frozenset[int] | None = None
    #: The holes, in their order.
    holes: tuple[Hole, ...] = field(init=False, repr=False, compare=False)
    #: Whether the text is the same at each request.
    is_constant: bool = field(init=False, repr=False, compare=False)
    #: The texts before and behind the handle, if that is all that is filled in; else None.
    around_handle: tuple[str, str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        holes = tuple(part for part in self.parts if isinstance(part, Hole))
        texts = [part if isinstance(part, str) else None for part in self.parts]
        around = None
        if holes == (Hole("handle"),) and texts.count(None) == 1:
            at = texts.index(None)
            around = "".join(filter(None, texts[:at])), "".join(filter(None, texts[at:]))
        object.__setattr__(self, "holes", holes)
        object.__setattr__(self, "is_constant", None not in texts)
        object.__setattr__(self, "around_handle", around)

    @property
    def only(self) -> Hole | None:
        """The hole, where the text is nothing but one."""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], Hole) else None

    @property
    def written(self) -> str:
        """The text as it was written, for one without variables."""
        return "".join(
            part if isinstance(part, str) else f"{{{part.kind}{part.name}}}"
            for part in self.parts
            if isinstance(part, str | Hole)
        )

    def bound(self, where: str, environ: Mapping[str, str]) -> "Text":
        """The text with its variables filled in. Files are read once, to see that they are there.

        An empty variable counts as unset. Raises ConfigError, which never shows a value.
        """
        parts: list[str | Hole | File] = []
        for index, part in enumerate(self.parts):
            if isinstance(part, Variable):
                if (value := environ.get(part.name) or part.default) is None:
                    raise ConfigError(
                        where,
                        found=f"no {part.name} in the environment",
                        wanted=f"a value for it, or a default such as ${{{part.name}:-text}}",
                    )
                parts.append(Filled(self._escaped(index, value)))
                continue
            if isinstance(part, File):
                try:
                    part.read()
                except (OSError, ValueError) as error:
                    reason = getattr(error, "strerror", None) or "it is not UTF-8"
                    raise ConfigError(
                        where, found=f"{part.path}: {reason}", wanted="a text file that can be read"
                    ) from None
            parts.append(part)
        return Text(tuple(parts), self.quoted)

    def filled(self, scope: Scope, put: Callable[[Hole, Any], str] | None = None) -> str:
        """The text with its holes filled in. `put`, if given, writes the values.

        Raises Unfillable for a value that is missing, or that no text can hold.
        """
        filled = []
        for index, part in enumerate(self.parts):
            if isinstance(part, str):
                filled.append(part)
            elif isinstance(part, File):
                filled.append(self._escaped(index, part.read()))
            elif not isinstance(part, Hole):
                raise TypeError(f"{part} was not bound")
            elif put is not None:
                filled.append(put(part, scope.find(part)))
            elif self.quoted is None or index in self.quoted:
                filled.append(self._escaped(index, as_text(part, scope.find(part))))
            else:
                filled.append(_as_json(part, scope.find(part)))
        return "".join(filled)

    def _escaped(self, index: int, value: str) -> str:
        """The value, escaped if its part stands inside a JSON string."""
        if self.quoted is None or index not in self.quoted:
            return value
        return orjson.dumps(value).decode()[1:-1]


def as_text(hole: Hole, value: Any) -> str:
    """A value as it stands inside a longer text.

    Text stays as it is, handles are joined with commas, and anything else becomes JSON. Raises
    Unfillable where there is no value, or one that no text can hold.
    """
    if isinstance(value, str):
        if not value.isascii() and not value.isprintable() and not _is_unicode(value):
            raise Unfillable(f"{hole.name} has half of a character")
        return value
    if value is None:
        raise Unfillable(f"{hole.name} is missing")
    if hole.root == "handles" and value is not MISSING:
        return ",".join(map(str, value))
    return _as_json(hole, value)


def _as_json(hole: Hole, value: Any) -> str:
    if value is MISSING:
        raise Unfillable(f"{hole.name} is missing")
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested too deeply, for instance
        raise Unfillable(f"{hole.name} has a value that JSON cannot hold") from None


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def text(
    where: str,
    written: str,
    allowed: Collection[str],
    *,
    path: bool = False,
    variables: bool = True,
) -> Text:
    """A text of the file, taken apart. `allowed` are the roots of the holes that may stand in it.

    Raises ConfigError for any other hole, and for a variable where `variables` is false.
    """
    parts: list[str | Hole | Variable | File] = []
    end = 0
    for match in _PART.finditer(written):
        if match.start() > end:
            parts.append(written[end : match.start()])
        end = match.end()
        if match["path"] is None and not variables:
            wanted = "a text without variables, which only workers read"
            raise ConfigError(where, found=match[0], wanted=wanted)
        if match["file"] is not None:
            parts.append(File(match["file"]))
        elif match["name"] is not None:
            parts.append(Variable(match["name"], match["default"]))
        else:
            parts.append(_hole(where, match, allowed, path))
    if end < len(written) or not parts:
        parts.append(written[end:])
    return Text(tuple(parts))


def is_hole(written: str) -> bool:
    """Whether a text is nothing but one hole."""
    whole = _PART.fullmatch(written)
    return whole is not None and whole["path"] is not None


def without_parts(written: str) -> str:
    """A text with `0` in place of each hole and variable."""
    return _PART.sub("0", written)


def _hole(where: str, match: "re.Match[str]", allowed: Collection[str], path: bool) -> Hole:
    root, *rest = match["path"].split(".")
    hole = Hole(root, tuple(rest), match["kind"])
    here = ", ".join(f"{{{name}}}" for name in allowed) or "no hole"
    wanted = None
    if root not in ROOTS:
        close = difflib.get_close_matches(root, allowed, 1)
        wanted = f"{{{close[0]}}}" if close else here
        wanted += f'; or "{{ {match["path"]} }}" with spaces, where no hole is meant'
    elif root not in allowed:
        wanted = f"{here} in this place"
    elif root not in _DOTTED and rest:
        wanted = f"{{{root}}}"
    elif root == "header" and len(rest) != 1:
        wanted = "the name of one header, such as {header.location}"
    elif hole.kind == "+" and root == "params":
        wanted = "{params…} without +, because a browser chooses the params"
    elif hole.kind == "+" and not path:
        wanted = "+ only in a path"
    elif hole.kind == "#" and root not in ("handle", "handles"):
        wanted = "# only in {#handle} and {#handles}"
    if wanted is not None:
        raise ConfigError(where, found=f"the hole {match[0]}", wanted=wanted)
    return hole


def _as_number(handle: str) -> int | str:
    """A handle of digits as a number, where the number has the same digits and fits 64 bits."""
    if re.fullmatch(r"0|[1-9][0-9]{0,19}", handle) and (number := int(handle)) < 1 << 64:
        return number
    return handle
