"""The language of backends.toml on the wire: what is sent where, by real servers on loopback."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from progrock.backends import BackendError, Handle, JobView, Status
from progrock.backends.http import HttpBackend, Outgoing, sender
from tests import language
from tests.answering import Asked, Service, backend, look, looked, response, service
from tests.language import LEAST, SECRET, job
from tests.services import PATIENCE

# Content types, bodies and forms

BODIES: list[tuple[str, str | None, bytes]] = [
    ('{ path = "/tasks" }', "application/json", b'{"name":"Film","n":3}'),
    ('{ path = "/tasks", body = { a = "{params.name}" } }', "application/json", b'{"a":"Film"}'),
    ('{ path = "/tasks", body = "{params}" }', "application/json", b'{"name":"Film","n":3}'),
    ("{ path = '/tasks', body = '{\"a\": null}' }", "application/json", b'{"a":null}'),
    ('{ path = "/tasks", body = {} }', "application/json", b"{}"),
    ('{ path = "/tasks", body = [] }', "application/json", b"[]"),
    (
        '{ path = "/tasks", form = { a = "{params.name} & co", b = "{params.x}" } }',
        "application/x-www-form-urlencoded",
        b"a=Film+%26+co",
    ),
    (
        '{ path = "/tasks", form = "{params}" }',
        "application/x-www-form-urlencoded",
        b"name=Film&n=3",
    ),
    (
        '{ path = "/tasks", body = {}, headers = { content-TYPE = "application/ld+json" } }',
        "application/ld+json",
        b"{}",
    ),
    (
        '{ path = "/tasks", form = { a = "b" }, headers = { Content-Type = "text/x" } }',
        "text/x",
        b"a=b",
    ),
    ('{ path = "/tasks", method = "GET" }', None, b""),
    ('{ path = "/tasks", method = "PATCH" }', "application/json", b'{"name":"Film","n":3}'),
]


@pytest.mark.parametrize(("start", "kind", "sent"), BODIES)
async def test_a_body_has_its_content_type(
    render: Service, start: str, kind: str | None, sent: bytes
) -> None:
    async with backend(render, start=start) as made:
        assert await made.start(job("", {"name": "Film", "n": 3})) == "h1"
    [asked] = render.asked
    assert (asked.headers.getall("Content-Type", [None]), asked.body) == ([kind], sent)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_without_a_body_sends_no_content_type(render: Service, method: str) -> None:
    request = f'{{ path = "/tasks/{{handle}}", method = "{method}" }}'
    async with backend(
        render,
        poll=request,
        cancel=request,
        headers='{ Content-Type = "application/vnd.api+json", X-A = "b" }',
    ) as made:
        await look(made)
        await made.cancel(job())
        await made.start(job(""))
    first, second, start = render.asked
    assert start.headers["Content-Type"] == "application/vnd.api+json"
    for asked in (first, second):
        assert asked.method == method
        assert "Content-Type" not in asked.headers
        assert asked.headers["X-A"] == "b"
        assert asked.body == b""


async def test_a_request_of_any_kind_has_body_headers_and_holes(render: Service) -> None:
    render.says["/v1/list"] = {"jobs": [{"id": 7, "status": "done"}, {"id": 8, "status": "done"}]}
    render.says["/v1/out"] = {"answer": [1]}
    async with backend(
        render,
        start='{ path = "/tasks", headers = { X-Job = "{job}" } }',
        poll='{ path = "/tasks/{handle}", method = "POST", body = { id = "{#handle}" } }',
        poll_many=(
            '{ path = "/list", method = "POST", body = { ids = "{#handles}" }, items = "jobs",'
            ' id = "id" }'
        ),
        cancel='{ path = "/tasks/{job}", method = "PUT", form = { h = "{handle}" } }',
    ) as made:
        await made.start(JobView("j9", "", {}))
        await look(made, "7")
        await made.cancel(job("7"))
        many = await made.poll([job("7", id="a"), job("8", id="b")])
    start, poll, cancel, listed = render.asked
    assert start.headers["X-Job"] == "j9"
    assert (poll.line, poll.body) == ("POST /v1/tasks/7", b'{"id":7}')
    assert (cancel.line, cancel.body) == ("PUT /v1/tasks/j1", b"h=7")
    assert listed.body == b'{"ids":[7,8]}'
    assert [each.state for each in many.values() if isinstance(each, Status)] == ["succeeded"] * 2


async def test_headers_of_a_request_are_stronger_whatever_their_letters(render: Service) -> None:
    async with backend(
        render,
        headers='{ Accept = "a/b", Authorization = "weak", X-Only = "kept" }',
        poll='{ path = "/tasks/{handle}", headers = { authorization = "strong {handle}" } }',
    ) as made:
        await look(made)
    headers = render.asked[0].headers
    assert headers.getall("Authorization") == ["strong h1"]
    assert headers.getall("Accept") == ["a/b"]
    assert headers["X-Only"] == "kept"


async def test_the_query_of_a_path_is_sent_as_the_file_has_it(render: Service) -> None:
    async with backend(
        render, poll='{ path = "/tasks/{handle}?a=1&b={handle}&c=%20&f=a,b;c:d@e" }'
    ) as made:
        await look(made, "x/y&z")
    assert render.lines == ["GET /v1/tasks/x%2Fy%26z?a=1&b=x%2Fy%26z&c=%20&f=a,b;c:d@e"]


async def test_a_handle_with_a_comma_goes_by_itself_where_handles_are_joined(
    render: Service,
) -> None:
    render.says["/v1/list"] = lambda asked: {"jobs": [{"id": "a,b", "status": "done"}]}
    lines = {"poll": None, "poll_many": '{ path = "/list/{handles}", items = "jobs", id = "id" }'}
    jobs = [job("a,b", id="1"), job("c", id="2"), job("d/e", id="3")]
    async with backend(render, **lines) as made:
        found = await made.poll(jobs)
    assert sorted(render.lines) == ["GET /v1/list/a%2Cb", "GET /v1/list/c,d%2Fe"]
    assert found["1"] == Status(state="succeeded")
    body = lines["poll_many"].replace(  # type: ignore[union-attr]
        '"/list/{handles}"', '"/list", method = "POST", body = { ids = "{handles}" }'
    )
    async with backend(render, poll=None, poll_many=body) as made:
        await made.poll(jobs)
    assert json.loads(render.asked[-1].body) == {"ids": ["a,b", "c", "d/e"]}
    assert len(render.asked) == 3


async def test_no_more_jobs_than_max_are_in_one_request(render: Service) -> None:
    render.says["/v1/list"] = {"jobs": []}
    many = '{ path = "/list?i={handles}", items = "jobs", id = "id", max = 2 }'
    async with backend(render, poll_many=many) as made:
        await made.poll([job(f"h{n}", id=f"j{n}") for n in range(5)])
    assert sorted(render.lines) == [
        "GET /v1/list?i=h0,h1",
        "GET /v1/list?i=h2,h3",
        "GET /v1/tasks/h4",
    ]


# Addresses


async def test_a_location_is_followed_as_a_handle_but_no_redirect_ever(render: Service) -> None:
    render.says |= {
        "/v1/start": lambda _: response(303, Location="/v1/jobs/5?x=1"),
        "/v1/jobs/5": lambda _: response(302, Location="/v1/tasks/h1"),
    }
    lines = {"start": '{ path = "/start" }', "handle": '{ header = "location" }'}
    async with backend(render, poll='{ path = "{+handle}" }', **lines) as made:
        handle = await made.start(job(""))
        assert handle == "/v1/jobs/5?x=1"
        error = await looked(made, str(handle))
    assert isinstance(error, BackendError)
    assert error.sentence == "the backend answered 302, and redirects are not followed"
    assert render.lines == ["POST /v1/start", "GET /v1/jobs/5?x=1"]


async def test_ends_that_come_together_are_fetched_side_by_side_and_what_has_come_counts(
    render: Service,
) -> None:
    """A result that does not come keeps no other from coming."""

    async def out(asked: Asked) -> Any:
        if asked.path[-2:] in ("h0", "h1", "h2"):
            await asyncio.sleep(PATIENCE)
        return {"film": asked.path[-2:]}

    render.says["/v1/tasks"] = {"jobs": [{"id": f"h{n}", "status": "done"} for n in range(8)]}
    render.says["/v1/out"] = out
    many = '{ path = "/tasks?ids={handles}", items = "jobs", id = "id" }'
    lines = {"poll_many": many, "fetch": '{ path = "/out/{handle}" }', "timeout": "1.0"}
    async with backend(render, **lines, concurrency="4") as made:
        jobs = [language.job(f"h{n}", id=f"j{n}") for n in range(8)]
        found = await made.poll(jobs)
    for n in range(8):
        status = found[f"j{n}"]
        if n < 3:
            assert isinstance(status, BackendError)
            continue
        assert isinstance(status, Status)
        assert status.result == {"film": f"h{n}"}


async def test_a_303_in_states_is_a_state_and_its_location_is_fetched(render: Service) -> None:
    render.says |= {
        "/v1/jobs": lambda _: response(303, Location=f"{render.url}/v1/out/5"),
        "/v1/out/5": {"film": "f.mp4"},
        "/v1/evil": lambda _: response(303, Location="http://127.0.0.1:1/x"),
    }
    lines = {
        "state": None,
        "states": "{ running = [200], succeeded = [303] }",
        "fetch": '{ path = "{+header.location}" }',
    }
    async with backend(render, poll='{ path = "/{handle}" }', **lines) as made:
        status = await look(made, "jobs")
        assert (status.state, status.result) == ("succeeded", {"film": "f.mp4"})
        error = await looked(made, "evil")
    assert isinstance(error, BackendError)
    assert "leads to another server" in error.sentence
    assert "127.0.0.1" not in error.sentence


async def test_to_another_origin_go_only_the_headers_of_the_requests_own_table(
    render: Service,
) -> None:
    class Signing(HttpBackend):
        async def headers(self, request: Outgoing) -> Mapping[str, str]:
            return {"X-Signature": SECRET}

    async with service() as files, service() as login:
        files.says["/out"] = {"film": "f.mp4"}
        login.says["/token"] = {"access_token": SECRET}
        render.says["/v1/tasks"] = {"status": "done", "url": f"{files.url}/out?sig=1"}
        auth = f'{{ token_url = "{login.url}/token", client_id = "a", client_secret = "b" }}'
        async with backend(
            render,
            headers=f'{{ Authorization = "Bearer {SECRET}", X-Key = "{SECRET}" }}',
            fetch='{ path = "{+answer.url}", headers = { X-Own = "{job}" } }',
            origins=f'["{files.url}"]',
            auth=auth,
        ) as plain:
            made = Signing(plain.options)
            assert (await look(made)).result == {"film": "f.mp4"}
            await made.aclose()
    [fetched], [poll] = files.asked, render.asked
    assert poll.headers["X-Signature"] == SECRET
    assert fetched.line == "GET /out?sig=1"
    assert fetched.headers["X-Own"] == "j1"
    assert SECRET not in repr(fetched.headers)


async def test_an_address_to_a_server_that_is_not_listed_is_never_asked(render: Service) -> None:
    async with service() as evil, backend(render, poll='{ path = "{+handle}" }') as made:
        for handle in (f"{evil.url}/x", evil.url.removeprefix("http:"), f"{render.url}@{evil.url}"):
            assert isinstance(await looked(made, handle), BackendError)
        assert evil.asked == []
    assert render.asked == []


async def test_a_url_out_of_a_file_moves_with_the_file(render: Service, tmp_path: Path) -> None:
    async with service() as other:
        other.says["/tasks"] = {"status": "done"}
        path = tmp_path / "url"
        path.write_text(f"{render.url}/v1\n", encoding="utf-8")
        async with backend(f"${{file:{path}}}") as made:
            assert (await look(made)).state == "running"
            path.write_text(other.url, encoding="utf-8")
            assert (await look(made)).state == "succeeded"
            path.write_text(f"no address {SECRET}", encoding="utf-8")
            error = await looked(made)
            assert isinstance(error, BackendError)
            assert SECRET not in error.sentence


# Starts


async def test_a_start_is_not_sent_again_after_any_answer(render: Service) -> None:
    for status in (200, 202, 302, 400, 409, 500, 503):
        render.says["/v1/tasks"] = lambda _, status=status: response(status, b"")
        async with backend(render) as made:
            with pytest.raises(BackendError):
                await made.start(job(""))
    assert len(render.asked) == 7


@asynccontextmanager
async def dropping() -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers a GET and then takes one request more, whose connection it drops."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = b'{"status": "running", "id": "h1"}'
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                if not head.startswith(b"GET"):
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_a_start_without_repeat_is_sent_once_even_where_a_connection_dies(
    method: str,
) -> None:
    async with dropping() as (url, heads):
        start = f'{{ path = "/tasks", method = "{method}" }}'
        async with backend(url, start=start) as made:
            await look(made)  # leaves a connection that could be used again
            with pytest.raises(BackendError, match="closed the connection") as raised:
                await made.start(job(""))
            assert raised.value.sent
        assert sum(head.startswith(method.encode()) for head in heads) == 1


async def test_a_start_whose_token_does_not_come_was_surely_not_sent(render: Service) -> None:
    async def hang(_: Asked) -> web.Response:
        await asyncio.sleep(PATIENCE)
        return response()

    async with service() as login:
        login.says["/token"] = hang
        auth = f'{{ token_url = "{login.url}/token", client_id = "a", client_secret = "b" }}'
        async with backend(render, auth=auth, timeout="0.5") as made:
            with pytest.raises(BackendError, match="did not answer within") as raised:
                await made.start(job(""))
    assert not raised.value.sent
    assert render.asked == []


async def test_a_start_may_take_longer_than_a_look(render: Service) -> None:
    async def slow(_: Asked) -> web.Response:
        await asyncio.sleep(1.0)
        return response(200, {"id": "h1", "status": "done"})

    render.says["/v1/tasks"] = slow
    start = f'{{ path = "/tasks", timeout = {PATIENCE} }}'
    async with backend(render, start=start, timeout="0.4") as made:
        assert made.options.start_timeout == PATIENCE
        assert await made.start(job("")) == "h1"
        error = await looked(made)
    assert isinstance(error, BackendError)
    assert error.sentence == "the backend did not answer within 0.4 s"


async def test_each_request_of_a_look_has_its_own_timeout(render: Service) -> None:
    async def hang(_: Asked) -> web.Response:
        await asyncio.sleep(PATIENCE)
        return response()

    fetch = f'{{ path = "/out/{{handle}}", timeout = {PATIENCE} }}'
    render.says |= {"/v1/tasks": hang, "/v1/out": hang}
    async with backend(render, fetch=fetch, timeout="0.4") as made:
        began = time.monotonic()
        error = await looked(made)
        assert time.monotonic() - began < PATIENCE / 2
        assert str(error) == "the backend did not answer within 0.4 s"
    render.says["/v1/tasks"] = {"status": "done"}
    fetch = '{ path = "/out/{handle}", timeout = 0.3 }'
    async with backend(render, fetch=fetch) as made:
        assert str(await looked(made)) == "the backend did not answer within 0.3 s"


async def test_params_nested_too_deeply_for_a_body_are_refused_and_nothing_is_sent(
    render: Service,
) -> None:
    deep: Any = 1
    for _ in range(253):
        deep = [deep]
    async with backend(render, start='{ path = "/tasks", body = { a = ["{params.x}"] } }') as made:
        with pytest.raises(BackendError, match="that JSON cannot hold") as raised:
            await made.start(job("", {"x": deep}))
    assert (raised.value.final, raised.value.sent) == (True, False)
    assert render.asked == []


# The second request


async def test_a_second_request_has_the_holes_of_the_look(render: Service) -> None:
    render.says |= {
        "/v1/tasks": lambda _: response(200, {"status": "done", "d": {"id": "a/b"}}, X_Out="o 1"),
        "/v1/sets": lambda _: response(200, b"one\ntwo\n", "text/plain"),
    }
    fetch = '{ path = "/sets/{answer.d.id}/{header.x-out}?j={job}&p={params.x}", read = "text" }'
    async with backend(render, fetch=fetch) as made:
        found = await made.poll([JobView("j1", "h1", {"x": "&"})])
    status = found["j1"]
    assert isinstance(status, Status)
    assert (status.state, status.result) == ("succeeded", "one\ntwo\n")
    assert render.lines[-1] == "GET /v1/sets/a%2Fb/o%201?j=j1&p=%26"


@pytest.mark.parametrize("sized", [True, False])
async def test_a_result_that_is_too_large_ends_the_job_without_it(
    render: Service, sized: bool
) -> None:
    async def large(asked: Asked) -> web.StreamResponse:
        body = json.dumps("x" * 5000).encode()
        if sized:
            return response(200, body)
        made = web.Response(body=body)
        made.enable_chunked_encoding()
        return made

    render.says |= {"/v1/tasks": {"status": "done"}, "/v1/out": large}
    lines = {"fetch": '{ path = "/out/{handle}" }', "max_answer": "2048"}
    async with backend(render, **lines) as made:
        status = await look(made)
        assert (status.state, status.result) == ("succeeded", None)
        assert status.message == "the result is too large to keep: above 2,048 bytes"
        assert (await look(made)).state == "succeeded"  # the connection may be used again


async def test_a_result_that_unpacks_to_too_much_is_too_large(render: Service) -> None:
    def bomb(_: Asked) -> web.Response:
        made = response(200, json.dumps("x" * 3_000_000).encode())
        made.enable_compression(web.ContentCoding.gzip)
        return made

    render.says |= {"/v1/tasks": {"status": "done"}, "/v1/out": bomb}
    async with backend(render, fetch='{ path = "/out/{handle}" }', max_answer="100000") as made:
        status = await look(made)
    assert (status.state, status.result) == ("succeeded", None)
    assert "too large" in (status.message or "")


async def test_a_second_request_that_fails_fails_the_look_and_both_come_again(
    render: Service,
) -> None:
    said = iter([response(404, {"detail": "not yet"}), response(500), response(200, [7])])
    render.says |= {"/v1/tasks": {"status": "done"}, "/v1/out": lambda _: next(said)}
    async with backend(render, fetch='{ path = "/out/{handle}" }') as made:
        first, second, third = [await looked(made) for _ in range(3)]
    for error in (first, second):
        assert isinstance(error, BackendError)
        assert (error.final, error.forgotten) == (False, False)
    assert isinstance(third, Status)
    assert third.result == [7]
    assert render.lines == ["GET /v1/tasks/h1", "GET /v1/out/h1"] * 3


async def test_a_second_request_follows_a_look_at_many_as_well(render: Service) -> None:
    jobs = [{"id": "a", "status": "done"}, {"id": "b", "status": "running"}]
    render.says |= {
        "/v1/list": {"jobs": [*jobs, {"id": "c", "status": "done"}]},
        "/v1/out/a": [1],
        "/v1/out/c": lambda _: response(500),
    }
    many = '{ path = "/list?i={handles}", items = "jobs", id = "id" }'
    async with backend(render, poll_many=many, fetch='{ path = "/out/{handle}" }') as made:
        found = await made.poll([job(handle, id=handle) for handle in "abc"])
    assert [getattr(found[each], "state", None) for each in "abc"] == ["succeeded", "running", None]
    assert isinstance(found["a"], Status)
    assert found["a"].result == [1]


@pytest.mark.parametrize("poll", [None, LEAST["poll"]])
async def test_a_second_request_after_a_look_at_many_sees_its_own_item(
    render: Service, poll: str | None
) -> None:
    render.says |= {
        "/v1/list": {"jobs": [{"id": h, "status": "done", "out": f"/out/{h}"} for h in "ab"]},
        "/out/": lambda asked: web.json_response(asked.path),
    }
    many = '{ path = "/list?i={handles}", items = "jobs", id = "id" }'
    lines = {"poll": poll, "poll_many": many, "fetch": '{ path = "{+answer.out}" }'}
    async with backend(render, **lines) as made:
        found = await made.poll([job(handle, id=handle) for handle in "ab"])
    assert found["a"] == Status(state="succeeded", result="/out/a")
    assert found["b"] == Status(state="succeeded", result="/out/b")


# Cancels


async def test_a_cancel_is_done_or_asked_for(render: Service) -> None:
    render.says["/v1/tasks"] = lambda _: response(202, b"", Retry_After="7")
    cancel = '{ path = "/tasks/{handle}" }'
    async with backend(render, cancel=cancel) as made:
        assert await made.cancel(job()) is None
    async with backend(render, cancel=cancel.replace(" }", ", wait = true }")) as made:
        status = await made.cancel(job())
    assert status is not None
    assert (status.state, status.cancelling, status.retry_after) == ("running", True, 7.0)
    assert render.lines == ["DELETE /v1/tasks/h1"] * 2


@pytest.mark.parametrize("status", [302, 400, 403, 404, 409, 410, 500])
@pytest.mark.parametrize(
    ("looked", "decided"),
    [
        ((200, {"status": "done", "out": 7}), ("succeeded", 7)),
        ((200, {"status": "broken"}), ("failed", None)),
        ((200, {"status": "running"}), ("running", None)),
        ((404, {}), None),
        ((500, {}), "refused"),
        ((404, b"<html>"), "refused"),
    ],
)
async def test_after_any_other_answer_to_a_cancel_a_look_decides(
    render: Service, status: int, looked: tuple[int, Any], decided: Any
) -> None:
    def say(asked: Asked) -> web.Response:
        if asked.method == "DELETE":
            return response(status, {"detail": "too late"})
        return response(*looked)

    render.says["/v1/tasks"] = say
    async with backend(render, cancel='{ path = "/tasks/{handle}" }', result='"out"') as made:
        if decided == "refused" or (decided is None and status not in (404, 410)):
            with pytest.raises(BackendError, match=f"the backend answered {status}"):
                await made.cancel(job())
        elif decided is None:
            assert await made.cancel(job()) is None
        else:
            found = await made.cancel(job())
            assert found is not None
            assert (found.state, found.result) == decided
            if found.state == "running":
                assert f"the backend answered {status}" in (found.error or "")
                assert status == 302 or (found.error or "").endswith(": too late")
    assert render.lines == ["DELETE /v1/tasks/h1", "GET /v1/tasks/h1"]


async def test_before_each_further_try_of_a_cancel_the_job_is_looked_at(render: Service) -> None:
    async with backend(render, cancel='{ path = "/tasks/{handle}" }') as made:
        await made.cancel(job(again=True))
        assert render.lines == ["GET /v1/tasks/h1", "DELETE /v1/tasks/h1"]
        render.says["/v1/tasks"] = {"status": "done"}
        status = await made.cancel(job(again=True))
    assert status is not None
    assert (status.state, len(render.asked)) == ("succeeded", 3)


# Manners


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "1.25"}, 1.25),
        ({"Retry-After-Ms": "250", "Retry-After": "9"}, 0.25),
        ({"X-Ms-Retry-After-Ms": "1500"}, 1.5),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:10 GMT",
                "Date": "Wed, 21 Oct 2015 07:28:00 GMT",
            },
            10.0,
        ),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "soon"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_kept_exactly_after_every_kind_of_request(
    render: Service, headers: dict[str, str], wait: float | None
) -> None:
    status, body = 200, {"id": "h1", "status": "running"}

    def say(_: Asked) -> web.Response:
        made = response(status, body)
        made.headers.update(headers)
        return made

    render.says |= {"/v1": say, "/v1/tasks": say}
    many = '{ path = "/many/{handles}", items = "jobs", id = "id" }'
    cancel = '{ path = "/tasks/{handle}", wait = true }'
    lines = {"fetch": '{ path = "/out/{handle}" }', "poll_many": many, "cancel": cancel}
    async with backend(render, **lines) as made:
        handle = await made.start(job(""))
        assert isinstance(handle, Handle)
        assert handle.retry_after == wait
        assert (await look(made)).retry_after == wait
        cancelled = await made.cancel(job())
        assert cancelled is not None
        assert cancelled.retry_after == wait
        status = 500
        with pytest.raises(BackendError) as raised:
            await made.start(job(""))
        assert raised.value.retry_after == wait
        both = await made.poll([job("a", id="a"), job("b", id="b")])
        assert {getattr(each, "retry_after", -1) for each in both.values()} == {wait}
        status, body = 200, {"status": "done"}
        render.says["/v1/out"] = lambda asked: response(
            500, b"", **{name.replace("-", "_"): value for name, value in headers.items()}
        )
        error = await looked(made)
        assert isinstance(error, BackendError)
        assert error.retry_after == wait


@pytest.mark.parametrize("status", [429, 503])
async def test_a_closed_backend_is_left_alone_by_all_jobs_which_come_back_spread_out(
    render: Service, status: int
) -> None:
    render.says["/v1/tasks"] = lambda _: response(status, b"", Retry_After="30")
    async with backend(render, concurrency="1", cancel='{ path = "/tasks/{handle}" }') as made:
        found = await made.poll([job(f"h{n}", id=f"j{n}") for n in range(40)])
        assert len(render.asked) == 1
        first, *others = [each for each in found.values() if isinstance(each, BackendError)]
        assert (first.asked, first.retry_after) == (True, 30.0)
        waits = [each.retry_after or 0.0 for each in others]
        assert len(others) == 39
        assert not any(each.asked or each.sent or each.final for each in others)
        assert min(waits) > 0
        assert max(waits) <= 40.0
        assert min(waits) >= 30.0 - PATIENCE
        assert max(waits) - min(waits) > 1.0
        for refused in (made.start, made.cancel):
            with pytest.raises(BackendError, match="pause") as raised:
                await refused(job())
            assert (raised.value.asked, raised.value.sent) == (False, False)
        assert len(render.asked) == 1


async def test_a_backend_that_was_closed_is_asked_again_afterwards(
    render: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = 0.0
    monkeypatch.setattr(sender, "monotonic", lambda: time.monotonic() + passed)
    render.says["/v1/tasks"] = lambda _: response(503, b"", Retry_After="300")
    async with backend(render) as made:
        await looked(made)
        assert not getattr(await looked(made), "asked", True)
        render.says["/v1/tasks"] = {"status": "done"}
        passed = 300.0
        assert (await look(made)).state == "succeeded"


@pytest.mark.parametrize("status", [429, 503, 500])
async def test_without_retry_after_or_with_another_status_nothing_is_closed(
    render: Service, status: int
) -> None:
    headers = {"Retry_After": "30"} if status == 500 else {}
    render.says["/v1/tasks"] = lambda _: response(status, b"", **headers)
    async with backend(render) as made:
        for _ in range(2):
            assert getattr(await looked(made), "status", None) == status
    assert len(render.asked) == 2


async def test_no_more_requests_a_second_than_rate_leave(render: Service) -> None:
    async with backend(render, rate="10", timeout="1") as made:
        found = await made.poll([job(f"h{n}", id=f"j{n}") for n in range(30)])
    times = [each.at for each in render.asked]
    assert all(isinstance(each, Status | BackendError) for each in found.values())
    asked = [each for each in found.values() if isinstance(each, Status)]
    sent_away = [each for each in found.values() if isinstance(each, BackendError)]
    assert len(asked) == len(times) > 1
    assert times[-1] - times[0] >= (len(times) - 1) * 0.1 - 0.05
    waits = sorted(each.retry_after or 0.0 for each in sent_away)
    assert all(not each.asked for each in sent_away)
    assert all(b - a > 0.05 for a, b in pairwise(waits))


@pytest.mark.parametrize("concurrency", ["1", "2", "8"])
async def test_a_job_whose_turn_does_not_come_in_time_waits_and_has_not_failed(
    render: Service, concurrency: str
) -> None:
    async with backend(render, rate="5", timeout="2", concurrency=concurrency) as made:
        found = await made.poll([job(f"h{n}", id=f"j{n}") for n in range(40)])
    states = [each for each in found.values() if isinstance(each, Status)]
    assert 1 < len(states) == len(render.asked) < 40
    assert not any(each.asked for each in found.values() if isinstance(each, BackendError))


async def test_a_request_that_waits_for_its_turn_does_not_leave_when_the_backend_has_closed(
    render: Service,
) -> None:
    said = iter([response(429, b"", Retry_After="30")])
    render.says["/v1/tasks"] = lambda _: next(said, response(200, {"status": "done"}))
    async with backend(render, rate="2", timeout="10") as made:
        found = await made.poll([job("a", id="a"), job("b", id="b")])
    assert len(render.asked) == 1
    assert [getattr(each, "asked", None) for each in found.values()] == [True, False]
