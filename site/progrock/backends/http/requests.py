"""One type for every request of a table over HTTP: start, poll, poll_many, fetch and cancel."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from progrock.backends import bodies
from progrock.backends.errors import ConfigError
from progrock.backends.http.values import Value
from progrock.backends.keys import REQUIRED, Key, flag, number, whole
from progrock.backends.templates import Hole, Text, text

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
Ends = Literal["succeeded", "failed"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to send. `body` and `form` hold JSON values with a Text for each text.

    Where neither is there, `sends_params` says that the params themselves are the body. `timeout`
    is in seconds, or None for the backend's. The last fields each belong to one kind of request.
    """

    path: Text
    method: str
    body: Any = None
    form: Any = None
    headers: Mapping[str, Text] = field(default_factory=dict)
    timeout: float | None = None
    sends_params: bool = False
    # start
    repeat: bool = False
    taken: tuple[int, ...] = ()
    # cancel
    wait: bool = False
    instead: "Request | None" = None
    when: Value | None = None  # of `instead`
    # fetch
    read: Literal["json", "text", "lines"] = "json"
    on: tuple[Ends, ...] = ("succeeded",)
    # poll_many
    items: Value | None = None
    id: Value | None = None
    max: int = 50

    @property
    def texts(self) -> list[Text]:
        """All texts that have holes or variables."""
        both = (self.body, self.form)
        return [
            self.path,
            *self.headers.values(),
            *(t for each in both for t in bodies.texts_of(each)),
        ]

    @property
    def has_body(self) -> bool:
        """Whether the request has a body."""
        return self.sends_params or self.body is not None or self.form is not None

    @property
    def needed(self) -> list[Hole]:
        """The holes that must have a value: those in path and headers, and inside longer texts."""
        always = (self.path, *self.headers.values())
        return [
            hole
            for each in self.texts
            if each.only is None or each in always
            for hole in each.holes
        ]

    @property
    def joins_handles(self) -> bool:
        """Whether handles are joined with commas somewhere. Then none of them may hold a comma."""
        return any(hole.root == "handles" for hole in self.needed)

    def bound(self, where: str, environ: Mapping[str, str]) -> "Request":
        """The request with its variables filled in. Raises ConfigError."""
        path = self.path.bound(f"{where} path", environ)
        if not _fits_path("".join(part for part in path.parts if isinstance(part, str))):
            found = "a character that no path may hold"
            raise ConfigError(f"{where} path", found=found, wanted="printable ASCII")
        return replace(
            self,
            path=path,
            body=bodies.bound(f"{where} body", self.body, environ),
            form=bodies.bound(f"{where} form", self.form, environ),
            headers=bound_headers(f"{where} headers", self.headers, environ),
            instead=self.instead and self.instead.bound(f"{where} instead", environ),
        )


def bound_headers(
    where: str, headers: Mapping[str, Text], environ: Mapping[str, str]
) -> dict[str, Text]:
    """The headers with their variables filled in. Raises ConfigError, which never shows a value."""
    bound = {}
    for name, written in headers.items():
        at = f"{where}.{name}"
        bound[name] = written.bound(at, environ)
        if not all(fits_header(part) for part in bound[name].parts if isinstance(part, str)):
            found = "a line break or another character that no header may hold"
            raise ConfigError(at, found=found, wanted="printable ASCII")
    return bound


def fits_header(value: str) -> bool:
    """Whether a text may be a header's value."""
    return value.isprintable() and value.isascii()


def headers_key(where: str, allowed: tuple[str, ...]) -> Key:
    """The key `headers`: names and texts of headers with holes."""
    token = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # RFC 9110, 5.6.2

    def right(value: dict[str, Any]) -> bool:
        return all(
            re.fullmatch(token, name) and isinstance(each, str) for name, each in value.items()
        )

    def make(value: dict[str, str]) -> dict[str, Text]:
        return {
            name: text(f"{where} headers.{name}", each, allowed) for name, each in value.items()
        }

    return Key('HTTP headers, such as { Authorization = "Bearer ${TOKEN}" }', right, {}, make)


def request_key(
    table: str,
    name: str,
    holes: tuple[str, ...],
    *,
    method: str = "GET",
    default: Any = None,
    sends_params: bool = False,
    more: Mapping[str, Key] | None = None,
) -> Key:
    """The key of a request in the table called `table`; `holes` are the roots of its holes."""
    where = f"{table} {name}"

    def body(key: str, written: Any) -> Any:
        return bodies.body(f"{where} {key}", written, holes)

    def form(written: Any) -> Any:
        if isinstance(found := body("form", written), list):
            raise ValueError("a list has no names for its fields")
        return found

    def make(values: dict[str, Any]) -> Request:
        return _request(where, values, sends_params=sends_params)

    example = {"start": "", "poll_many": "/{handles}"}.get(name, "/{handle}")
    return Key(
        f'a table such as {{ path = "/tasks{example}" }}',
        make=make,
        default=default,
        keys={
            "path": _path_key(where, holes, f'"/tasks{example}"'),
            "method": Key(", ".join(METHODS[:-1]) + " or DELETE", METHODS.__contains__, method),
            "body": Key("JSON with holes", _is_body, None, partial(body, "body")),
            "form": Key("a table of fields with holes", _is_body, None, form),
            "headers": headers_key(where, holes),
            "timeout": number(0.1, 86_400.0, None),
            **(more or {}),
        },
    )


def start_keys() -> dict[str, Key]:
    """The keys that only `start` has."""

    def right(value: Any) -> bool:
        return isinstance(value, list) and all(
            type(each) is int and 300 <= each <= 599 for each in value
        )

    taken = Key("a list of statuses such as [409]", right, (), tuple)
    return {"repeat": Key("true or false", lambda v: isinstance(v, bool), None), "taken": taken}


def many_keys(items: Key, id: Key) -> dict[str, Key]:
    """The keys that only `poll_many` has; `items` and `id` are expressions."""
    return {"items": items, "id": id, "max": whole(1, 1000, Request.max)}


def fetch_keys() -> dict[str, Key]:
    """The keys that only `fetch` has."""
    ends = ("succeeded", "failed")
    reads = ("json", "text", "lines")

    def right(value: Any) -> bool:
        return isinstance(value, list) and bool(value) and all(each in ends for each in value)

    return {
        "read": Key('"json", "text" or "lines"', lambda value: value in reads, Request.read),
        "on": Key('a list such as ["succeeded", "failed"]', right, Request.on, tuple),
    }


def cancel_keys(instead: Key) -> dict[str, Key]:
    """The keys that only `cancel` has; `instead` is a request as well."""
    return {"wait": flag(False), "instead": instead}


def instead_keys(when: Key) -> dict[str, Key]:
    """The keys that only `instead` has; `when` is an expression."""
    return {"wait": flag(False), "when": when}


def _request(where: str, values: dict[str, Any], *, sends_params: bool) -> Request:
    if values["body"] is not None and values["form"] is not None:
        raise ConfigError(where, found="body and form", wanted="only one of them")
    request = Request(
        **{key: value for key, value in values.items() if key != "repeat"},
        sends_params=sends_params
        and values["body"] is None
        and values["form"] is None
        and values["method"] != "GET",
    )
    if request.method == "GET" and (request.body is not None or request.form is not None):
        raise ConfigError(
            where, found="a body with GET", wanted="another method, or the values in `path`"
        )
    names_job = any(hole.root == "job" for each in request.texts for hole in each.holes)
    repeat = values.get("repeat")
    return replace(request, repeat=names_job if repeat is None else repeat)


def _fits_path(literal: str) -> bool:
    return re.fullmatch(r'[!$-;=?-Z\[\]_a-z~"%&|]*', literal) is not None


def _path_key(where: str, holes: tuple[str, ...], example: str) -> Key:
    def make(written: Any) -> Text:
        path = text(f"{where} path", written, holes, path=True)
        first = path.parts[0]
        literal = "".join(part for part in path.parts if isinstance(part, str))
        if "#" in literal:
            raise ValueError("it has a #, which is never sent")
        if not _fits_path(literal):
            raise ValueError("it has a character that no path may hold")
        leads = isinstance(first, Hole) and first.kind == "+"
        if not leads and not (isinstance(first, str) and first.startswith("/")):
            raise ValueError("it must begin with / or with a hole such as {+handle}")
        return path

    return Key(f"a path such as {example}", lambda value: isinstance(value, str), REQUIRED, make)


def _is_body(value: Any) -> bool:
    return isinstance(value, dict | list | str)
