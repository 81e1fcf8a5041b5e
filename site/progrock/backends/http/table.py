"""What the table of a backend over HTTP may hold, and what is made of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, get_args

from progrock.backends.base import JobState
from progrock.backends.errors import ConfigError
from progrock.backends.http import requests
from progrock.backends.http.addresses import is_address
from progrock.backends.http.requests import Request, bound_headers, headers_key, request_key
from progrock.backends.http.values import (
    Share,
    Value,
    advice,
    expression,
    header,
    written_text,
)
from progrock.backends.keys import REQUIRED, Key, number, string
from progrock.backends.templates import Hole, Scope, Text, text


@dataclass(frozen=True, kw_only=True)
class States:
    """What the backend's words (in lower case) and HTTP statuses mean.

    `other` is what any other word means, and None where no other word may come.
    """

    words: Mapping[str, JobState] = field(default_factory=dict)
    statuses: Mapping[int, JobState] = field(default_factory=dict)
    other: JobState | None = None


@dataclass(frozen=True, kw_only=True)
class Auth:
    """Where to get an access token with client credentials (RFC 6749, 4.4)."""

    token_url: Text
    client_id: Text
    client_secret: Text
    scope: Text | None = None


@dataclass(frozen=True, kw_only=True)
class HttpSpec:
    """What to ask a backend over HTTP, and where to look in its answers.

    The texts have their variables unfilled until a worker calls `bound`.
    """

    url: Text
    start: Request
    poll: Request | None
    poll_many: Request | None
    fetch: Request | None
    cancel: Request | None
    handle: Value
    state: Value | None
    states: States
    progress: Value | None
    progress_scale: float
    message: Value | None
    result: Value | None
    error: Value | None
    moves: Value | None
    headers: Mapping[str, Text]
    origins: tuple[str, ...]
    rate: float | None
    auth: Auth | None
    tls: Mapping[str, str]
    proxy: Text | None

    @property
    def needed_params(self) -> list[Hole]:
        """The holes of params without which a job would start that cannot be asked for."""
        holes = [hole for request in self._later for hole in request.needed]
        return [hole for hole in (*holes, *self.handle.holes) if hole.root == "params"]

    @property
    def reads_params(self) -> bool:
        """Whether a look at a running job, or its cancel, needs the job's params."""
        texts = [*self.headers.values(), *(each for it in self._later for each in it.texts)]
        values = [self.state, self.progress, self.message, self.result, self.error, self.moves]
        values += [value for each in self._later for value in (each.when, each.items, each.id)]
        found = [each for each in (*texts, *values) if each]
        return any(hole.root == "params" for each in found for hole in each.holes)

    def longest_look(self, timeout: float) -> float:
        """Seconds for all requests of one look; `timeout` is the backend's."""
        polls = [each.timeout or timeout for each in (self.poll, self.poll_many) if each]
        return max(polls) + (self.fetch.timeout or timeout if self.fetch else 0.0)

    @property
    def _later(self) -> list[Request]:
        """All requests but the start."""
        instead = self.cancel and self.cancel.instead
        later = (self.poll, self.poll_many, self.fetch, self.cancel, instead)
        return [request for request in later if request]

    def bound(self, where: str, environ: Mapping[str, str]) -> "HttpSpec":
        """The same with the variables filled in. Raises ConfigError, which never shows a value."""
        url = self.url.bound(f"{where} url", environ)
        if not is_address(url.filled(Scope())):
            raise ConfigError(f"{where} url", found="another text", wanted=_URL.wanted)

        def each(name: str) -> Any:
            request = getattr(self, name)
            return request and request.bound(f"{where} {name}", environ)

        for name, written in self._servers:
            if not _is_server(written.bound(f"{where} {name}", environ).filled(Scope())):
                raise ConfigError(f"{where} {name}", found="another text", wanted=_SERVER)
        auth = self.auth and Auth(
            **{
                key: written and written.bound(f"{where} auth {key}", environ)
                for key, written in vars(self.auth).items()
            }
        )
        return replace(
            self,
            url=url,
            **{name: each(name) for name in ("start", "poll", "poll_many", "fetch", "cancel")},
            headers=bound_headers(f"{where} headers", self.headers, environ),
            auth=auth,
            proxy=self.proxy and self.proxy.bound(f"{where} proxy", environ),
        )

    @property
    def _servers(self) -> list[tuple[str, Text]]:
        """The other addresses of the table, by their keys."""
        token_url = self.auth and self.auth.token_url
        both = (("auth token_url", token_url), ("proxy", self.proxy))
        return [(name, written) for name, written in both if written]


def http_keys(where: str) -> dict[str, Key]:
    """The keys of a table over HTTP that other tables do not have."""
    value = partial(_value_key, where)
    job = ("job", "params")
    known = ("job", "handle", "params")
    instead = request_key(
        where,
        "cancel instead",
        (*known, "answer", "header"),
        method="DELETE",
        more=requests.instead_keys(_expression_key(f"{where} cancel instead when")),
    )
    return {
        "url": replace(_URL, make=partial(text, f"{where} url", allowed=())),
        "start": request_key(
            where,
            "start",
            job,
            method="POST",
            default=REQUIRED,
            sends_params=True,
            more=requests.start_keys(),
        ),
        "poll": request_key(where, "poll", known),
        "poll_many": request_key(
            where,
            "poll_many",
            ("handles",),
            more=requests.many_keys(
                *(_expression_key(f"{where} poll_many {key}") for key in ("items", "id"))
            ),
        ),
        "fetch": request_key(
            where, "fetch", (*known, "answer", "header"), more=requests.fetch_keys()
        ),
        "cancel": request_key(
            where, "cancel", known, method="DELETE", more=requests.cancel_keys(instead)
        ),
        "handle": value("handle", REQUIRED),
        "state": value("state"),
        "states": Key(
            "the backend's words and HTTP statuses, each once, as"
            ' { running = ["queued", 202], succeeded = ["done"] }',
            lambda lists: lists["succeeded"],
            make=_states,
            keys={
                state: Key("a list of words and HTTP statuses", _are_words, (), lambda value: value)
                for state in get_args(JobState)
            },
        ),
        "progress": value("progress"),
        "progress_scale": number(1e-6, 1e15, 100.0),
        "message": value("message"),
        "result": value("result"),
        "error": value("error"),
        "moves": value("moves"),
        "headers": headers_key(where, job),
        "origins": Key(
            'a list of addresses such as ["https://files.example"]',
            lambda listed: isinstance(listed, list) and all(map(_is_origin, listed)),
            (),
            tuple,
        ),
        "rate": number(0.01, 1e6, None),
        "auth": Key(
            "a table with token_url, client_id and client_secret",
            default=None,
            make=lambda values: Auth(**values),
            keys={
                "token_url": _server_key(where, "auth token_url", REQUIRED),
                "client_id": _text_key(where, "auth client_id", REQUIRED),
                "client_secret": _text_key(where, "auth client_secret", REQUIRED),
                "scope": _text_key(where, "auth scope"),
            },
        ),
        "tls": Key(
            "a table of files: ca, cert and key",
            lambda values: bool(values["cert"]) or not values["key"],
            {},
            lambda values: {key: value for key, value in values.items() if value},
            keys={key: string("the path of a file") for key in ("ca", "cert", "key")},
        ),
        "proxy": _server_key(where, "proxy"),
    }


def http_spec(where: str, values: Mapping[str, Any]) -> HttpSpec:
    """What the values of these keys describe together. Raises ConfigError where they collide."""
    progress = values["progress"]
    if isinstance(progress, Share):
        progress = progress.value(values["progress_scale"])
    spec = HttpSpec(**{**values, "progress": progress})
    if spec.poll is None and spec.poll_many is None:
        raise ConfigError(
            f"{where} poll", found="nothing", wanted='{ path = "/tasks/{handle}" }, or poll_many'
        )
    if spec.state is None and (spec.states.words or spec.states.other):
        raise ConfigError(
            f"{where} state", found="nothing", wanted="where an answer has the words of `states`"
        )
    if spec.state is None and spec.poll_many is not None:
        raise ConfigError(
            f"{where} state",
            found="nothing",
            wanted="where an item of poll_many has its word, since all share one HTTP status",
        )
    if spec.cancel and spec.cancel.instead and spec.poll is None:
        raise ConfigError(
            f"{where} cancel instead",
            found="no poll",
            wanted="a poll, because the look at one job decides which cancel is sent",
        )
    if spec.poll_many and (holes := [h for each in spec.headers.values() for h in each.holes]):
        raise ConfigError(
            f"{where} headers",
            found=f"{{{holes[0].name}}}",
            wanted="no hole beside poll_many, which asks about many jobs; the headers of start,"
            " poll, fetch and cancel may have it",
        )
    for name in ("poll", "poll_many", "cancel"):
        request: Request | None = getattr(spec, name)
        wanted = "handles" if name == "poll_many" else None
        roots = {hole.root for each in request.texts for hole in each.holes} if request else set()
        if request and not (wanted in roots if wanted else roots & {"handle", "job", "params"}):
            raise ConfigError(
                f"{where} {name}",
                found="no hole",
                wanted=f"{{{wanted or 'handle'}}} in its path or body, which says which job",
            )
    return spec


# Keys


def _is_origin(value: Any) -> bool:
    return isinstance(value, str) and is_address(value)


_URL = Key(
    "an address such as https://render.internal/v1, without ? and #",
    lambda value: isinstance(value, str) and ("${" in value or is_address(value)),
)


_SERVER = "an address such as http://proxy.internal:3128 or https://login.internal/token"


def _is_server(value: str) -> bool:
    """Whether a text is an http or https address; a proxy's may hold user and password."""
    return re.fullmatch(r"https?://[!-\[\]-~]+", value) is not None


def _server_key(where: str, name: str, default: Any = None) -> Key:
    def right(value: Any) -> bool:
        return isinstance(value, str) and ("${" in value or _is_server(value))

    return Key(_SERVER, right, default, partial(text, f"{where} {name}", allowed=()))


def _text_key(where: str, name: str, default: Any = None) -> Key:
    make = partial(text, f"{where} {name}", allowed=())
    return replace(string("a text", default), make=make)


def _expression_key(where: str) -> Key:
    def make(written: Any) -> Value:
        return _expression(where, written)

    return Key("a JMESPath expression", lambda value: isinstance(value, str), REQUIRED, make)


def _value_key(where: str, name: str, default: Any = None) -> Key:
    """A key for a value out of an answer, in any of its forms."""
    at = f"{where} {name}"
    wanted = 'a JMESPath expression, { header = "…" } or { text = "…" }'
    if name == "progress":
        wanted += ', or { done = "…", of = "…" }'

    def make(written: Any) -> Any:
        if isinstance(written, str):
            return _expression(at, written)
        if not isinstance(written, dict):
            raise ValueError("neither a text nor a table")
        if written.keys() == {"header"} and isinstance(written["header"], str):
            return header(written["header"])
        if written.keys() == {"text"} and isinstance(written["text"], str):
            known = ("job", "params") if name == "handle" else ("job", "handle", "params")
            return written_text(at, written["text"], known)
        if name == "progress" and written.keys() == {"done", "of"}:
            return Share(*(_expression(f"{at} {key}", written[key]) for key in ("done", "of")))
        raise ValueError("a table with other keys")

    return Key(wanted, lambda value: True, default, make)


def _expression(where: str, written: Any) -> Value:
    if not isinstance(written, str):
        raise ConfigError(where, found=repr(written), wanted="a JMESPath expression")
    if re.fullmatch(r"headers?\.[A-Za-z][\w-]*", written) and (error := advice(where, written)):
        raise error
    try:
        return expression(written)
    except ValueError as reason:
        if error := advice(where, written):
            raise error from None
        wanted = f"a JMESPath expression ({' '.join(str(reason).split())})"
        raise ConfigError(where, found=repr(written), wanted=wanted) from None


def _are_words(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    for word in value:
        if isinstance(word, bool) or (isinstance(word, int) and not 100 <= word <= 599):
            raise ValueError(f'{word} is no HTTP status; a word is a text: "{str(word).lower()}"')
        if not isinstance(word, str | int):
            return False
    return True


def _states(lists: Mapping[str, list[str | int]]) -> States:
    """What each word and status means. Raises ValueError where one stands twice."""
    words: dict[str, JobState] = {}
    statuses: dict[int, JobState] = {}
    for state, listed in lists.items():
        for each in listed:
            key = each if isinstance(each, int) else each.strip().lower()
            if key in words or key in statuses:
                raise ValueError(f"{each!r} stands twice")
            (statuses if isinstance(key, int) else words)[key] = state  # type: ignore[index, assignment]  # by the kind of key
    other = words.pop("*", None)
    if not (words or statuses):
        raise ValueError("at least one word or status is wanted beside *")
    return States(words=words, statuses=statuses, other=other)
