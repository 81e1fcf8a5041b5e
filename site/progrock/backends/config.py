"""Reads the backends' file into options, and makes a backend of the options.

Each key is checked and each expression compiled when the file is read, before anything starts.
"""

import inspect
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from progrock.backends.base import Backend, Options
from progrock.backends.errors import ConfigError
from progrock.backends.http.table import HttpSpec, fill_headers, http_keys, http_spec
from progrock.backends.keys import Key, flag, number, read, whole


@dataclass(frozen=True, kw_only=True)
class ClassSpec:
    """A backend's class by its dotted path, and the arguments that its table has for it."""

    path: str
    arguments: Mapping[str, Any]


DAY = 86_400
_COMMON = {
    "interval": number(0.1, DAY, 1.0),
    "timeout": number(0.1, DAY, 5.0),
    "deadline": number(1.0, 3650 * DAY, 3600.0),
    "shards": whole(1, 256, 2),
    "concurrency": whole(1, 1000, 8),
    "missing_for": number(0.0, DAY, 30.0),
    "max_answer": whole(1024, 1 << 30, 1 << 20),
}
_CLASS = _COMMON | {
    "repeat": flag(True),
    "cancels": flag(True),
    "has_progress": flag(True),
    "class": Key(
        'a dotted path such as "myproject.backends.Gpu"', lambda path: "." in path.strip(".")
    ),
}


def load(path: Path | str, environ: Mapping[str, str] = os.environ) -> dict[str, Options]:
    """The backends of the file at `path`, by name, in the order of the file. Raises ConfigError."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not TOML and not UTF-8 are both a ValueError
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
    """The backend that the options from `load` describe. Opens nothing yet.

    Raises ConfigError, for instance where a variable of a header is missing.
    """
    where, spec = f"[{options.name}]", options.spec
    if isinstance(spec, HttpSpec):
        # Imported here, so that processes which build no backend need not load aiohttp.
        from progrock.backends.http.client import HttpBackend

        return HttpBackend(options, spec, fill_headers(where, spec.headers, environ))
    if isinstance(spec, ClassSpec):
        backend: Backend = _import(f"{where} class", spec.path)(options, **spec.arguments)
        return backend
    raise TypeError(f"{where}: the options were not made by load()")


def _options(where: str, name: str, table: object, environ: Mapping[str, str]) -> Options:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
        raise ConfigError(
            where,
            found=repr(name),
            wanted="a name of 1 to 40 characters from a-z, 0-9, _ and -, a letter first",
        )
    if isinstance(table, dict) and "class" in table:
        return _of_a_class(where, name, table)
    values = read(where, table, _COMMON | http_keys(where, environ))
    common = {key: values.pop(key) for key in _COMMON}
    spec = http_spec(where, values)
    return Options(
        name=name,
        spec=spec,
        repeat=spec.start.repeat,
        cancels=spec.cancel is not None,
        has_progress=spec.progress is not None,
        **common,
    )


def _of_a_class(where: str, name: str, table: Mapping[str, Any]) -> Options:
    """The options of a table with `class`: keys that are not ours are arguments of the class."""
    ours = {key: value for key, value in table.items() if key in _CLASS}
    arguments = {key: value for key, value in table.items() if key not in _CLASS}
    common = read(where, ours, _CLASS)
    path = common.pop("class")
    options = Options(name=name, spec=ClassSpec(path=path, arguments=arguments), **common)
    try:
        inspect.signature(_import(f"{where} class", path)).bind(options, **arguments)
    except (TypeError, ValueError) as error:  # ValueError: it does not tell what it takes
        found = f"the keys {', '.join(arguments) or '(none)'}"
        raise ConfigError(
            where, found=found, wanted=f"the keys that {path} takes ({error})"
        ) from error
    return options


def _import(where: str, path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    try:
        cls: Callable[..., Any] = getattr(import_module(module), name)
    # whatever a module of the project's raises, or a script that ends the process
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            where, found=repr(path), wanted=f"the dotted path of a class ({why})"
        ) from error
    return cls
