"""A value out of an answer: a JMESPath expression, a header, a text with holes, or a share."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jmespath
import orjson

from progrock.backends.base import percent
from progrock.backends.errors import ConfigError
from progrock.backends.templates import MISSING, Hole, Scope, Text, text


class Seen(NamedTuple):
    """What a value is looked up in: JSON values, headers by their names in lower case, the job.

    `body` is MISSING where an answer has none that can be read.
    """

    body: Any
    headers: Mapping[str, str]
    scope: Scope


class Value(NamedTuple):
    """How to find one value. `written` is what the file says; `find` returns None for no value.

    `find` may raise whatever JMESPath raises for values that an expression does not expect.
    `holes` are those of a text.
    """

    written: str
    find: Callable[[Seen], Any]
    holes: Sequence[Hole] = ()


def expression(written: str) -> Value:
    """A JMESPath expression into the body. Raises ValueError for text that is none."""
    search = compile_expression(written)

    def find(seen: Seen) -> Any:
        return None if seen.body is MISSING else search(seen.body)

    return Value(written, find)


def header(name: str) -> Value:
    """A header of the answer."""
    lower = name.lower()
    return Value(f"the header {name}", lambda seen: seen.headers.get(lower))


def written_text(where: str, written: str, allowed: Collection[str]) -> Value:
    """A text with holes, as for an id that we choose; `allowed` are their roots.

    Raises ConfigError.
    """
    template: Text = text(where, written, allowed, variables=False)
    return Value(written, lambda seen: template.filled(seen.scope), template.holes)


class Share(NamedTuple):
    """How much is done, of how much there is."""

    done: Value
    of: Value

    def value(self, scale: float) -> Value:
        """The same as a progress from 0 to `scale`."""

        def find(seen: Seen) -> Any:
            whole, part = number(self.of.find(seen)), number(self.done.find(seen))
            return None if not whole or part is None else part / whole * scale

        holes = (*self.done.holes, *self.of.holes)
        return Value(f"{self.done.written} of {self.of.written}", find, holes)


def number(value: Any) -> float | None:
    """A finite number of JSON, or a text that is one; else None."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= 1e300 else None


def progress(value: Any, scale: float) -> float | None:
    """A backend's progress as 0 to 100. The texts `2/4` and `45%` are understood."""
    if value is None:
        return None
    if isinstance(value, str):
        if ratio := re.fullmatch(r"\s*([\d.]+)\s*/\s*([\d.]+)\s*", value):
            done, whole = number(ratio[1]), number(ratio[2])
            return None if done is None or not whole else percent(done, whole)
        if value.rstrip().endswith("%"):
            return percent(number(value.rstrip()[:-1]), 100.0)
        value = number(value)
    return percent(value, scale)


def as_text(value: Any) -> str | None:
    """A value as text: text and None stay as they are, all else becomes JSON. Raises TypeError."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def compile_expression(written: str) -> Callable[[Any], Any]:
    """A JMESPath expression as a function. Raises ValueError for text that is none.

    Paths of plain names such as `error.message` are followed here. This is faster than JMESPath's
    own interpreter, and finds the same.
    """
    compiled: Callable[[Any], Any] = jmespath.compile(written).search
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", written, re.ASCII):
        return compiled
    names = written.split(".")

    def walk(value: Any) -> Any:
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return walk


def advice(where: str, written: str) -> ConfigError | None:
    """What to write in place of an expression that JMESPath does not read as it was meant."""
    if found := re.fullmatch(r"headers?\.([A-Za-z][\w-]*)", written):
        return ConfigError(
            where, found=repr(written), wanted=f'{{ header = "{found[1]}" }} for a header'
        )
    if found := re.fullmatch(
        r"(?:100\s*\*\s*)?\(?([\w.]+)\s*/\s*([\w.]+)\)?(?:\s*\*\s*100)?", written
    ):
        done, of = found.groups()
        return ConfigError(
            where,
            found=repr(written),
            wanted=f'{{ done = "{done}", of = "{of}" }}, which `progress` understands',
        )
    if re.fullmatch(r"[\w-]+(\.[\w-]+)*", written) and "-" in written:
        names = (f'"{name}"' if "-" in name else name for name in written.split("."))
        quoted = "'" + ".".join(names) + "'"
        return ConfigError(
            where, found=repr(written), wanted=f"{quoted}, because a name with a dash is quoted"
        )
    if re.search(r"[\w)\]\s][*/+]\s*[\w(]|\s-\s", written):
        return ConfigError(
            where,
            found=repr(written),
            wanted='an expression without arithmetic; progress knows { done = "…", of = "…" }'
            " and progress_scale",
        )
    return None
