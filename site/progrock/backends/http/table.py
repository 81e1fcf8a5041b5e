"""What the table of a backend over HTTP may hold, and what is made of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import urlsplit

import jmespath

from progrock.backends.base import JobState
from progrock.backends.environment import expand
from progrock.backends.errors import ConfigError
from progrock.backends.keys import Key, choice, flag, number, whole, words

#: Finds a value in an answer. Gets the answer as JSON values and returns a JSON value.
Expression = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request to start, poll or cancel one job; `{handle}` in the path stands for its handle."""

    path: str
    method: str = "GET"
    repeat: bool = True


@dataclass(frozen=True, kw_only=True)
class Many:
    """A request that asks about up to `max` jobs; `{handles}` in the path stands for theirs.

    `items` finds the list in the answer and `id` the handle in one of its items.
    """

    path: str
    items: Expression
    id: Expression
    max: int


@dataclass(frozen=True, kw_only=True)
class HttpSpec:
    """What to ask a backend over HTTP, and where to look in its answers.

    `states` has the backend's words in lower case. The values of `headers` are as in the file,
    with their `${NAME}`s: only a worker fills them in.
    """

    url: str
    start: Request
    poll: Request | None
    poll_many: Many | None
    cancel: Request | None
    handle: Expression
    state: Expression
    states: Mapping[str, JobState]
    progress: Expression | None
    progress_scale: float
    message: Expression | None
    result: Expression | None
    error: Expression | None
    headers: Mapping[str, str]


def compile_expression(text: str) -> Expression:
    """A JMESPath expression as a function. Raises ValueError for text that is none.

    Paths of plain names such as `error.message` are walked here, which is faster than JMESPath's
    own interpreter and finds the same.
    """
    compiled: Expression = jmespath.compile(text).search
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", text, re.ASCII):
        return compiled
    names = text.split(".")

    def walk(value: Any) -> Any:
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        return value

    return walk


def http_keys(where: str, environ: Mapping[str, str]) -> dict[str, Key]:
    """The keys of a table over HTTP that other tables do not have.

    `url` gets its variables from `environ` when it is read. Errors show the text of the file,
    because the value of a variable may be a secret.
    """

    def expanded(text: str) -> str:
        return expand(f"{where} url", text, environ)

    url = Key(
        "an address such as https://render.internal/v1, without ? and #",
        lambda text: _is_url(expanded(text)),
        make=lambda text: expanded(text).rstrip("/"),
    )
    return {"url": url, **_KEYS}


def http_spec(where: str, values: Mapping[str, Any]) -> HttpSpec:
    """What the values of these keys describe together. Raises ConfigError where they collide."""
    spec = HttpSpec(**values)
    if spec.poll is None and spec.poll_many is None:
        raise ConfigError(
            f"{where} poll", found="nothing", wanted='{ path = "/tasks/{handle}" }, or poll_many'
        )
    # aiohttp itself repeats a request on a dead kept connection, unless its method is POST.
    if not spec.start.repeat and spec.start.method != "POST":
        raise ConfigError(
            f"{where} start", found=f"repeat = false with {spec.start.method}", wanted="POST"
        )
    return spec


def fill_headers(
    where: str, headers: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """The headers with their variables filled in. Raises ConfigError, which never shows a value."""
    filled = {}
    for name, text in headers.items():
        at = f"{where} headers.{name}"
        filled[name] = expand(at, text, environ)
        if not (filled[name].isprintable() and filled[name].isascii()):
            found = "a line break or another character that no header may hold"
            raise ConfigError(at, found=found, wanted="printable ASCII")
    return filled


def _path(*holes: str) -> Key:
    def right(value: Any) -> bool:
        return bool(re.fullmatch(r"/[!-\"$-~]*", value)) and (
            re.findall(r"\{.*?\}|[{}]", value) == [*holes]
        )

    return Key(f'a path such as "{"/".join(("/tasks", *holes))}"', right)


def _method(default: str) -> Key:
    return choice("POST", "PUT", "PATCH", "DELETE", default=default)


def _expression(**default: Any) -> Key:
    return Key("a JMESPath expression", make=compile_expression, **default)


def _request(*, make: Callable[..., Any] = Request, **keys: Key) -> Key:
    return Key("", default=None, make=lambda values: make(**values), keys=keys)


def _meanings(lists: Mapping[str, list[str]]) -> dict[str, str]:
    """The backend's words in lower case, and the state that each means."""
    states: dict[str, str] = {}
    for state, listed in lists.items():
        for word in listed:
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


_KEYS = {
    "start": Key(
        'a table such as { path = "/tasks" }',
        make=lambda values: Request(**values),
        keys={"path": _path(), "method": _method("POST"), "repeat": flag(True)},
    ),
    "poll": _request(path=_path("{handle}")),
    "poll_many": _request(
        make=Many,
        path=_path("{handles}"),
        items=_expression(),
        id=_expression(),
        max=whole(1, 1000, 50),
    ),
    "cancel": _request(path=_path("{handle}"), method=_method("DELETE")),
    "handle": _expression(),
    "state": _expression(),
    "states": Key(
        'the backend\'s words, each once, as { running = ["queued"], succeeded = ["done"] }',
        lambda lists: lists["running"] and lists["succeeded"],
        make=_meanings,
        keys={state: words("a list of the backend's words") for state in get_args(JobState)},
    ),
    "progress": _expression(default=None),
    "progress_scale": number(1e-6, 1e15, 100.0),
    "message": _expression(default=None),
    "result": _expression(default=None),
    "error": _expression(default=None),
    "headers": Key("names and texts of HTTP headers", _are_headers, {}),
}
