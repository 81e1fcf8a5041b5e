"""Turns a backend's answer into what both databases can hold: text without NUL, results as JSON."""

import json
import math
import re
from typing import Any, NamedTuple

import orjson

LONGEST_MESSAGE = 500
LONGEST_ERROR = 2000

_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
#: Digits that may be a whole number of more than 64 bits.
_LONG_NUMBER = re.compile(rb"-[0-9]{19}|[0-9]{20}")
#: A result is checked inside so many lists, because orjson limits the depth and a frame adds some.
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
    """The result as plain JSON, without the NUL that PostgreSQL refuses, and its size.

    Raises TypeError where JSON cannot hold it, or where it is nested too deep.
    """
    if value is None:
        return NO_RESULT
    try:
        dumped = orjson.dumps([[[[value]]]])
    except TypeError:  # half a character or a whole number of more than 64 bits can be mended
        try:
            value = read_leniently(json.dumps(value, default=_as_orjson))
        except (ValueError, RecursionError):
            raise TypeError("JSON cannot hold it") from None
        dumped = orjson.dumps([[[[value]]]])
    if rb"\u0000" in dumped:
        value = orjson.loads(_NUL.sub(rb"\1", dumped))[0][0][0][0]
        dumped = orjson.dumps([[[[value]]]])
    return Result(value, len(dumped) - 2 * _DEPTH)


def _as_orjson(value: object) -> Any:
    """A date, a UUID and the like as plain JSON. Raises TypeError."""
    return orjson.loads(orjson.dumps(value))


def read_strictly(text: bytes) -> Any:
    """The value of a JSON text in the strict sense. Raises ValueError for anything else.

    A whole number of more than 64 bits is refused as well, because orjson would silently read it as
    a float.
    """
    value = orjson.loads(text)
    if _LONG_NUMBER.search(text):
        try:
            json.loads(text, parse_int=_narrow)
        except RecursionError:
            raise ValueError("it is nested too deep") from None
    return value


def read_leniently(text: str | bytes) -> Any:
    """The value of a JSON text that Python's `json` accepts, made fit for JSON in the strict sense.

    NaN and Infinity become None. Half of a surrogate pair (`"\\ud83d"`) becomes U+FFFD, because it
    is no character. A whole number of more than 64 bits becomes text, digit for digit, because as a
    number it would lose its last digits.
    Raises ValueError for what is no JSON, and RecursionError where it is nested too deep.
    """
    value = json.loads(text, parse_constant=_nothing, parse_int=_whole, parse_float=_finite)
    whole = json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
    return orjson.loads(whole.decode("utf-16-le", "replace"))


def _nothing(name: str) -> None:
    """Turn NaN and Infinity into None."""


def _is_narrow(digits: str) -> bool:
    return len(digits) <= 20 and -(2**63) <= int(digits) < 2**64


def _narrow(digits: str) -> int:
    if not _is_narrow(digits):
        raise ValueError("a whole number has more than 64 bits; write it as a string")
    return int(digits)


def _whole(digits: str) -> int | str:
    return int(digits) if _is_narrow(digits) else digits


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None
