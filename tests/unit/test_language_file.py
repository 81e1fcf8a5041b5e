"""The file as a whole: requests, defaults, keys for people, classes, and what a mistake is told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from progrock.backends import ConfigError, JobView, Options, Status, build, load, schemas
from progrock.backends.http import HttpBackend, Outgoing
from progrock.backends.http.spec import HttpSpec
from progrock.backends.templates import Text
from tests.language import options, spec, toml

INSTEAD = '{ path = "/t/{handle}", instead = { when = "why", path = "/q/{answer.id}" } }'
MANY = '{ path = "/t?i={handles}", items = "jobs", id = "id" }'


class Signed(HttpBackend):
    """A class that extends HttpBackend, with a key of its own."""

    def __init__(self, options: Options, *, secret: str, rounds: int = 1) -> None:
        super().__init__(options)
        self.secret, self.rounds = secret, rounds

    async def headers(self, request: Outgoing) -> Mapping[str, str]:
        return {"X-Signature": f"{self.secret}:{request.method}"}

    async def look(self, job: JobView) -> Status:
        return Status(state="succeeded", result=self.rounds)


# Requests


def test_each_request_has_its_documented_defaults() -> None:
    found = spec(
        poll_many=MANY, fetch='{ path = "/o/{handle}" }', cancel='{ path = "/t/{handle}" }'
    )
    start, poll, many, fetch, cancel = (
        found.start,
        found.poll,
        found.poll_many,
        found.fetch,
        found.cancel,
    )
    assert poll is not None
    assert many is not None
    assert fetch is not None
    assert cancel is not None
    methods = [each.method for each in (start, poll, many, fetch, cancel)]
    assert methods == ["POST", "GET", "GET", "GET", "DELETE"]
    assert [each.has_body for each in (start, poll, many, fetch, cancel)] == [True] + [False] * 4
    assert {each.timeout for each in (start, poll, many, fetch, cancel)} == {None}
    assert (start.repeat, start.taken, cancel.wait, fetch.read, fetch.on, many.max) == (
        False,
        (),
        False,
        "json",
        ("succeeded",),
        50,
    )


@pytest.mark.parametrize("request_", ["start", "poll", "poll_many", "fetch", "cancel"])
def test_a_request_knows_its_own_keys_and_no_others(request_: str) -> None:
    own = {
        "start": {"repeat": "true", "taken": "[409]"},
        "cancel": {"wait": "true"},
        "fetch": {"read": '"text"', "on": '["failed"]'},
        "poll_many": {"max": "9"},
    }
    hole = {"start": "", "poll_many": "/{handles}"}.get(request_, "/{handle}")
    rest = ', items = "a", id = "b"' if request_ == "poll_many" else ""
    for owner, keys in own.items():
        for key, value in keys.items():
            written = f'{{ path = "/t{hole}"{rest}, {key} = {value} }}'
            if owner == request_:
                options(**{request_: written})
            else:
                with pytest.raises(ConfigError) as raised:
                    options(**{request_: written})
                assert f"[render] {request_}" in raised.value.where
                assert f"the key '{key}'" in raised.value.found


@pytest.mark.parametrize(
    ("key", "written", "where", "told"),
    [
        ("start", '{ path = "/t", body = {}, form = {} }', "start", "one of them"),
        ("poll", '{ path = "/t/{handle}", body = {} }', "poll", "another method"),
        ("poll", '{ path = "/t/{handle}", form = {} }', "poll", "another method"),
        ("start", '{ path = "/t", method = "GET", body = {} }', "start", "another method"),
        ("start", '{ path = "/t", method = "post" }', "start method", "POST"),
        ("start", '{ path = "/t", body = 7 }', "start body", "JSON"),
        ("start", '{ path = "/t", body = true }', "start body", "JSON"),
        ("start", '{ path = "/t", body = "null" }', "start body", "{}"),
        ("start", '{ path = "/t", timeout = 0 }', "start timeout", "a number from 0.1"),
        ("start", '{ path = "/t", timeout = "5" }', "start timeout", "a number from 0.1"),
        ("start", '{ pth = "/t" }', "start", "path"),
        ("start", '{ path = "/t", heders = {} }', "start", "headers"),
        ("start", '{ path = "/t", headers = { A = 1 } }', "start headers", "HTTP headers"),
        ("start", '{ path = "/t", headers = { "A b" = "1" } }', "start headers", "HTTP headers"),
        ("start", '{ path = "/t", headers = { "A:" = "1" } }', "start headers", "HTTP headers"),
        ("poll_many", '{ path = "/t", items = "a", id = "b" }', "poll_many", "{handles}"),
        ("poll_many", MANY.replace('"id"', '{ header = "X" }'), "poll_many id", "JMESPath"),
        ("poll_many", MANY.replace('"jobs"', '"jobs["'), "poll_many items", "JMESPath"),
        ("poll_many", MANY.replace(" }", ", max = 0 }"), "poll_many max", "from 1 to 1000"),
        ("cancel", '{ path = "/cancel" }', "cancel", "{handle}"),
        ("cancel", '{ path = "/t/{handle}", wait = 1 }', "cancel wait", "true or false"),
        ("cancel", '{ path = "/t/{answer.id}" }', "cancel path", "in this place"),
        (
            "cancel",
            INSTEAD.replace('when = "why"', 'when = "a["'),
            "cancel instead when",
            "JMESPath",
        ),
        ("cancel", INSTEAD.replace('when = "why", ', ""), "cancel instead when", "JMESPath"),
        ("cancel", INSTEAD.replace("{answer.id}", "{answr.id}"), "cancel instead path", "{answer}"),
        ("stat", "7", "", "state"),
        ("interval", '"1"', "interval", "a number"),
    ],
)
def test_a_mistake_is_told_with_where_found_and_wanted(
    key: str, written: str, where: str, told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        options(**{key: written})
    assert raised.value.where.endswith(f"[render] {where}".rstrip())
    assert told in raised.value.wanted
    assert "\n" not in str(raised.value)


def test_a_cancel_that_depends_on_a_look_needs_a_poll() -> None:
    assert options(cancel=INSTEAD).spec.cancel.instead.when.written == "why"
    with pytest.raises(ConfigError, match="cancel instead: found no poll; wanted a poll"):
        options(cancel=INSTEAD, poll=None, poll_many=MANY)


def test_a_poll_may_be_named_by_its_body_its_headers_or_the_job() -> None:
    for request in (
        '{ path = "/status", method = "POST", body = { id = "{handle}" } }',
        '{ path = "/status", headers = { X-Id = "{handle}" } }',
        '{ path = "/status/{job}" }',
        '{ path = "/status?q={params.name}" }',
    ):
        options(poll=request)
    with pytest.raises(ConfigError, match="no hole"):
        options(poll='{ path = "/status", method = "POST", body = {} }')


def test_files_of_tls_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    file.write_text(toml(tls='{ ca = "own.pem", cert = "/etc/own.pem" }'))
    spec = load(file)["render"].spec
    assert isinstance(spec, HttpSpec)
    assert spec.tls == {"ca": str(tmp_path / "own.pem"), "cert": "/etc/own.pem"}


# For people


def test_the_keys_for_people_have_their_defaults() -> None:
    found = options()
    assert (found.title, found.label, found.params_schema, found.browser) == ("", None, None, False)
    found = options(title='"Films"', label='"{params.kind} for {params.customer}"', browser="true")
    assert (found.title, found.browser) == ("Films", True)
    assert isinstance(found.label, Text)


@pytest.mark.parametrize(
    ("key", "written"),
    [
        *(("title", '""'), ("title", "7"), ("label", "7"), ("label", '"{job}"')),
        *(("browser", '"yes"'), ("browser", "1"), ("params", "7"), ("params", "{}")),
    ],
)
def test_wrong_keys_for_people_are_told(key: str, written: str) -> None:
    with pytest.raises(ConfigError, match=rf"\[render\] {key}"):
        options(**{key: written})


SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["pages"],
    "properties": {
        "pages": {"type": "integer", "minimum": 1},
        "deep": {"type": "array", "items": {"properties": {"x": {"enum": ["a", "b"]}}}},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"pages": 1}, None),
        ({"pages": 1, "deep": [{"x": "a"}]}, None),
        ({"pages": 0}, "params.pages: 0 is less than the minimum of 1"),
        ({"pages": "1"}, "params.pages: '1' is not of type 'integer'"),
        ({"pages": True}, "params.pages: True is not of type 'integer'"),
        ({}, "params.pages: 'pages' is a required property"),
        ({"pages": 1, "admin": 1}, "params: Additional properties are not allowed"),
        ({"pages": 1, "deep": [{}, {"x": "c"}]}, "params.deep.1.x: 'c' is not one of"),
    ],
)
def test_params_that_do_not_fit_are_refused_with_the_path_of_what_is_wrong(
    params: Any, told: str | None
) -> None:
    found = schemas.complaint(SCHEMA, params)
    assert found == told if told is None else (found or "").startswith(told)


def test_a_schema_may_be_a_table_or_a_file_beside_the_backends_file(tmp_path: Path) -> None:
    (tmp_path / "film.json").write_text(json.dumps(SCHEMA), encoding="utf-8")
    path = tmp_path / "backends.toml"
    path.write_text(toml(params='"film.json"'), encoding="utf-8")
    assert load(path)["render"].params_schema == SCHEMA
    assert options(params='{ type = "object" }').params_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('"none.json"', "a file with a JSON Schema"),
        ('{ type = "objekt" }', "a JSON Schema"),
        ('{ properties = { a = { minimum = "1" } } }', "a JSON Schema"),
        ('{ required = "a" }', "a JSON Schema"),
    ],
)
def test_a_wrong_schema_is_told(written: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options(params=written)
    assert "[render] params" in raised.value.where
    assert told in raised.value.wanted


def test_a_schema_is_never_loaded_from_the_network() -> None:
    schema = {"$ref": "http://127.0.0.1:1/evil.json"}
    assert "refers to what is not there" in (schemas.complaint(schema, {}) or "")


def test_params_nested_too_deeply_for_the_schema_are_refused() -> None:
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}
    deep: Any = 1
    for _ in range(250):
        deep = [deep]
    found = schemas.complaint(schema, {"x": deep})
    assert found is None or found.startswith("params")
    found = schemas.complaint(schema, deep)
    assert found is None or found.startswith("params")


# Classes


def test_a_class_that_extends_http_backend_has_the_same_keys_and_its_own() -> None:
    lines = {"class": f'"{__name__}.Signed"', "secret": '"s"', "fetch": '{ path = "/o/{handle}" }'}
    found = options(**lines, cancel='{ path = "/t/{handle}" }', timeout="7")
    assert (found.cancels, found.timeout, found.repeat) == (True, 7, False)
    backend = build(found, {})
    assert isinstance(backend, Signed)
    assert (backend.secret, backend.rounds) == ("s", 1)
    assert isinstance(backend.spec, HttpSpec)
    assert backend.spec.fetch is not None
    with pytest.raises(ConfigError, match=r"\[render\] state"):
        options(**lines | {"state": '"status["'})
    with pytest.raises(ConfigError, match="unexpected keyword argument 'sekret'"):
        options(**lines | {"sekret": '"s"'})
    with pytest.raises(ConfigError, match="missing a required"):
        options(**{"class": f'"{__name__}.Signed"'})


async def test_a_class_that_extends_http_backend_may_override_one_method() -> None:
    lines = {"class": f'"{__name__}.Signed"', "secret": '"s"', "rounds": "3"}
    backend = build(options(**lines), {})
    found = await backend.poll([JobView("j1", "h1", {}), JobView("j2", "h2", {})])
    assert [each.result for each in found.values() if isinstance(each, Status)] == [3, 3]
    await backend.aclose()
