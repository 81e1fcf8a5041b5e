"""Each example of the language of backends.toml, word for word, does what it is an example of."""

import asyncio
import tomllib
from pathlib import Path
from typing import Any

import pytest

from progrock.backends import ConfigError, load
from progrock.backends.bodies import as_form, as_json, filled
from progrock.backends.http.addresses import Servers
from progrock.backends.http.requests import Request
from progrock.backends.templates import Scope
from tests.language import SECRET, answer, built, job, options, reader, scope, spec

PARAMS = {"x": {"y": "Z 1"}, "day": "2026-03-01", "kind": "Trailer", "customer": "Acme"}


def sent(request: Request, where: Scope) -> tuple[str, str, Any]:
    """Method, address, and JSON body or form of a request."""
    url = Servers("https://render.internal").address(request.path, where).url
    body: Any = None
    if request.form is not None:
        body = as_form(filled(request.form, where))
    elif request.body is not None:
        body = as_json(filled(request.body, where))
    return request.method, url.removeprefix("https://render.internal"), body


# A request


def test_a_start_may_have_a_body() -> None:
    written = (
        '{ path = "/api/2.2/jobs/run-now", body = { job_id = 77, job_parameters = "{params}",'
        ' idempotency_token = "{job}" } }'
    )
    start = spec(start=written).start
    assert sent(start, scope("h1", {"day": "Monday"})) == (
        "POST",
        "/api/2.2/jobs/run-now",
        b'{"job_id":77,"job_parameters":{"day":"Monday"},"idempotency_token":"j1"}',
    )
    assert start.repeat, "{job} stands in it"


def test_params_may_be_the_fields_of_a_form() -> None:
    start = spec(start='{ path = "/t", form = "{params}" }').start
    assert sent(start, scope("h1", {"day": "a b"}))[2] == b"day=a+b"


@pytest.mark.parametrize(("status", "taken"), [(409, True), (410, False)])
def test_a_status_in_taken_counts_as_started(status: int, taken: bool) -> None:
    found = reader(start='{ path = "/t", taken = [409] }', handle='{ text = "render-{job}" }')
    said = answer({"detail": "is there"}, status)
    if taken:
        assert found.start(said, scope()) == "render-j1"
    else:
        with pytest.raises(Exception, match="is there"):
            found.start(said, scope())


@pytest.mark.parametrize(
    ("hole", "path"),
    [
        ("{job}", "/j1"),
        ("{handle}", "/a%2F1"),
        ("{+handle}", "/a/1"),
        ("{params.x.y}", "/Z%201"),
        ("{#handle}", "/a%2F1"),
    ],
)
def test_a_path_has_holes_of_each_kind(hole: str, path: str) -> None:
    poll = spec(poll=f'{{ path = "/{hole}?of={{handle}}" }}').poll
    assert poll is not None
    assert sent(poll, scope("a/1", PARAMS))[1] == f"{path}?of=a%2F1"


def test_a_handle_of_digits_is_a_number_in_a_body() -> None:
    cancel = spec(cancel='{ path = "/c", method = "POST", body = { run_id = "{#handle}" } }').cancel
    assert cancel is not None
    assert sent(cancel, scope("77"))[2] == b'{"run_id":77}'


@pytest.mark.parametrize(
    ("many", "path", "body"),
    [
        ('path = "/t?ids={handles}"', "/t?ids=a%2Cb,c", None),
        (
            'path = "/t", method = "POST", body = { ids = "{handles}" }',
            "/t",
            b'{"ids":["a,b","c"]}',
        ),
    ],
)
def test_a_request_about_many_has_all_their_handles(many: str, path: str, body: Any) -> None:
    request = spec(poll_many=f'{{ {many}, items = "jobs", id = "id" }}').poll_many
    assert request is not None
    assert sent(request, Scope(handles=["a,b", "c"]))[1:] == (path, body)


def test_a_second_request_may_have_what_the_look_said() -> None:
    fetch = spec(fetch='{ path = "/v2/datasets/{answer.data.defaultDatasetId}/items" }').fetch
    assert fetch is not None
    said = scope("h1", answer={"data": {"defaultDatasetId": "d7"}}, headers={"location": "/x/7"})
    assert sent(fetch, said)[1] == "/v2/datasets/d7/items"
    fetch = spec(fetch='{ path = "{+header.location}/{+answer.data.defaultDatasetId}" }').fetch
    assert fetch is not None
    assert sent(fetch, said)[1] == "/x/7/d7"


def test_the_table_says_which_ends_are_fetched() -> None:
    fetch = spec(fetch='{ path = "/r/{handle}", on = ["succeeded", "failed"] }').fetch
    assert fetch is not None
    assert fetch.on == ("succeeded", "failed")


def test_a_missing_value_is_left_out_of_a_body_and_refuses_a_start_in_a_longer_text() -> None:
    start = spec(start='{ path = "/t", body = { day = "{params.day}", n = 1 } }').start
    assert sent(start, scope())[2] == b'{"n":1}'
    backend = built(start='{ path = "/t", body = { day = "on {params.day}" } }')
    with pytest.raises(Exception, match=r"params\.day is missing"):
        asyncio.run(backend.start(job()))


def test_params_choose_no_address() -> None:
    with pytest.raises(ConfigError, match=r"because a browser chooses the params"):
        options(start='{ path = "/{+params.x}" }')


def test_variables_and_files_fill_in_values(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("one\n")
    written = f'{{ A = "${{NAME}}", B = "${{OTHER:-default}}", C = "${{file:{secret}}}" }}'
    headers = spec({"NAME": SECRET}, headers=written).headers
    assert [each.filled(scope()) for each in headers.values()] == [SECRET, "default", "one"]
    secret.write_text("another\n")
    assert headers["C"].filled(scope()) == "another", "it is read again when it has changed"


# A value out of an answer


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ('"render.status"', "busy"),
        ('{ header = "Operation-Location" }', "/operations/7"),
        ('{ text = "render-{job}" }', "render-j1"),
    ],
)
def test_a_value_has_several_forms(written: str, found: str) -> None:
    for key in ("handle", "state", "message", "result", "error", "moves"):
        own = reader(**{key: written})
        said = answer(
            {"render": {"status": "busy"}}, headers={"operation-location": "/operations/7"}
        )
        assert own.find(key, getattr(own.spec, key), said.seen(scope())) == found


@pytest.mark.parametrize(
    ("progress", "scale", "said", "percent"),
    [
        ('{ done = "a", of = "b" }', None, {"a": 1, "b": 4}, 25.0),
        ('{ done = "a", of = "b" }', None, {"a": 1, "b": 0}, None),
        ('{ done = "a", of = "b" }', None, {"a": 1}, None),
        ('"p"', None, {"p": "2/4"}, 50.0),
        ('"p"', None, {"p": "45%"}, 45.0),
        ('"p"', "1.0", {"p": 0.5}, 50.0),
    ],
)
def test_progress_has_these_forms(
    progress: str, scale: str | None, said: dict[str, Any], percent: float | None
) -> None:
    own = reader(progress=progress, progress_scale=scale)
    assert own.look(answer({"status": "running", **said}), scope()).progress == percent


# What a look says


@pytest.mark.parametrize(
    ("status", "state"), [(202, "running"), (422, "failed"), (303, "succeeded")]
)
def test_the_status_of_http_may_be_the_state(status: int, state: str) -> None:
    own = reader(state=None, states="{ running = [202], failed = [422], succeeded = [303] }")
    assert own.look(answer(b"", status), scope()).state == state


def test_a_star_stands_for_any_other_word() -> None:
    own = reader(states='{ running = ["*"], succeeded = ["done"] }')
    assert own.look(answer({"status": "warming up"}), scope()).state == "running"


def test_a_handle_may_move() -> None:
    own = reader(moves='"executable.url"')
    status = own.look(answer({"executable": {"url": "https://render.internal/81/"}}), scope())
    assert (status.state, status.handle) == ("running", "https://render.internal/81/")


# Manners, and what is for people


@pytest.mark.parametrize(
    "line",
    [
        "rate = 10",
        "unwatched = 30",
        'origins = ["https://x.example"]',
        'proxy = "http://proxy.internal:3128"',
        'auth = { token_url = "https://login.internal/token", client_id = "a",'
        ' client_secret = "${S}", scope = "jobs" }',
        'tls = { ca = "ca.pem", cert = "own.pem", key = "own.key" }',
        'label = "{params.kind} for {params.customer}"',
        'title = "Trailers"',
        "browser = true",
        'params = { type = "object", required = ["day"] }',
    ],
)
def test_each_key_is_read(line: str) -> None:
    [(key, _)] = tomllib.loads(line).items()
    found = options(**{key: line.partition(" = ")[2]})
    kept = "params_schema" if key == "params" else key
    assert getattr(found, kept, None) or getattr(found.spec, kept, None)


def test_a_table_may_name_a_class_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    file.write_text('[gpu]\nclass = "tests.bench.noop.Noop"\n')
    assert load(file)["gpu"].name == "gpu"
