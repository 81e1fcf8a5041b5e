"""Reads the backends' file into options, and makes a backend of the options.

Each key is checked and each expression compiled when the file is read, before anything starts.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from progrock.backends import schemas
from progrock.backends.base import LEAST_LOOKS, Backend, Options, usual_lease
from progrock.backends.classes import ClassSpec, check_arguments, extends_http_backend, imported
from progrock.backends.errors import ConfigError
from progrock.backends.http.spec import HttpSpec
from progrock.backends.http.table import http_keys, http_spec
from progrock.backends.keys import Key, flag, number, read, string, whole
from progrock.backends.templates import text

DAY = 86_400
#: The longest name of a backend, in characters.
LONGEST_NAME = 40
_PEOPLE = {
    "title": string("a name of the backend for people", ""),
    "label": string("a text with holes such as {params.name}", ""),
    "params": Key(
        "a JSON Schema, as a table or as the path of a JSON file",
        lambda value: isinstance(value, dict | str) and bool(value),
        None,
    ),
    "browser": flag(False),
}
#: What any table of the file may hold.
COMMON = {
    "interval": number(0.1, DAY, Options.interval),
    "timeout": number(0.1, DAY, Options.timeout),
    "deadline": number(1.0, 3650 * DAY, Options.deadline),
    "shards": whole(1, 256, Options.shards),
    "concurrency": whole(1, 1000, Options.concurrency),
    "missing_for": number(0.0, DAY, Options.missing_for),
    "max_answer": whole(1024, 1 << 30, Options.max_answer),
    "unwatched": number(0.1, DAY, None),
    "lease": number(0.0, 10 * DAY, None),
    **_PEOPLE,
}
#: What the table of a class may hold.
OF_A_CLASS = COMMON | {
    "repeat": flag(True),
    "cancels": flag(True),
    "has_progress": flag(True),
    "class": Key(
        'a dotted path such as "myproject.backends.Gpu"', lambda path: "." in path.strip(".")
    ),
}


def load(path: Path | str) -> dict[str, Options]:
    """The backends of the file at `path`, by name, in the order of the file. Raises ConfigError.

    Variables of the environment stay as they are: only `build` fills them in.
    """
    found = load_each(path)
    for options in found.values():
        if isinstance(options, ConfigError):
            raise options
    return {name: each for name, each in found.items() if isinstance(each, Options)}


def load_each(path: Path | str) -> dict[str, Options | ConfigError]:
    """As `load`, but a table that is wrong has its ConfigError in place of options.

    Raises ConfigError where the file as a whole cannot be read.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # not TOML and not UTF-8 are both a ValueError
        raise ConfigError(
            str(path), found=str(error), wanted="a readable TOML file with a table for each backend"
        ) from error
    if not tables:
        raise ConfigError(
            str(path), found="nothing", wanted="a table for each backend, such as [render]"
        )
    folder = Path(path).parent
    found: dict[str, Options | ConfigError] = {}
    for name, table in tables.items():
        where = f"{path}: [{name}]" if isinstance(table, dict) else str(path)
        try:
            found[name] = _options(where, name, table, folder)
        except ConfigError as error:
            found[name] = error
    return found


def build(options: Options, environ: Mapping[str, str] = os.environ) -> Backend:
    """The backend that the options from `load` describe. Opens nothing yet.

    Raises ConfigError, for instance where a variable of a header is missing.
    """
    where, spec = f"[{options.name}]", options.spec
    cls: Callable[..., Any] | None = None
    arguments: Mapping[str, Any] = {}
    if isinstance(spec, ClassSpec):
        cls, arguments, spec = imported(f"{where} class", spec.path), spec.arguments, spec.http
    if isinstance(spec, HttpSpec):
        options = replace(options, spec=spec.bound(where, environ))
    elif cls is None:
        raise TypeError(f"{where}: the options were not made by load()")
    if cls is None:
        # Imported here, so that processes which build no backend need not load aiohttp.
        from progrock.backends.http.client import HttpBackend

        cls = HttpBackend
    backend: Backend = cls(options, **arguments)
    return backend


def _options(where: str, name: str, table: object, folder: Path) -> Options:
    if isinstance(table, list) and all(isinstance(each, dict) for each in table):
        raise ConfigError(where, found=f"[[{name}]]", wanted=f"[{name}]")
    if not isinstance(table, dict):
        raise ConfigError(
            where,
            found=f"the key {name!r} outside of a backend's table",
            wanted="a line such as [render] above the keys of each backend",
        )
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            where,
            found=repr(name),
            wanted=f"a name of 1 to {LONGEST_NAME} characters from a-z, 0-9, _ and -,"
            " beginning with a letter",
        )
    if "class" in table:
        return _of_a_class(where, name, table, folder)
    values = read(where, table, COMMON | http_keys(where))
    return _over_http(where, name, values, folder)


def _over_http(
    where: str, name: str, values: dict[str, Any], folder: Path, wrap: Any = None
) -> Options:
    common = _common(where, values, folder)
    values["tls"] = {key: str(folder / file) for key, file in values["tls"].items()}
    spec = http_spec(where, values)
    timeout = common["timeout"]
    start = spec.start.timeout or timeout
    cancel = spec.cancel.timeout or timeout if spec.cancel else 0.0
    return Options(
        name=name,
        spec=wrap(spec) if wrap else spec,
        repeat=spec.start.repeat,
        cancels=spec.cancel is not None,
        has_progress=spec.progress is not None,
        reads_params=wrap is not None or spec.reads_params,
        start_timeout=start,
        longest_call=max(start, spec.longest_look(timeout), cancel),
        **common,
    )


def _common(where: str, values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The options that every kind of backend has. Removes their keys from `values`."""
    common = {key: values.pop(key) for key in COMMON}
    common["unwatched"] = _unwatched(where, common)
    common["lease"] = _lease(where, common)
    label = common["label"]
    common["label"] = text(f"{where} label", label, ("params",), variables=False) if label else None
    common["params_schema"] = schemas.read(f"{where} params", common.pop("params"), folder)
    return common


def _of_a_class(where: str, name: str, table: Mapping[str, Any], folder: Path) -> Options:
    """The options of a table with `class`. Keys that are not ours are arguments of the class.

    A class that extends HttpBackend has the keys of a table over HTTP as well.
    """
    path = read(where, {"class": table["class"]}, {"class": OF_A_CLASS["class"]})["class"]
    cls = imported(f"{where} class", path)
    over_http = extends_http_backend(cls)
    keys = COMMON | http_keys(where) | {"class": OF_A_CLASS["class"]} if over_http else OF_A_CLASS
    ours = {key: value for key, value in table.items() if key in keys}
    arguments = {key: value for key, value in table.items() if key not in keys}
    values = read(where, ours, keys)
    del values["class"]
    if over_http:

        def wrap(spec: HttpSpec) -> ClassSpec:
            return ClassSpec(path=path, arguments=arguments, http=spec)

        options = _over_http(where, name, values, folder, wrap)
    else:
        more = _common(where, values, folder)
        spec = ClassSpec(path=path, arguments=arguments)
        options = Options(name=name, spec=spec, **values, **more)
    check_arguments(where, cls, path, options, arguments)
    return options


def _unwatched(where: str, common: Mapping[str, Any]) -> float | None:
    """The interval of jobs that nobody watches; None where it is `interval`."""
    interval, unwatched = common["interval"], common["unwatched"]
    if unwatched is not None and unwatched < interval:
        raise ConfigError(
            f"{where} unwatched",
            found=f"{unwatched:g}",
            wanted=f"{interval:g} or more, because `interval` is for jobs that somebody watches,"
            " and no other job is looked at more often",
        )
    return None if unwatched == interval else unwatched


def _lease(where: str, common: Mapping[str, Any]) -> float:
    """The lease in seconds. Raises ConfigError for one that is too short (see LEAST_LOOKS)."""
    interval, lease = common["interval"], common["lease"]
    if lease is None:
        return usual_lease(interval)
    if 0 < lease < LEAST_LOOKS * interval:
        raise ConfigError(
            f"{where} lease",
            found=f"{lease:g}",
            wanted=f"0, or at least {LEAST_LOOKS * interval:g},"
            f" which is {LEAST_LOOKS} times `interval`",
        )
    return float(lease)
