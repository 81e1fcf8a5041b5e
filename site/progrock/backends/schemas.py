"""The JSON Schema of a backend's params: reads it, and says what is wrong with params.

The library jsonschema is loaded only where a table has a schema.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from progrock.backends.errors import ConfigError, shortened


def read(where: str, written: Any, folder: Path) -> Mapping[str, Any] | None:
    """The schema of a table, which has it inside or names its file. Raises ConfigError.

    The path of a file is relative to `folder`.
    """
    if written is None:
        return None
    schema = written
    if isinstance(written, str):
        path = folder / written
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(
                where, found=f"{written}: {error}", wanted="a file with a JSON Schema"
            ) from None
    from jsonschema.exceptions import SchemaError

    try:
        if not isinstance(schema, dict):
            raise ConfigError(where, found=repr(schema), wanted="a JSON Schema that is an object")
        _validator(orjson.dumps(schema)).check_schema(schema)
    except SchemaError as error:
        at = "".join(f".{each}" for each in error.absolute_path)
        raise ConfigError(
            where + at, found=repr(error.instance), wanted=f"a JSON Schema ({error.message})"
        ) from None
    return schema


def complaint(schema: Mapping[str, Any] | None, params: Any) -> str | None:
    """What is wrong with params, by its path, such as "params.pages: 0 is less than the minimum".

    None where they fit, or where there is no schema.
    """
    if schema is None:
        return None
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        error = best_match(_validator(orjson.dumps(schema)).iter_errors(params))
    except RecursionError:
        return "params are nested too deeply"
    except Unresolvable as reason:
        return (
            f"params cannot be checked, because their schema refers to what is not there: {reason}"
        )
    if error is None:
        return None
    path = "".join(f".{each}" for each in (*error.absolute_path, *_missing(error)))
    return f"params{path}: {shortened(error.message, 300)}"


def _missing(error: Any) -> list[str]:
    """The name of a property that is missing, because the error's path ends before it."""
    match error.validator:
        case "required":
            names = error.validator_value
        case "dependentRequired":
            names = [name for each in error.validator_value.values() for name in each]
        case _:
            names = []
    return [name for name in names if error.message.startswith(f"{name!r} is a ")][:1]


@lru_cache(maxsize=100)
def _validator(schema: bytes) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    loaded = orjson.loads(schema)
    # The empty registry keeps the library from loading schemas from the network.
    return validator_for(loaded, default=Draft202012Validator)(loaded, registry=Registry())
