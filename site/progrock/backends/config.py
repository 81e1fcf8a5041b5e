"""Reads the backends' TOML file: every key checked, every JMESPath compiled, before anything starts."""

import difflib
import inspect
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import jmespath

from progrock.backends.base import Backend, JobState, Options
from progrock.backends.errors import ConfigError

Find = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """How to ask for something: `{handle}` or `{handles}` stands in the path."""

    path: str
    method: str = "GET"
    repeat: bool = True


@dataclass(frozen=True, kw_only=True)
class Many:
    """How to ask about several jobs in one request."""

    path: str
    items: Find
    id: Find
    max: int


@dataclass(frozen=True, kw_only=True)
class HttpSpec:
    """What the generic HTTP backend asks for, and where it looks in the answers; `headers` with their `${NAME}`s."""

    url: str
    start: Request
    poll: Request | None
    poll_many: Many | None
    cancel: Request | None
    handle: Find
    state: Find
    states: Mapping[str, JobState]
    progress: Find | None
    progress_scale: float
    message: Find | None
    result: Find | None
    error: Find | None
    headers: Mapping[str, str]


def load(path: Path | str, environ: Mapping[str, str] = os.environ) -> dict[str, Options]:
    """The backends of the file at `path`, by name, in the order of the file. Raises ConfigError."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (
        OSError,
        ValueError,
    ) as error:  # a TOMLDecodeError and a UnicodeDecodeError are ValueErrors
        raise ConfigError(
            str(path), found=str(error), wanted="a readable TOML file with a table per backend"
        ) from error
    if not tables:
        raise ConfigError(
            str(path), found="nothing", wanted="a table per backend, such as [render]"
        )
    return {
        name: _options(f"{path}: [{name}]", name, table, environ) for name, table in tables.items()
    }


def build(options: Options, environ: Mapping[str, str] = os.environ) -> Backend:
    """The backend that these options describe; opens nothing yet. Raises ConfigError, as for a variable missing."""
    if options.spec is None:
        backend: Backend = _import(f"[{options.name}] class", options.cls or "")(
            options, **options.arguments
        )
        return backend
    from progrock.backends.http import (
        HttpBackend,
    )  # here, so that processes which poll nothing need not load aiohttp

    headers = {}
    for key, text in options.spec.headers.items():
        where = f"[{options.name}] headers.{key}"
        headers[key] = _expand(where, environ, text)
        if not (
            headers[key].isprintable() and headers[key].isascii()
        ):  # the value is a secret: not shown
            raise ConfigError(where, found="a line break or the like", wanted="printable ASCII")
    return HttpBackend(options, options.spec, headers)


def find(expression: str) -> Find:
    """A JMESPath expression as a function of an answer; plain ones such as `error.message` skip the interpreter."""
    compiled: Find = jmespath.compile(expression).search
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", expression, re.ASCII):
        return compiled
    names = expression.split(".")

    def walk(value: Any) -> Any:
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return walk


@dataclass(frozen=True)
class _Key:
    """What a key may hold: `right` tells, `make` turns it into what is kept; `keys` are those of a table inside."""

    wanted: str
    right: Callable[[Any], Any] = bool
    default: Any = ...
    make: Callable[[Any], Any] = lambda value: value
    keys: "Mapping[str, _Key] | None" = None


def _read(where: str, table: Any, keys: Mapping[str, _Key]) -> dict[str, Any]:
    """The values of a table that may have these keys and no others."""
    if not isinstance(table, dict):
        raise ConfigError(where, found=repr(table), wanted="a table")
    for unknown in table.keys() - keys.keys():
        close = difflib.get_close_matches(unknown, keys, 1) or [", ".join(keys)]
        raise ConfigError(where, found=f"the key {unknown!r}", wanted=close[0])
    values = {}
    for name, key in keys.items():
        at, found = f"{where} {name}", table.get(name, key.default)
        if found is ...:
            raise ConfigError(at, found="nothing", wanted=key.wanted)
        if name in table:
            inner, hint = _read(at, found, key.keys) if key.keys else found, ""
            try:
                values[name] = key.make(inner) if key.right(inner) else ...
            except (
                ValueError,
                TypeError,
                AttributeError,
            ) as error:  # of another type, or refused by what makes it
                values[name], hint = ..., f" ({' '.join(str(error).split())})"
            if values[name] is ...:
                raise ConfigError(at, found=repr(found), wanted=key.wanted + hint)
        else:
            values[name] = found
    return values


def _number(least: float, default: float) -> _Key:
    def right(value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value) and value >= least

    return _Key(f"a number of at least {least:g}", right, default)


def _whole(least: int, most: int, default: int) -> _Key:
    return _Key(
        f"a whole number from {least} to {most}",
        lambda v: type(v) is int and least <= v <= most,
        default,
    )


def _flag(default: bool) -> _Key:
    return _Key("true or false", lambda value: isinstance(value, bool), default)


def _path(*placeholders: str) -> _Key:
    def right(value: Any) -> bool:
        return bool(re.fullmatch(r"/[!-\"$-~]*", value)) and re.findall(r"\{.*?\}|[{}]", value) == [
            *placeholders
        ]

    return _Key(f'a path such as "{"/".join(("/tasks", *placeholders))}"', right)


def _method(default: str) -> _Key:
    return _Key(
        "POST, PUT, PATCH or DELETE",
        lambda value: value in ("POST", "PUT", "PATCH", "DELETE"),
        default,
    )


def _find(default: Any = ...) -> _Key:
    return _Key("a JMESPath expression", default=default, make=find)


def _states(lists: Mapping[str, list[str]]) -> dict[str, str]:
    """The backend's words in lower case, and what each means here."""
    states: dict[str, str] = {}
    for state, word in ((state, word) for state, words in lists.items() for word in words):
        if word.lower() in states:
            raise ValueError(f"{word!r} stands twice")
        states[word.lower()] = state
    return states


def _is_url(text: str) -> bool:
    parts = urlsplit(text)
    fine = (
        parts.scheme in ("http", "https")
        and parts.hostname
        and parts.port != 0
        and re.fullmatch(r"[!-~]+", text)
    )
    return bool(fine) and not set("?#{}") & set(text)


def _are_headers(value: dict[str, Any]) -> bool:
    token = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, 5.6.2
    return all(re.fullmatch(token, name) and isinstance(text, str) for name, text in value.items())


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


_COMMON = {
    "interval": _number(0.1, 1.0),
    "timeout": _number(0.1, 5.0),
    "deadline": _number(1.0, 3600.0),
    "shards": _whole(1, 256, 2),
    "concurrency": _whole(1, 1000, 8),
    "max_answer": _whole(1024, 1 << 30, 1 << 20),
}
_CLASS = _COMMON | {name: _flag(True) for name in ("repeat", "cancels", "has_progress")}
_CLASS["class"] = _Key(
    'a dotted path such as "myproject.backends.Gpu"', lambda path: "." in path.strip(".")
)
_START = {"path": _path(), "method": _method("POST"), "repeat": _flag(True)}
_CANCEL = {"path": _path("{handle}"), "method": _method("DELETE")}
_MANY = {"path": _path("{handles}"), "items": _find(), "id": _find(), "max": _whole(1, 1000, 50)}
_WORDS = {
    state: _Key("a list of the backend's words", _are_words, ()) for state in get_args(JobState)
}
_MEANINGS = 'the backend\'s words, each once, as { running = ["queued"], succeeded = ["done"] }'
_HTTP = _COMMON | {
    "url": _Key("an address such as https://render.internal/v1, without ? and #", _is_url),
    "start": _Key('a table such as { path = "/tasks" }', make=lambda v: Request(**v), keys=_START),
    "poll": _Key("", default=None, make=lambda v: Request(**v), keys={"path": _path("{handle}")}),
    "poll_many": _Key("", default=None, make=lambda v: Many(**v), keys=_MANY),
    "cancel": _Key("", default=None, make=lambda v: Request(**v), keys=_CANCEL),
    "handle": _find(),
    "state": _find(),
    "states": _Key(
        _MEANINGS, lambda lists: lists["running"] and lists["succeeded"], make=_states, keys=_WORDS
    ),
    "progress": _find(None),
    "progress_scale": _number(1e-6, 100.0),
    "message": _find(None),
    "result": _find(None),
    "error": _find(None),
    "headers": _Key("names and texts of HTTP headers", _are_headers, {}),
}


def _options(where: str, name: str, table: Any, environ: Mapping[str, str]) -> Options:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
        raise ConfigError(
            where,
            found=repr(name),
            wanted="a name of a-z, 0-9, _ and -, a letter first, at most 40",
        )
    if isinstance(table, dict) and "class" in table:
        common = _read(where, {key: value for key, value in table.items() if key in _CLASS}, _CLASS)
        path, arguments = (
            common.pop("class"),
            {key: value for key, value in table.items() if key not in _CLASS},
        )
        options = Options(name=name, cls=path, arguments=arguments, **common)
        try:
            inspect.signature(_import(f"{where} class", path)).bind(options, **arguments)
        except TypeError as error:
            found = f"the keys {', '.join(arguments) or '(none)'}"
            raise ConfigError(where, found=found, wanted=f"what {path} takes ({error})") from error
        return options
    # Variables go in where the address is read, so that an error shows the text of the file, never a secret.
    expand = partial(_expand, f"{where} url", environ)
    url = replace(
        _HTTP["url"], right=lambda v: _is_url(expand(v)), make=lambda v: expand(v).rstrip("/")
    )
    values = _read(where, table, _HTTP | {"url": url})
    common = {key: values.pop(key) for key in _COMMON}
    spec = HttpSpec(**values)
    if spec.poll is None and spec.poll_many is None:
        raise ConfigError(
            f"{where} poll", found="nothing", wanted='{ path = "/tasks/{handle}" }, or poll_many'
        )
    if (
        not spec.start.repeat and spec.start.method != "POST"
    ):  # aiohttp repeats others when a kept connection is dead
        raise ConfigError(
            f"{where} start", found=f"repeat = false with {spec.start.method}", wanted="POST"
        )
    common |= {"cancels": spec.cancel is not None, "has_progress": spec.progress is not None}
    return Options(name=name, spec=spec, repeat=spec.start.repeat, **common)


def _expand(where: str, environ: Mapping[str, str], text: str) -> str:
    """`${NAME}` and `${NAME:-default}` as the environment has them; an empty variable counts as none."""

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environ.get(name) or default
        if found is None:
            raise ConfigError(
                where,
                found=f"no {name} in the environment",
                wanted=f"{name}, or ${{{name}:-a default}}",
            )
        return found

    return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}", value, text)


def _import(where: str, path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        cls: Callable[..., Any] = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            where, found=repr(path), wanted=f"the dotted path of a class ({error})"
        ) from error
    return cls
