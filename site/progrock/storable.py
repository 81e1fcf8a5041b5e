"""Makes of a backend's answer what both databases can hold: text without NUL, results as JSON."""

import re
from typing import Any, NamedTuple

import orjson

LONGEST_MESSAGE = 500
LONGEST_ERROR = 2000

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
#: A result is dumped so many lists deep: orjson limits the depth, and the ledger adds some.
_DEPTH = 4


class Result(NamedTuple):
    """A job's result; `size` is its length in bytes of compact JSON, None without a result."""

    value: Any
    size: int | None


NO_RESULT = Result(None, None)


def storable_text(text: object, longest: int) -> str:
    """Text cut to `longest` characters, without the NUL that PostgreSQL refuses; empty for None."""
    whole = "" if text is None else str(text)
    return whole.encode("utf-8", "replace").decode().replace("\0", "")[:longest]


def storable_result(value: object) -> Result:
    """The result without the NUL that PostgreSQL refuses.

    Raises TypeError where JSON cannot hold it, or where it is nested too deep.
    """
    if value is None:
        return NO_RESULT
    dumped = orjson.dumps([[[[value]]]])
    if rb"\u0000" in dumped:
        value = orjson.loads(_NUL.sub(rb"\1", dumped))[0][0][0][0]
        dumped = orjson.dumps([[[[value]]]])
    return Result(value, len(dumped) - 2 * _DEPTH)
