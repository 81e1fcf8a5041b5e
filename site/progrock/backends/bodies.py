"""JSON bodies and forms of the backends' file: JSON values with a Text for each text in them."""

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from progrock.backends.errors import ConfigError
from progrock.backends.templates import (
    MISSING,
    Scope,
    Text,
    Unfillable,
    is_hole,
    text,
    without_parts,
)

#: A document of GraphQL, such as `query { job(id: "…") { state } }`.
_GRAPHQL = re.compile(r"\s*((query|mutation|subscription|fragment)\b[^{\"]*)?\{.*\}\s*", re.DOTALL)


def body(where: str, written: Any, allowed: Collection[str]) -> Any:
    """A JSON body of the file, with a Text for each text in it. Raises ConfigError.

    A text in its place is read as JSON, because TOML has no null. A text that is nothing but one
    hole stands for the value of that hole.
    """
    if isinstance(written, str):
        if is_hole(written):
            return text(where, written, allowed)
        try:
            written = json.loads(written)
        except ValueError as error:
            raise ConfigError(
                where,
                found=repr(written),
                wanted=f'a table, a text that is JSON, or one hole such as "{{params}}" ({error})',
            ) from None
        if written is None:
            raise ConfigError(where, found="null", wanted="a table, or {} for an empty one")
    node = _node(where, written, allowed)
    try:
        orjson.dumps(node, default=lambda _: None)
    except TypeError as error:
        raise ConfigError(where, found=f"{written!r}", wanted=f"JSON ({error})") from None
    return node


def _node(where: str, written: Any, allowed: Collection[str]) -> Any:
    if isinstance(written, dict):
        for key in written:
            if without_parts(key) != key:
                raise ConfigError(
                    where, found=f"the name {key!r}", wanted="a name without holes and variables"
                )
        return {key: _node(f"{where}.{key}", each, allowed) for key, each in written.items()}
    if isinstance(written, list):
        return [_node(where, each, allowed) for each in written]
    if isinstance(written, float) and not math.isfinite(written):
        raise ConfigError(where, found=str(written), wanted="a number that JSON can hold")
    if not isinstance(written, str):
        return written
    found = text(where, written, allowed)
    return Text(found.parts, _quoted(found)) if _is_code(written) else found


def _is_code(written: str) -> bool:
    """Whether a text is JSON or GraphQL. A value must then not end a string inside the text."""
    plain = without_parts(written)
    if _GRAPHQL.fullmatch(plain):
        return True
    if not plain.lstrip().startswith(("{", "[")):
        return False
    try:
        json.loads(plain)
    except ValueError:
        return False
    return True


def _quoted(written: Text) -> frozenset[int]:
    """The indexes of the parts that stand between quotation marks."""
    found, inside = set(), False
    for index, part in enumerate(written.parts):
        if isinstance(part, str):
            marks = [mark for mark in re.findall(r'\\.|"', part, re.DOTALL) if mark == '"']
            inside ^= len(marks) % 2 == 1
        elif inside:
            found.add(index)
    return frozenset(found)


def texts_of(node: Any) -> list[Text]:
    """All texts of a body."""
    if isinstance(node, Text):
        return [node]
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [found for each in inner for found in texts_of(each)]


def bound(where: str, node: Any, environ: Mapping[str, str]) -> Any:
    """A body with the variables of its texts filled in. Raises ConfigError."""
    if isinstance(node, Text):
        return node.bound(where, environ)
    if isinstance(node, dict):
        return {key: bound(f"{where}.{key}", each, environ) for key, each in node.items()}
    if isinstance(node, list):
        return [bound(where, each, environ) for each in node]
    return node


def filled(node: Any, scope: Scope) -> Any:
    """The JSON values of a body. What is missing is left out of its object or list.

    Raises Unfillable for a value that is missing inside a longer text.
    """
    if isinstance(node, Text):
        return node.filled(scope) if (hole := node.only) is None else scope.find(hole)
    if isinstance(node, dict):
        inner = ((key, filled(each, scope)) for key, each in node.items())
        return {key: each for key, each in inner if each is not MISSING}
    if isinstance(node, list):
        return [each for item in node if (each := filled(item, scope)) is not MISSING]
    return node


def as_json(values: Any) -> bytes:
    """The bytes of a JSON body. Raises Unfillable."""
    try:
        return orjson.dumps(values)
    except TypeError:  # nested too deeply, for instance
        raise Unfillable("the body has a value that JSON cannot hold") from None


def as_form(values: Any) -> bytes:
    """The bytes of a form. A list becomes a field for each entry, an object becomes JSON text.

    Raises Unfillable where `values` is not an object.
    """
    if not isinstance(values, Mapping):
        raise Unfillable("the form has no fields, because its value is not an object")
    fields = [
        (name, each if isinstance(each, str) else as_json(each))
        for name, value in values.items()
        for each in (value if isinstance(value, list) else [value])
        if each is not None
    ]
    try:
        return urlencode(fields).encode()
    except UnicodeEncodeError:
        raise Unfillable("a field of the form has half of a character") from None
