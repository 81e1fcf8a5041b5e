"""The language of backends.toml on the wire: what is sent where, by real servers on loopback."""

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from progrock.backends import BackendError, ConfigError, Handle, JobView, Status
from progrock.backends.http import HttpBackend, Outgoing
from tests import certificates, language
from tests.language import LEAST, SECRET, answer, job, options
from tests.logs import own
from tests.services import PATIENCE

Answering = Callable[["Asked"], Awaitable[web.StreamResponse] | web.StreamResponse]


class Asked:
    """A request as it came: the path is not decoded."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        self.method, self.path, self.headers = request.method, request.raw_path, request.headers
        self.body, self.at = body, time.monotonic()
        self.line = f"{self.method} {self.path}"


class Service:
    """A server that keeps what it was asked and answers as the test says."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.says: dict[str, Any] = {}  # by the beginning of the path
        self.url = ""

    @property
    def lines(self) -> list[str]:
        return [each.line for each in self.asked]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keep a request and answer it."""
        asked = Asked(request, await request.read())
        self.asked.append(asked)
        for start in sorted(self.says, key=len, reverse=True):
            if asked.path.startswith(start):
                said = self.says[start]
                said = said(asked) if callable(said) else said
                said = await said if asyncio.iscoroutine(said) else said
                return said if isinstance(said, web.StreamResponse) else web.json_response(said)
        return web.json_response({"detail": "no such thing"}, status=404)


@asynccontextmanager
async def service(context: ssl.SSLContext | None = None, **says: Any) -> AsyncIterator[Service]:
    """A server on loopback."""
    made = Service()
    runner = web.ServerRunner(web.Server(made.answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        made.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
        yield made
    finally:
        await runner.cleanup()


@pytest.fixture
async def render() -> AsyncIterator[Service]:
    async with service() as made:
        made.says["/v1/tasks"] = {"id": "h1", "status": "running"}
        yield made


@asynccontextmanager
async def backend(
    to: Service | str, environ: Mapping[str, str] | None = None, **lines: str | None
) -> AsyncIterator[HttpBackend]:
    """A backend whose url is that of the server."""
    url = to if isinstance(to, str) else f"{to.url}/v1"
    defaults = {"timeout": f"{PATIENCE / 2}"}
    made = language.built(environ, **{"url": f'"{url}"', **defaults, **lines})
    assert isinstance(made, HttpBackend)
    try:
        yield made
    finally:
        await made.aclose()


async def look(made: HttpBackend, handle: str = "h1") -> Status:
    found = await looked(made, handle)
    assert isinstance(found, Status), found
    return found


async def looked(made: HttpBackend, handle: str = "h1") -> Status | BackendError:
    return (await made.poll([job(handle)]))["j1"]


def response(
    status: int = 200, body: Any = b"", kind: str = "application/json", **headers: str
) -> web.Response:
    """An answer; underscores in names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.Response(status=status, body=raw, content_type=kind, headers=named)


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
    """Those that do not answer keep no other from its result."""

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


async def test_a_backend_that_was_closed_is_asked_again_afterwards(render: Service) -> None:
    render.says["/v1/tasks"] = lambda _: response(503, b"", Retry_After="0.3")
    async with backend(render) as made:
        await looked(made)
        assert not getattr(await looked(made), "asked", True)
        render.says["/v1/tasks"] = {"status": "done"}
        await asyncio.sleep(0.4)
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


# Tokens


class Login(Service):
    """Gives the tokens t1, t2, …"""

    def __init__(self, made: Service, **more: Any) -> None:
        self.made, self.count = made, 0
        self.more = {"expires_in": 3600} | more
        made.says["/token"] = self.say

    def say(self, asked: Asked) -> Any:
        self.count += 1
        return {"access_token": f"t{self.count}"} | self.more


def auth(login: Service) -> str:
    return (
        f'{{ token_url = "{login.url}/token", client_id = "${{ID}}", client_secret = "${{S}}",'
        ' scope = "a b" }'
    )


ENVIRON = {"ID": "me & you", "S": SECRET}


async def test_a_token_is_asked_for_by_client_credentials_and_kept(render: Service) -> None:
    async with service() as login:
        Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await made.start(job(""))
            await asyncio.gather(*(look(made, f"h{n}") for n in range(20)))
        [asked] = login.asked
    assert asked.line == "POST /token"
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.body.decode() == (
        f"grant_type=client_credentials&client_id=me+%26+you&client_secret={SECRET}&scope=a+b"
    )
    assert "Authorization" not in asked.headers
    assert {each.headers["Authorization"] for each in render.asked} == {"Bearer t1"}


@pytest.mark.parametrize("life", [61, 60, 0, -5, "61"])
async def test_a_token_is_renewed_a_minute_before_it_expires(render: Service, life: Any) -> None:
    async with service() as login:
        Login(login, expires_in=life)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            await asyncio.sleep(1.1)
            await look(made)
    assert [each.headers["Authorization"] for each in render.asked] == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("life", [None, "soon", True, [], 1e999])
async def test_a_token_without_a_life_is_kept_for_a_while(render: Service, life: Any) -> None:
    async with service() as login:
        made_login = Login(login)
        made_login.more = {} if life is None else {"expires_in": life}
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            await look(made)
    assert made_login.count == 1


async def test_after_a_401_one_other_token_is_asked_for(render: Service) -> None:
    good = {"t2"}

    def say(asked: Asked) -> web.Response:
        token = asked.headers["Authorization"].removeprefix("Bearer ")
        return response(200 if token in good else 401, {"id": "h1", "status": "running"})

    render.says["/v1/tasks"] = say
    async with service() as login:
        given = Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            assert await made.start(job("")) == "h1"
            assert (given.count, len(render.asked)) == (2, 2)
            await look(made)
            assert (given.count, len(render.asked)) == (2, 3)
            good.clear()
            error = await looked(made)
            assert (given.count, len(render.asked)) == (3, 5)
    assert isinstance(error, BackendError)
    assert error.status == 401


async def test_many_401_at_once_ask_for_one_other_token(render: Service) -> None:
    good: set[str] = {"t1"}

    def say(asked: Asked) -> web.Response:
        token = asked.headers["Authorization"].removeprefix("Bearer ")
        return response(200 if token in good else 401, {"status": "running"})

    render.says["/v1/tasks"] = say
    async with service() as login:
        given = Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            good |= {"t2"}
            good.remove("t1")
            found = await made.poll([job(f"h{n}", id=f"j{n}") for n in range(20)])
    assert all(isinstance(each, Status) for each in found.values())
    assert given.count == 2


async def test_a_class_that_writes_its_own_authorization_gets_along_with_tokens(
    render: Service,
) -> None:
    class Own(HttpBackend):
        async def headers(self, request: Outgoing) -> Mapping[str, str]:
            return {"authorization": "Own x"}

    render.says["/v1/tasks"] = lambda _: response(401, {"detail": "no"})
    async with service() as login:
        Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as plain:
            made = Own(plain.options)
            error = await looked(made)
            await made.aclose()
    assert getattr(error, "status", None) == 401


@pytest.mark.parametrize(
    "said",
    [
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 7},
        {"access_token": "a\r\nX: y"},
        {"access_token": "a b"},
        {"access_token": "é"},
        {},
        [],
        None,
        response(401, {"error": "invalid_client", "error_description": SECRET}),
        response(302, b"", Location="http://127.0.0.1:1/"),
        response(200, b"<html>"),
        response(200, b"[" * 100_000),
        response(200, b"\xff\xff"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_no_secret_is_shown(
    render: Service, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with service() as login:
        login.says["/token"] = lambda _: said
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            with pytest.raises(BackendError, match=r"^the server of the access token") as raised:
                await made.start(job(""))
            assert isinstance(await looked(made), BackendError)
    assert (raised.value.sent, raised.value.final) == (False, False)
    assert SECRET not in raised.value.sentence
    assert not any(SECRET in each.getMessage() for each in own(caplog))
    assert render.asked == []


@pytest.mark.parametrize("url", ["login.internal/token", "ftp://x", "", "https://x y"])
def test_a_wrong_token_url_or_proxy_is_told(url: str) -> None:
    for lines in (
        {"auth": f'{{ token_url = "{url}", client_id = "a", client_secret = "b" }}'},
        {"proxy": f'"{url}"'},
    ):
        with pytest.raises(ConfigError, match=r"\[render\] (auth token_url|proxy)"):
            options(**lines)
    lines = {"auth": '{ token_url = "${U}", client_id = "a", client_secret = "b" }'}
    for more in (lines, {"proxy": '"${U}"'}):
        with pytest.raises(ConfigError, match=r"auth token_url|proxy") as raised:
            language.built({"U": f"{SECRET} {url}"}, **more)
        assert SECRET not in str(raised.value)


# TLS and proxies


@pytest.fixture
def made(tmp_path: Path) -> certificates.Certificates:
    return certificates.make(tmp_path / "tls")


def tls(made: certificates.Certificates, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(made.authority)
    return context


async def test_an_authority_of_ones_own_is_trusted_where_tls_names_it(
    made: certificates.Certificates,
) -> None:
    async with service(tls(made)) as render:
        render.says["/v1/tasks"] = {"id": "h1", "status": "done"}
        async with backend(render, tls=f'{{ ca = "{made.authority}" }}') as trusting:
            assert await trusting.start(job("")) == "h1"
            assert (await look(trusting)).state == "succeeded"
        async with backend(render) as doubting:
            error = await looked(doubting)
    assert str(error) == "no trusted TLS connection to the backend"


async def test_a_client_certificate_is_shown_where_tls_names_it(
    made: certificates.Certificates,
) -> None:
    async with service(tls(made, client=True)) as render:
        render.says["/v1/tasks"] = {"status": "done"}
        files = f'ca = "{made.authority}", cert = "{made.certificate}", key = "{made.key}"'
        async with backend(render, tls=f"{{ {files} }}") as known:
            assert (await look(known)).state == "succeeded"
        async with backend(render, tls=f'{{ ca = "{made.authority}" }}') as unknown:
            assert isinstance(await looked(unknown), BackendError)


def test_wrong_files_of_tls_stop_the_start(made: certificates.Certificates, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    for files in (
        f'ca = "{none}"',
        f'ca = "{made.key}"',
        f'cert = "{made.certificate}"',
        f'cert = "{made.certificate}", key = "{none}"',
        f'cert = "{made.authority}", key = "{made.key}"',
    ):
        with pytest.raises(ConfigError, match=r"\[render\] tls"):
            language.built(tls=f"{{ {files} }}")
    for wrong in (f'{{ key = "{made.key}" }}', '{ ca = "" }', '{ caa = "x" }', '"x"'):
        with pytest.raises(ConfigError, match=r"\[render\] tls"):
            options(tls=wrong)


def test_a_key_with_a_password_stops_the_start_and_does_not_ask_at_the_terminal(
    made: certificates.Certificates, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match=r"\[render\] tls"):
        language.built(tls=f'{{ cert = "{made.certificate}", key = "{locked}" }}')


async def test_a_proxy_is_used_only_where_the_table_says_so(
    render: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, nobody)
        async with backend(render) as made:
            assert (await look(made)).state == "running"
    async with service() as proxy, service() as login:
        proxy.says["http://render.invalid"] = {"status": "done"}
        proxy.says[login.url] = {"access_token": "t"}
        through = f'"{proxy.url.replace("//", "//user:${PASSWORD}@")}"'
        async with backend(
            "http://render.invalid/v1",
            ENVIRON | {"PASSWORD": SECRET},
            proxy=through,
            auth=auth(login),
        ) as made:
            assert (await look(made)).state == "succeeded"
        assert proxy.lines == [f"POST {login.url}/token", "GET http://render.invalid/v1/tasks/h1"]
        assert login.asked == []


# Secrets


async def test_no_secret_is_logged_or_shown_whatever_goes_wrong(
    render: Service, caplog: pytest.LogCaptureFixture, unused: int
) -> None:
    caplog.set_level(logging.DEBUG)
    lines = {
        "headers": '{ Authorization = "Bearer ${S}" }',
        "poll": '{ path = "/tasks/{handle}?key=${S}" }',
        "start": '{ path = "/${S}", body = { token = "${S}" } }',
        "message": '"nothing"',
    }
    says: list[Any] = [
        {"status": "running"},
        {"status": "odd"},
        response(500),
        response(302, b"", Location="/"),
        response(200, b"<html>"),
        response(200, b"x" * 5000),
        response(200, b"no gzip", Content_Encoding="gzip"),
    ]
    errors = []
    for said in says:
        render.says["/v1"] = lambda _, said=said: said
        async with backend(render, ENVIRON, **lines, max_answer="2000") as made:
            errors.append(await looked(made))
            with pytest.raises(BackendError) as raised:
                await made.start(job(""))
            errors.append(raised.value)
    async with backend(f"http://127.0.0.1:{unused}", ENVIRON, **lines) as made:
        errors.append(await looked(made))
    assert SECRET not in repr(errors)
    shown = [each.getMessage() + str(each.exc_info) for each in own(caplog)]
    assert not any(SECRET in each for each in shown)


@pytest.fixture
def unused() -> int:
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_the_log_says_once_for_each_key_that_it_found_nothing(
    render: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with backend(render, message='"stage"', progress='"abs(id)"') as made:
        for _ in range(3):
            await look(made)
    said = [each.getMessage() for each in own(caplog)]
    assert len([each for each in said if "`message` (stage) found nothing" in each]) == 1
    assert len([each for each in said if "`progress` (abs(id)) found nothing" in each]) == 1


def test_an_answer_of_the_helper_is_an_answer() -> None:
    assert answer({"a": 1}).json == {"a": 1}
