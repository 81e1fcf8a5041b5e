"""Checks the audiences and params that a project's own code hands in, before they are used."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, NamedTuple, cast

import orjson
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured

from progrock.backends import schemas
from progrock.errors import Refused

#: How the audience of a user begins, and that of a visitor without a login.
A_USER, A_VISITOR = "user:", "visitor:"
#: The longest audience, in characters, because the ledger's column holds so many.
MAX_AUDIENCE = 200
#: The longest id that a client may give to a start, in characters, for the same reason.
MAX_REQUEST = 100
#: The most bytes that a job's params may have as JSON.
MAX_PARAMS = 65_536

_COROUTINE = "a coroutine, because it is an `async def`"


class Role(NamedTuple):
    """The setting that names a function of the project's, and what that takes and returns.

    `arguments` are an example of what it is called with, `takes` says the same in words, and
    `returns` is the type. `wanted` says in words which value is wanted, `hint` what to write.
    """

    setting: str
    arguments: tuple[Any, ...]
    takes: str
    returns: str
    wanted: str
    hint: str


AUDIENCES = Role(
    "PROGROCK_AUDIENCES",
    ({},),
    "the scope alone",
    "list",
    f"a list of strings of 1 to {MAX_AUDIENCE} characters",
    "Name a function audiences(scope) that returns a list of strings, by its dotted path:"
    ' "shop.jobs.audiences".',
)
AUTHORIZE = Role(
    "PROGROCK_AUTHORIZE",
    ({}, "", {}),
    "scope, backend and params",
    "dict",
    f"a dict with params that fit the backend, of up to {MAX_PARAMS} bytes as JSON",
    "Name a function authorize(scope, backend, params) that returns the params of the job, or"
    ' raises progrock.Refused, by its dotted path: "shop.jobs.authorize".',
)


def checked_audiences(found: Any, path: str) -> list[str]:
    """The audiences that the project's function of PROGROCK_AUDIENCES has returned.

    `path` is its dotted path. Raises ImproperlyConfigured for anything but a list or tuple of
    usable names. A plain string is refused too, because each of its letters would be an audience.
    """
    if inspect.iscoroutine(found):
        found.close()
        raise _misconfigured(AUDIENCES, path, _COROUTINE)
    if not isinstance(found, list | tuple):
        raise _misconfigured(AUDIENCES, path, f"{type(found).__name__} {str(found)[:80]!r}")
    for each in found:
        if (wrong := wrong_audience(each)) is not None:
            raise _misconfigured(AUDIENCES, path, f"a list that holds {wrong}")
    return list(found)


def checked_authorization(
    found: Any, path: str, schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The params that the project's function of PROGROCK_AUTHORIZE has returned, as plain JSON.

    `path` is its dotted path, and `schema` the JSON Schema of the backend's params. Raises
    ImproperlyConfigured for anything but a dict of params that a job of this backend can have.
    """
    if inspect.iscoroutine(found):
        found.close()
        raise _misconfigured(AUTHORIZE, path, _COROUTINE)
    if not isinstance(found, dict):
        raise _misconfigured(AUTHORIZE, path, f"{type(found).__name__} {str(found)[:80]!r}")
    try:
        params = checked_params(found)
    except Refused as refused:
        raise _misconfigured(AUTHORIZE, path, f"params that cannot be used: {refused}") from None
    if wrong := schemas.complaint(schema, params):
        raise _misconfigured(AUTHORIZE, path, f"params that do not fit the schema: {wrong}")
    return params


def wrong_audience(name: Any) -> str | None:
    """What this is, in words, where it cannot be the name of an audience; None where it can."""
    if not isinstance(name, str):
        return f"a value of type {type(name).__name__}"
    if not name:
        return "an empty string"
    if len(name) > MAX_AUDIENCE:
        return f"a string of {len(name)} characters"
    if not name.isprintable():
        return f"{name[:80]!r}, with characters that cannot be printed"
    return None


def audience_of_name(name: str) -> str:
    """The audience that a string names. Raises Refused where it cannot be one."""
    if (wrong := wrong_audience(name)) is not None:
        raise Refused(
            "bad_audience",
            f"The audience is {wrong}; wanted 1 to {MAX_AUDIENCE} printable characters.",
        )
    return name


def audience_of_user(user: AbstractBaseUser) -> str:
    """The audience of a user. Raises Refused for one that has not been saved."""
    if user.pk is None:
        raise Refused(
            "bad_audience", "The user has not been saved and has no id; save the user first."
        )
    return audience_of_name(f"{A_USER}{user.pk}")


def not_an_audience(found: Any) -> TypeError:
    """The error for an audience that is neither a string nor a user nor a request."""
    return TypeError(
        f"audience is {type(found).__name__}; wanted a string such as 'team:blue', a user, or an"
        " HttpRequest. For anything else, such as a team, make the string: f'team:{team.pk}'."
    )


def checked_params(params: Any) -> dict[str, Any]:
    """The params as plain JSON: dates, UUIDs, enums and dataclasses as orjson writes them.

    Raises Refused for what JSON, or a database, cannot hold.
    """
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise Refused("bad_params", f"params is a {type(params).__name__}; wanted an object.")
    try:
        text = orjson.dumps(params)
    except orjson.JSONEncodeError as error:
        raise Refused("bad_params", f"params cannot be written as JSON: {error}.") from None
    if len(text) > MAX_PARAMS:
        raise Refused(
            "bad_params", f"params have {len(text)} bytes as JSON; wanted {MAX_PARAMS} at most."
        )
    if b"\\u0000" in text:
        raise Refused("bad_params", "params hold the character U+0000, which is not allowed.")
    if b"null" in text and _has_nan(params):
        raise Refused("bad_params", "params hold NaN or Infinity, which JSON does not have.")
    return cast(dict[str, Any], orjson.loads(text))


def _has_nan(value: Any) -> bool:
    """Whether a float somewhere is NaN or infinite; orjson would write it as null."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, float) and not math.isfinite(each):
            return True
        if isinstance(each, Enum):
            waiting.append(each.value)
        elif dataclasses.is_dataclass(each):
            waiting += [getattr(each, field.name) for field in dataclasses.fields(each)]
        elif isinstance(each, dict):
            waiting += each.values()
        elif isinstance(each, list | tuple):
            waiting += each
    return False


def wrong_function(function: Callable[..., Any] | Any, role: Role) -> str | None:
    """What this is, in words, where it cannot have this role; None where nothing is seen wrong.

    It is not called.
    """
    if isinstance(function, type):
        return f"a class, so a call returns an object and not a {role.returns}"
    if not callable(function):
        return f"of type {type(function).__name__}, which cannot be called"
    # the second one is for an object that is no function and has a `__call__`
    for each in (function, type(function).__call__):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            return f"an `async def`, so a call returns no {role.returns}"
        if inspect.isgeneratorfunction(each):
            return f"a generator, because it has a `yield`, so a call returns no {role.returns}"
    try:
        inspect.signature(function).bind(*role.arguments)
    except TypeError as error:
        return f"a function that cannot be called with {role.takes} ({error})"
    except ValueError:  # a function written in C need not tell its arguments
        return None
    return None


def _misconfigured(role: Role, path: str, found: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{role.setting}: {path} returned {found}; wanted {role.wanted}")
