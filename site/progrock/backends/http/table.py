"""The keys of a table over HTTP, and the rules that hold between them."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, get_args

from progrock.backends.base import JobState
from progrock.backends.errors import ConfigError
from progrock.backends.http import requests
from progrock.backends.http.addresses import ADDRESS, SERVER, is_address, is_server
from progrock.backends.http.requests import Request, headers_key, request_key
from progrock.backends.http.spec import Auth, HttpSpec, States
from progrock.backends.http.values import (
    Share,
    Value,
    advice,
    expression,
    header,
    written_text,
)
from progrock.backends.keys import REQUIRED, Key, number, string
from progrock.backends.templates import text


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
            "the backend's words and HTTP statuses, each once and some for `succeeded`, such as"
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
            "a table of the files ca, cert and key, where key needs cert",
            lambda values: bool(values["cert"]) or not values["key"],
            {},
            lambda values: {key: value for key, value in values.items() if value},
            keys={key: string("the path of a file") for key in ("ca", "cert", "key")},
        ),
        "proxy": _server_key(where, "proxy"),
    }


def http_spec(where: str, values: Mapping[str, Any]) -> HttpSpec:
    """The spec that the values of these keys make. Raises ConfigError where they do not fit."""
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
            f"{where} state",
            found="nothing",
            wanted="an expression that finds the words of `states` in an answer",
        )
    if spec.state is None and spec.poll_many is not None:
        raise ConfigError(
            f"{where} state",
            found="nothing",
            wanted="an expression that finds the word of each item of poll_many, because all share"
            " one HTTP status",
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
            wanted="no hole here, because poll_many asks about many jobs at once. The headers of"
            " start, poll, fetch and cancel may have holes",
        )
    for name in ("poll", "poll_many", "cancel"):
        request: Request | None = getattr(spec, name)
        wanted = "handles" if name == "poll_many" else None
        roots = {hole.root for each in request.texts for hole in each.holes} if request else set()
        if request and not (wanted in roots if wanted else roots & {"handle", "job", "params"}):
            raise ConfigError(
                f"{where} {name}",
                found="no hole",
                wanted=f"{{{wanted or 'handle'}}} in its path or body, to say which job is meant",
            )
    return spec


# Keys


def _is_origin(value: Any) -> bool:
    return isinstance(value, str) and is_address(value)


_URL = Key(ADDRESS, lambda value: isinstance(value, str) and ("${" in value or is_address(value)))


def _server_key(where: str, name: str, default: Any = None) -> Key:
    def right(value: Any) -> bool:
        return isinstance(value, str) and ("${" in value or is_server(value))

    return Key(SERVER, right, default, partial(text, f"{where} {name}", allowed=()))


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
            raise ValueError("it is neither a text nor a table")
        if written.keys() == {"header"} and isinstance(written["header"], str):
            return header(written["header"])
        if written.keys() == {"text"} and isinstance(written["text"], str):
            known = ("job", "params") if name == "handle" else ("job", "handle", "params")
            return written_text(at, written["text"], known)
        if name == "progress" and written.keys() == {"done", "of"}:
            return Share(*(_expression(f"{at} {key}", written[key]) for key in ("done", "of")))
        raise ValueError("it is a table with other keys")

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
            raise ValueError(
                f'{word} is no HTTP status. Write a word as a text: "{str(word).lower()}"'
            )
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
        raise ValueError("* needs at least one word or status beside it")
    return States(words=words, statuses=statuses, other=other)
