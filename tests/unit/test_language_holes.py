"""Texts with holes: what they take, where they may stand, and what a browser cannot do by them."""

import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from progrock.backends import BackendError, ConfigError, JobView
from progrock.backends.bodies import as_form, as_json, body, bound, filled
from progrock.backends.http.spec import HttpSpec
from progrock.backends.templates import ROOTS, Scope, Unfillable, text
from tests.language import SECRET, built, job, options, scope, spec

PARAMS = {
    "name": "Film",
    "n": 3,
    "big": 2**63,
    "share": 0.5,
    "on": True,
    "off": False,
    "none": None,
    "list": [1, "b", None],
    "deep": {"a": {"b": [{"c": "d"}]}, "task-id": 7},
    "empty": "",
}


def sent(written: Any, where: Scope | None = None) -> Any:
    """The JSON that a body of the file becomes."""
    return json.loads(as_json(filled(body("body", written, ROOTS), where or scope("h1", PARAMS))))


# One hole alone takes the value with its type


@pytest.mark.parametrize(
    ("hole", "value"),
    [
        ("{params}", PARAMS),
        ("{params.name}", "Film"),
        ("{params.n}", 3),
        ("{params.big}", 2**63),
        ("{params.share}", 0.5),
        ("{params.on}", True),
        ("{params.off}", False),
        ("{params.none}", None),
        ("{params.list}", [1, "b", None]),
        ("{params.list.0}", 1),
        ("{params.deep.a.b.0.c}", "d"),
        ("{params.deep.task-id}", 7),
        ("{params.empty}", ""),
        ("{job}", "j1"),
        ("{handle}", "h1"),
        ("{answer.x.y}", [1]),
        ("{header.location}", "/x"),
        ("{header.Location}", "/x"),
        ("{handles}", ["a,b", "7"]),
        ("{#handles}", ["a,b", 7]),
    ],
)
def test_a_text_that_is_one_hole_takes_the_value_with_its_type(hole: str, value: Any) -> None:
    where = Scope(
        job("h1", PARAMS), ["a,b", "7"], answer={"x": {"y": [1]}}, headers={"location": "/x"}
    )
    assert sent({"a": hole}, where) == {"a": value}
    assert sent(hole, where) == value


@pytest.mark.parametrize(
    ("handle", "value"),
    [
        ("7", 7),
        ("0", 0),
        ("1234567890123456789", 1234567890123456789),  # an id of 19 digits, such as a snowflake
        (str(2**64 - 1), 2**64 - 1),
        (str(2**64), str(2**64)),
        ("007", "007"),  # as a number it would be another handle
        ("-7", "-7"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        ("\u0667", "\u0667"),
        ("abc", "abc"),
        ("9" * 4096, "9" * 4096),
    ],
)
def test_a_handle_of_digits_may_be_a_number(handle: str, value: Any) -> None:
    assert sent({"id": "{#handle}"}, scope(handle)) == {"id": value}
    assert sent({"id": "{handle}"}, scope(handle)) == {"id": handle}


# What is missing


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ({"a": "{params.x}", "b": 1}, {"b": 1}),
        ({"a": {"b": "{params.x}"}}, {"a": {}}),
        ({"a": {"b": {"c": ["{params.x}", {"d": "{params.x}"}]}}}, {"a": {"b": {"c": [{}]}}}),
        (["{params.x}", "{params.n}", "{params.x}"], [3]),
        ({"a": "{params.name.x}", "b": "{params.list.9}", "c": "{params.n.0}"}, {}),
        ({"a": "{params.none.x}", "b": "{params.none}"}, {"b": None}),
        ({"a": "{params.list.-1}", "b": "{params.list.x}"}, {}),
        ({"a": "{header.retry-after}", "b": "{answer.x}"}, {}),
    ],
)
def test_a_key_or_entry_whose_value_is_missing_is_left_out(written: Any, wanted: Any) -> None:
    assert sent(written) == wanted


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("on {params.day}", "params.day is missing"),
        ("on {params.deep.x.y}", "params.deep.x.y is missing"),
        ("on {params.none}", "params.none is missing"),
        ("{params.name}{params.day}", "params.day is missing"),
        ("on {answer.x}", "answer.x is missing"),
        ("on {header.location}", "header.location is missing"),
    ],
)
def test_inside_a_longer_text_a_missing_value_refuses_the_request(written: str, told: str) -> None:
    with pytest.raises(Unfillable, match=f"^{told}$") as raised:
        sent({"a": [{"b": written}]})
    assert not raised.value.sent


async def test_a_start_with_a_missing_value_is_refused_at_once_and_nothing_is_sent() -> None:
    for start in (
        '{ path = "/tasks", body = { day = "on {params.day}" } }',
        '{ path = "/tasks/{params.day}" }',
        '{ path = "/tasks", form = { day = "on {params.day}" } }',
        '{ path = "/tasks", form = "{params.day}" }',
        '{ path = "/tasks", headers = { X-Day = "{params.day}" } }',
    ):
        backend = built(start=start, url='"http://127.0.0.1:1"')
        with pytest.raises(Unfillable, match=r"missing|no fields") as raised:
            await backend.start(job(""))
        assert (raised.value.final, raised.value.sent) == (True, False)
        await backend.aclose()


@pytest.mark.parametrize(
    "lines",
    [
        {"poll": '{ path = "/{params.day}/{handle}" }'},
        {"poll": '{ path = "/t/{handle}", headers = { X-Day = "{params.day}" } }'},
        {"cancel": '{ path = "/t/{handle}", body = { a = "on {params.day}" } }'},
        {"fetch": '{ path = "/{params.day}/{answer.x}" }'},
        {"handle": '{ text = "{params.day}-{job}" }'},
    ],
)
async def test_a_start_is_refused_where_a_later_request_would_lack_a_param(
    lines: dict[str, str],
) -> None:
    backend = built(url='"http://127.0.0.1:1"', **lines)
    with pytest.raises(Unfillable, match=r"^params\.day is missing$") as raised:
        await backend.start(job(""))
    assert raised.value.final
    await backend.aclose()


async def test_a_later_request_may_lack_a_param_that_is_left_out_of_its_body() -> None:
    poll = '{ path = "/t/{handle}", method = "POST", body = { a = "{params.day}" } }'
    backend = built(url='"http://127.0.0.1:1"', poll=poll)
    with pytest.raises(BackendError, match="refused"):
        await backend.start(job(""))
    await backend.aclose()


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("a {params.name} b", "a Film b"),
        ("{params.name}{params.n}", "Film3"),
        ("{params.on}/{params.off}", "true/false"),
        ("{params.share} {params.big}", "0.5 9223372036854775808"),
        ("x {params.list}", 'x [1,"b",null]'),
        ("x {params.deep.a}", 'x {"b":[{"c":"d"}]}'),
        ("{params.empty}!", "!"),
        ("x {handles}", "x a,b"),
    ],
)
def test_inside_a_longer_text_values_stand_as_text(written: str, wanted: str) -> None:
    where = Scope(job("h1", PARAMS), ["a", "b"])
    assert sent({"a": written}, where) == {"a": wanted}


# Braces around anything else


@pytest.mark.parametrize(
    "written",
    [
        "query { jobs { id state } }",
        "{ job }",
        "{}",
        "{{",
        "}",
        "{ params.x }",
        "{params.}",
        "{.x}",
        "{1}",
        "{a b}",
        "{a:b}",
        "{{}}",
        "$x",
        "${}",
        "$(x)",
        "{params[0]}",
        "{job,handle}",
    ],
)
def test_braces_around_anything_else_stay_as_they_are(written: str) -> None:
    assert sent({"a": written}) == {"a": written}


@pytest.mark.parametrize(
    ("hole", "told"),
    [
        ("{jobs}", "{job}"),
        ("{param.x}", "{params}"),
        ("{hande}", "{handle}"),
        ("{state}", "with spaces, where no hole is meant"),
        ("{job.id}", "{job}"),
        ("{handle.x}", "{handle}"),
        ("{header}", "the name of one header"),
        ("{header.a.b}", "the name of one header"),
        ("{+handle}", "+ only in a path"),
        ("{+params.x}", "a browser chooses the params"),
        ("{#job}", "# only in {#handle} and {#handles}"),
        ("{#params.x}", "# only in {#handle} and {#handles}"),
    ],
)
def test_a_wrong_hole_is_told_with_the_nearest_one(hole: str, told: str) -> None:
    for written in (hole, f"a {hole}", {"b": [hole]}):
        with pytest.raises(ConfigError) as raised:
            body("body", {"a": written}, ROOTS)
        assert told in raised.value.wanted
        assert hole in raised.value.found


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ({"start": '{ path = "/t", body = { a = "{handle}" } }'}, "start body.a"),
        ({"start": '{ path = "/t", headers = { A = "{answer.x}" } }'}, "start headers.A"),
        ({"poll": '{ path = "/t/{handle}", headers = { A = "{header.x}" } }'}, "poll headers.A"),
        ({"cancel": '{ path = "/t/{answer.x}" }'}, "cancel path"),
        ({"headers": '{ A = "{handles}" }'}, "headers.A"),
        ({"headers": '{ A = "{handle}" }'}, "headers.A"),  # a start has none
        (
            {
                "headers": '{ A = "{job}" }',
                "poll_many": '{ path = "/t/{handles}", items = "a", id = "b" }',
            },
            "headers",
        ),
        ({"url": '"https://x/{handle}"'}, "url"),
        ({"label": '"{handle}"'}, "label"),
        ({"label": '"{job}"'}, "label"),
        ({"handle": '{ text = "{answer.x}" }'}, "handle"),
        ({"handle": '{ text = "x-{handle}" }'}, "handle"),  # it has none before it is found
        ({"message": '{ text = "{header.x}" }'}, "message"),
        ({"auth": '{ token_url = "https://x", client_id = "{job}", client_secret = "x" }'}, "auth"),
        ({"proxy": '"http://{job}"'}, "proxy"),
    ],
)
def test_a_hole_that_has_no_value_there_is_refused(lines: dict[str, str], where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options(**lines)
    assert f"[render] {where}" in raised.value.where


@pytest.mark.parametrize("name", ["{params.x}", "${TOKEN}", "a{job}"])
def test_a_name_in_a_body_has_no_holes(name: str) -> None:
    with pytest.raises(ConfigError, match="a name without holes"):
        body("body", {"a": [{name: 1}]}, ROOTS)


# Bodies


def test_a_body_may_be_a_text_that_is_json_because_toml_has_no_null() -> None:
    assert sent('{"a": null, "b": "{params.name}", "c": ["{params.n}", "x {params.n}"]}') == {
        "a": None,
        "b": "Film",
        "c": [3, "x 3"],
    }
    assert sent("[null, 1.5]") == [None, 1.5]
    with pytest.raises(ConfigError, match="for an empty one"):
        body("body", "null", ROOTS)


@pytest.mark.parametrize(
    "written", ['"hello"', "'{'", "'{\"a\": {params.x}}'", '"{params.a} {params.b}"', '""', "7"]
)
def test_a_body_that_is_no_json_is_told(written: str) -> None:
    if written == '"hello"':  # TOML's text: hello, which is no JSON
        assert json.loads(written) == "hello"
    with pytest.raises(ConfigError, match=r"\[render\] start body"):
        options(start=f'{{ path = "/t", body = {written} }}')


@pytest.mark.parametrize("written", ["{ a = 2026-01-01 }", "{ a = nan }", "{ a = [inf] }"])
def test_a_body_holds_only_what_json_can_hold(written: str) -> None:
    if "2026" in written:  # a date becomes its text
        found = spec(start=f'{{ path = "/t", body = {written} }}').start.body
        assert json.loads(as_json(filled(found, scope()))) == {"a": "2026-01-01"}
        return
    with pytest.raises(ConfigError, match="a number that JSON can hold"):
        options(start=f'{{ path = "/t", body = {written} }}')


def test_a_body_is_a_whitelist_of_params() -> None:
    evil = {"name": "x", "admin": True, "job_id": 1}
    found = spec(start='{ path = "/t", body = { job_id = 77, name = "{params.name}" } }').start
    assert json.loads(as_json(filled(found.body, scope("", evil)))) == {"job_id": 77, "name": "x"}


INJECTIONS = ['","admin":true,"x":"', '"}', "\\", '\\"', "\n", '1,"admin":true', "\u2028", "}"]


@pytest.mark.parametrize("value", [*INJECTIONS, ["a"], {"admin": 1}, 7, True])
@pytest.mark.parametrize(
    "written",
    [
        '{"name": "{params.name}"}',
        '{"name": "{params.name}", "n": {params.n}}',
        '{"name": {params.name}}',
        '[{"name": "x {params.name} y"}]',
        ' {"a": "\\"", "name": "{params.name}"} ',
    ],
)
def test_a_value_cannot_break_out_of_a_text_that_is_json_itself(written: str, value: Any) -> None:
    inner = sent({"payload": written}, scope("", {"name": value, "n": 1}))["payload"]
    found = json.loads(inner)
    found = found[0] if isinstance(found, list) else found
    assert set(found) <= {"a", "n", "name"}
    if isinstance(value, str):
        assert found["name"] in (value, f"x {value} y")


@pytest.mark.parametrize("value", [*INJECTIONS, '") { id } deleteAll(x: "'])
@pytest.mark.parametrize(
    "written",
    [
        'mutation { start(name: "{params.name}") { id } }',
        "mutation start { start(name: {params.name}) { id } }",
        '{ job(name: "{params.name}") { id } }',
        'query Q($x: Int) { job(name: "{params.name}", x: $x) { id } }',
    ],
)
def test_a_value_cannot_break_out_of_a_string_of_graphql(written: str, value: str) -> None:
    found = sent({"query": written}, scope("", {"name": value}))["query"]
    before, _, after = written.partition('"{params.name}"' if '"' in written else "{params.name}")
    assert found.startswith(before)
    assert found.endswith(after)
    assert json.loads(found[len(before) : len(found) - len(after)]) == value


def test_a_text_that_only_begins_with_a_bracket_is_for_people() -> None:
    where = scope("", {"name": 'a "b"'})
    assert sent({"title": "[urgent] {params.name}"}, where) == {"title": '[urgent] a "b"'}
    assert sent({"title": "{params.name} is done"}, where) == {"title": 'a "b" is done'}
    assert sent({"title": 'He said "{params.name}"'}, where) == {"title": 'He said "a "b""'}


# Forms


def form(written: Any, where: Scope) -> str:
    return as_form(filled(body("form", written, ROOTS), where)).decode()


@pytest.mark.parametrize(
    ("written", "fields"),
    [
        ({"a": "{params.name}", "b": "{params.x}"}, "a=Film"),
        ({"a": "{params.n}", "b": "{params.on}", "c": "{params.none}"}, "a=3&b=true"),
        ({"a": ["{params.name}", "x", "{params.x}"]}, "a=Film&a=x"),
        ({"a": "{params.list}"}, "a=1&a=b"),
        ({"a": "{params.deep.a}"}, "a=%7B%22b%22%3A%5B%7B%22c%22%3A%22d%22%7D%5D%7D"),
        ({"a": "x {params.name}&b=1"}, "a=x+Film%26b%3D1"),
        ('{"a": "{job}", "b": null}', "a=j1"),
        ({}, ""),
    ],
)
def test_a_form_has_a_field_for_each_name(written: Any, fields: str) -> None:
    assert form(written, scope("h1", PARAMS)) == fields


def test_the_params_can_be_the_fields() -> None:
    assert form("{params}", scope("", {"a": 1, "b": ["x", "y"]})) == "a=1&b=x&b=y"
    assert form("{params.deep}", scope("", {"deep": {"c": "é"}})) == "c=%C3%A9"
    with pytest.raises(Unfillable, match="the form has no fields"):
        form("{params.x}", scope())


@pytest.mark.parametrize("written", ["[1]", "'[1]'", "7", "true"])
def test_a_form_that_has_no_names_is_told(written: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] start form"):
        options(start=f'{{ path = "/t", form = {written} }}')


# Variables and files


def test_variables_are_allowed_in_url_headers_paths_and_bodies(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n", encoding="utf-8")
    file = f"${{file:{tmp_path}/token}}"
    found = spec(
        {"V": "v9"},
        url='"https://${HOST:-render.internal}/${V}"',
        headers=f'{{ Authorization = "Bearer {file}", X = "${{V}}" }}',
        start=f'{{ path = "/${{V}}/{file}", body = {{ a = "${{V}}", b = ["{file}"] }} }}',
        poll='{ path = "/t/{handle}", method = "POST", form = { a = "${V}" } }',
    )
    nothing = scope()
    assert found.url.filled(nothing) == "https://render.internal/v9"
    assert found.headers["Authorization"].filled(nothing) == f"Bearer {SECRET}"
    assert found.start.path.filled(nothing) == f"/v9/{SECRET}"
    assert filled(found.start.body, nothing) == {"a": "v9", "b": [SECRET]}
    assert found.poll is not None
    assert filled(found.poll.form, nothing) == {"a": "v9"}


@pytest.mark.parametrize(
    "lines",
    [
        {"label": '"${TOKEN} {params.x}"'},
        {"handle": '{ text = "${TOKEN}-{job}" }'},
        {"message": '{ text = "${file:/x}" }'},
    ],
)
def test_a_variable_is_refused_where_others_than_workers_read(lines: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="without variables"):
        options(**lines)


def test_a_file_is_read_again_when_it_has_changed_and_kept_when_it_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n", encoding="utf-8")
    written = text("x", f"Bearer ${{file:{path}}}", ()).bound("x", {})
    assert written.filled(Scope()) == "Bearer one"
    path.write_text("second\r\n", encoding="utf-8")
    assert written.filled(Scope()) == "Bearer second"
    path.write_bytes(b"\xff\xff\xff")
    assert written.filled(Scope()) == "Bearer second"
    path.unlink()
    assert written.filled(Scope()) == "Bearer second"
    path.write_text("third one", encoding="utf-8")
    assert written.filled(Scope()) == "Bearer third one"


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"\xff" + SECRET.encode())
    for name, reason in {"none": "No such file", "bad": "not UTF-8", ".": "directory"}.items():
        with pytest.raises(ConfigError, match=reason) as raised:
            built(headers=f'{{ A = "${{file:{tmp_path}/{name}}}" }}')
        assert SECRET not in str(raised.value)
        assert "[render] headers.A" in raised.value.where


def test_a_default_counts_for_what_is_unset_or_empty() -> None:
    def url(environ: dict[str, str], written: str) -> str:
        return spec(environ, url=f'"https://x/{written}"').url.filled(Scope())

    assert url({}, "${A:-b}") == "https://x/b"
    assert url({"A": ""}, "${A:-b}") == "https://x/b"
    assert url({"A": "c"}, "${A:-b}") == "https://x/c"
    assert url({}, "${A:-}") == "https://x/"
    with pytest.raises(ConfigError, match="no A in the environment"):
        url({"A": ""}, "${A}")


def test_a_variable_in_a_text_that_is_json_cannot_break_it() -> None:
    found = body("body", {"a": '{"token": "${T}"}'}, ROOTS)
    ready = bound("body", found, {"T": 'a"b\\'})
    assert json.loads(filled(ready, scope())["a"]) == {"token": 'a"b\\'}


def test_a_secret_stands_in_no_repr_and_no_error(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    (tmp_path / "token").write_text(SECRET, encoding="utf-8")
    auth = '{ token_url = "https://x/${T}", client_id = "${T}", client_secret = "${T}" }'
    backend = built(
        {"T": SECRET},
        url='"https://x/${T}"',
        headers=f'{{ A = "${{T}}", B = "${{file:{tmp_path}/token}}" }}',
        start='{ path = "/${T}", body = { a = "x ${T} y", b = ["${T}"] } }',
        poll='{ path = "/{handle}", method = "POST", form = { a = "${T}" } }',
        auth=auth,
        proxy='"http://u:${T}@proxy"',
    )
    found: HttpSpec = backend.options.spec
    shown = repr(backend.options) + repr(found) + repr(vars(backend))
    assert SECRET not in shown
    for wrong in ("a\nb", "é"):
        with pytest.raises(ConfigError) as raised:
            built({"T": SECRET + wrong}, headers='{ A = "${T}" }')
        assert SECRET not in str(raised.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\0b", "é", "\x7f", "a\u2028b"])
async def test_a_value_cannot_inject_a_header(value: str) -> None:
    backend = built(
        start='{ path = "/t", headers = { X-Name = "{params.name}" } }', url='"http://127.0.0.1:1"'
    )
    with pytest.raises(Unfillable, match="X-Name would hold a character that no header"):
        await backend.start(job("", {"name": value}))
    await backend.aclose()


# Laws

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc0"), inner, max_size=3)
    ),
    max_leaves=8,
)
holes = st.sampled_from(
    [
        *("{job}", "{handle}", "{#handle}", "{handles}", "{#handles}", "{params}", "{params.a}"),
        *("{params.a.b}", "{params.0.c}", "{answer}", "{answer.a.0}", "{header.a}", '{"a":1}'),
        *('"', "\\", "{ ", " }", "x", '{"k": "', '"}', "query { a(b: ", ") }", "[", "]"),
    ]
)
texts = st.lists(holes, max_size=5).map("".join)
nodes = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


params = st.dictionaries(st.sampled_from("abc0"), jsons, max_size=3)


@given(nodes, params, jsons, st.text(max_size=5), st.lists(st.text(max_size=4), max_size=2))
@example("{params.a}", {"a": "\ud800"}, None, "", [])
@example({"a": 'x{params.a}"'}, {"a": "\ud800"}, None, "\ud800", ["\ud800"])
@example({"a": '{"k": "{params.a}{handles}"}'}, {"a": 2**70}, None, "", ["\ud800"])
def test_a_body_is_filled_or_refused_and_nothing_else(
    written: Any, params: Any, answer: Any, header: str, handles: list[str]
) -> None:
    try:
        node = body("body", written, ROOTS)
    except ConfigError:
        return
    where = Scope(JobView("j", header, params), handles, answer=answer, headers={"a": header})
    for encode in (as_json, as_form):
        with suppress(Unfillable):
            assert isinstance(encode(filled(node, where)), bytes)


@given(jsons)
def test_in_a_text_that_is_json_every_value_leaves_json(value: Any) -> None:
    written = '{"a": "x{params.v}", "b": {params.v}, "c": [{params.v}, "{params.v}"]}'
    node = body("body", {"payload": written}, ROOTS)
    try:
        payload = filled(node, scope("", {"v": value}))["payload"]
    except Unfillable:
        return
    assert set(orjson.loads(payload)) == {"a", "b", "c"}
