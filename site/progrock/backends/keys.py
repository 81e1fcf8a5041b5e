"""Reads any TOML table by a list of its keys, and says what is wrong with one that does not fit."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from progrock.backends.errors import ConfigError

#: The default of a key that must be there. No value of TOML is an Ellipsis.
REQUIRED: Any = ...


@dataclass(frozen=True)
class Key:
    """What may stand under a key.

    `wanted` describes it in errors, `right` tells whether a value will do, and `make` turns the
    value into what is kept. Both may raise ValueError with the reason. The default is kept as it
    is. `keys` are the keys of a table inside this one; `right` and `make` then get its values.
    """

    wanted: str
    right: Callable[[Any], Any] = bool
    default: Any = REQUIRED
    make: Callable[[Any], Any] = lambda value: value
    keys: "Mapping[str, Key] | None" = None


def read(where: str, table: object, keys: Mapping[str, Key]) -> dict[str, Any]:
    """The value of each key, from the table or by default. Raises ConfigError.

    `where` tells people which table it is. The error for an unknown key names the nearest one.
    """
    if not isinstance(table, dict):
        raise ConfigError(where, found=repr(table), wanted="a table")
    for name in table:
        if name not in keys:
            close = difflib.get_close_matches(name, keys, 1) or [f"one of {', '.join(keys)}"]
            raise ConfigError(where, found=f"the key {name!r}", wanted=close[0])
    values = {}
    for name, key in keys.items():
        if name in table:
            values[name] = _value(f"{where} {name}", table[name], key)
        elif key.default is REQUIRED:
            raise ConfigError(f"{where} {name}", found="nothing", wanted=key.wanted)
        else:
            values[name] = key.default
    return values


def _value(where: str, found: object, key: Key) -> Any:
    value, reason = read(where, found, key.keys) if key.keys else found, ""
    try:
        if key.right(value):
            return key.make(value)
    except (ValueError, TypeError, AttributeError) as error:  # the wrong type, or `make` refuses
        reason = f" ({' '.join(str(error).split())})"
    raise ConfigError(where, found=repr(found), wanted=key.wanted + reason)


def number(least: float, most: float, default: float | None) -> Key:
    """A key for a number from `least` to `most`, both finite."""

    def right(value: Any) -> bool:
        return type(value) in (int, float) and least <= value <= most

    return Key(f"a number from {least:.10g} to {most:.10g}", right, default)


def whole(least: int, most: int, default: int) -> Key:
    """A key for a whole number from `least` to `most`."""
    wanted = f"a whole number from {least} to {most}"
    return Key(wanted, lambda value: type(value) is int and least <= value <= most, default)


def flag(default: bool) -> Key:
    """A key for true or false."""
    return Key("true or false", lambda value: isinstance(value, bool), default)


def string(wanted: str, default: Any = None) -> Key:
    """A key for a text that is not empty."""
    return Key(wanted, lambda value: isinstance(value, str) and bool(value), default)
