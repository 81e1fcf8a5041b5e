"""The generic HTTP backend against the real demo backend: each request and each misbehaviour."""

import asyncio
import inspect
import itertools
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from progrock.backends import BackendError, Handle, JobView, Status, build, load
from progrock.backends.http import HttpBackend
from progrock.backends.http.failures import SENTENCES, translate
from progrock.backends.http.manners import retry_after
from tests.sentences import POLLS, sentence
from tests.services import PATIENCE, DemoBackend

TABLE = """
[render]
url = "{url}"
start = {{ path = "/tasks", headers = {{ Idempotency-Key = "{{job}}" }} }}
browser = true
poll = {{ path = "/tasks/{{handle}}" }}
{many}
cancel = {{ path = "/tasks/{{handle}}" }}
handle = "id"
state = "status"
states.running = ["Running"]
states.succeeded = ["DONE"]
states.failed = ["failed"]
states.cancelled = ["cancelled"]
progress = "percent"
message = "stage"
result = "output"
error = "error.message"
timeout = {timeout}
max_answer = 100000
{more}
"""
MANY = 'poll_many = { path = "/tasks?ids={handles}", items = "tasks", id = "id", max = 50 }'
LONG = {"seconds": 600}
STARTS = {
    "handleless": "the backend answered 200, but `handle` found nothing",
    "html": "the backend answered 200, but `handle` found nothing",
}
HANG = 5.0


class Demo:
    """The demo backend as the test moves it, and backends built on it."""

    def __init__(self, url: str, folder: Path, session: aiohttp.ClientSession) -> None:
        self.url, self.folder, self.session = url, folder, session
        self.built: list[HttpBackend] = []

    def backend(
        self, *, many: str = "", timeout: float = PATIENCE / 2, more: str = "", url: str = ""
    ) -> HttpBackend:
        path = self.folder / "backends.toml"
        path.write_text(
            TABLE.format(url=url or self.url, many=many, timeout=timeout, more=more),
            encoding="utf-8",
        )
        backend = build(load(path)["render"])
        assert isinstance(backend, HttpBackend)
        self.built.append(backend)
        return backend

    async def behave(self, mode: str, **rule: Any) -> None:
        async with self.session.post(
            f"{self.url}/_test/behave", json={"mode": mode, **rule}
        ) as answer:
            answer.raise_for_status()

    async def set(self, handle: str, **values: Any) -> None:
        async with self.session.post(f"{self.url}/_test/tasks/{handle}", json=values) as answer:
            answer.raise_for_status()

    async def seen(self, handle: str) -> dict[str, Any]:
        async with self.session.get(f"{self.url}/_test/tasks/{handle}") as answer:
            return dict(await answer.json())

    async def stats(self) -> dict[str, int]:
        async with self.session.get(f"{self.url}/_test/stats") as answer:
            return dict(await answer.json())


@pytest.fixture
async def demo(demo_backend: DemoBackend, tmp_path: Path) -> AsyncIterator[Demo]:
    async with aiohttp.ClientSession() as session:
        demo = Demo(demo_backend.url, tmp_path, session)
        yield demo
        for backend in demo.built:
            await backend.aclose()
        async with session.delete(f"{demo.url}/_test/behave") as answer:
            answer.raise_for_status()


def job(handle: str = "", **params: Any) -> JobView:
    return JobView(id=str(uuid.uuid4()), handle=handle, params=params)


async def started(backend: HttpBackend, count: int = 1, **params: Any) -> list[JobView]:
    new = [job(**(params or LONG)) for _ in range(count)]
    handles = await asyncio.gather(*map(backend.start, new))
    return [
        JobView(id=view.id, handle=handle, params={})
        for view, handle in zip(new, handles, strict=True)
    ]


async def poll_one(backend: HttpBackend, view: JobView) -> Status | BackendError:
    return (await backend.poll([view]))[view.id]


async def test_a_job_goes_from_start_to_its_result(demo: Demo) -> None:
    backend = demo.backend()
    [long] = await started(backend)
    first = await poll_one(backend, long)
    assert isinstance(first, Status)
    assert (first.state, first.message, first.result) == ("running", "Reading the scene", None)
    assert first.progress is not None
    [view] = await started(backend, seconds=0.3)
    while isinstance(status := await poll_one(backend, view), Status) and status.state == "running":
        await asyncio.sleep(0.05)
    assert isinstance(status, Status)
    assert (status.state, status.progress) == ("succeeded", 100.0)
    assert status.result == {"file": f"film-{view.handle[:6]}.mp4", "frames": 7, "seconds": 0.3}


async def test_a_failed_job_brings_the_backends_own_words(demo: Demo) -> None:
    backend = demo.backend()
    [view] = await started(backend, seconds=0.05, outcome="fail")
    await asyncio.sleep(0.06)
    status = await poll_one(backend, view)
    assert isinstance(status, Status)
    assert (status.state, status.error) == (
        "failed",
        "The renderer ran out of memory while it encoded the film",
    )


async def test_the_same_job_started_twice_is_started_once(demo: Demo) -> None:
    backend, view = demo.backend(), job(**LONG)
    assert await backend.start(view) == await backend.start(view)


async def test_a_start_that_the_backend_refuses_is_final_and_tells_why(demo: Demo) -> None:
    with pytest.raises(
        BackendError, match=r"^the backend answered 422: seconds must be a number"
    ) as raised:
        await demo.backend().start(job(seconds="many"))
    assert raised.value.final


@pytest.mark.parametrize(
    ("mode", "final", "sent"),
    [
        ("500", False, True),
        ("503", False, False),  # it says when to come back
        ("409", True, True),
        ("429", False, False),
        ("403", True, True),
        ("reset", False, True),
        ("handleless", True, True),
        ("dots", True, True),
        ("html", True, True),
    ],
)
async def test_a_start_that_goes_wrong_says_whether_it_may_be_repeated(
    demo: Demo, mode: str, final: bool, sent: bool
) -> None:
    await demo.behave(mode, on="start", retry_after="7")
    with pytest.raises(BackendError) as raised:
        await demo.backend().start(job(**LONG))
    error = raised.value
    assert (error.sentence, error.final, error.sent) == (
        STARTS.get(mode) or sentence(mode),
        final,
        sent,
    )
    if not final and mode != "reset":
        assert error.retry_after == 7.0


async def test_a_retry_after_with_the_handle_is_kept(demo: Demo) -> None:
    await demo.behave("ok", on="start", retry_after="4")
    handle = await demo.backend().start(job(**LONG))
    assert isinstance(handle, Handle)
    assert handle.retry_after == 4.0


@pytest.mark.parametrize("mode", POLLS)
async def test_each_misbehaviour_has_its_sentence_and_harms_no_other_job(
    demo: Demo, mode: str
) -> None:
    backend = demo.backend(timeout=HANG if mode == "hang" else PATIENCE / 2)
    views = await started(demo.backend(), 20)
    await demo.behave(mode, task=views[3].handle)
    began = time.monotonic()
    found = await backend.poll(views)
    assert time.monotonic() - began < PATIENCE  # nothing waits for a hang to end
    bad = found.pop(views[3].id)
    assert isinstance(bad, BackendError)
    assert bad.sentence == sentence(mode, timeout=HANG)
    assert (bad.final, bad.forgotten) == (False, mode == "404")
    states = [status.state for status in found.values() if isinstance(status, Status)]
    assert states == ["running"] * 19


@pytest.mark.parametrize("mode", ["500", "huge", "html", "hang", "400"])
async def test_a_misbehaviour_toward_many_at_once_is_told_of_each(demo: Demo, mode: str) -> None:
    backend = demo.backend(many=MANY, timeout=HANG if mode == "hang" else PATIENCE / 2)
    views = await started(demo.backend(), 60)
    await demo.behave(mode, on="poll")
    found = await backend.poll(views)
    assert len(found) == 60
    told = {error.sentence for error in found.values() if isinstance(error, BackendError)}
    assert told == {sentence(mode, timeout=HANG)}


async def test_many_jobs_are_asked_about_in_few_requests(demo: Demo) -> None:
    backend = demo.backend(many=MANY)
    views = await started(backend, 120)
    before = await demo.stats()
    found = await backend.poll([*views, job("unknown")])
    assert (await demo.stats())["requests"] - before["requests"] == 3
    states = [status.state for status in found.values() if isinstance(status, Status)]
    errors = [error for error in found.values() if isinstance(error, BackendError)]
    assert (states, len(errors), errors[0].forgotten) == (["running"] * 120, 1, True)


@pytest.mark.parametrize("mode", ["huge", "400"])
async def test_one_job_that_spoils_a_request_for_many_stands_alone(demo: Demo, mode: str) -> None:
    backend = demo.backend(many=MANY)
    views = await started(backend, 10)
    await demo.behave(mode, task=views[0].handle)
    found = await backend.poll(views)
    assert isinstance(found[views[0].id], BackendError)
    assert sum(isinstance(status, Status) for status in found.values()) == 9


@pytest.mark.parametrize("mode", ["nan", "infinity"])
async def test_progress_that_is_no_number_is_unknown(demo: Demo, mode: str) -> None:
    backend = demo.backend()
    [view] = await started(backend)
    await demo.behave(mode, task=view.handle)
    status = await poll_one(backend, view)
    assert isinstance(status, Status)
    assert (status.state, status.progress) == ("running", None)


@pytest.mark.parametrize(
    ("percent", "scale", "shown"),
    [(42, 100, 42.0), ("42.5", 100, 42.5), (0.25, 1, 25.0), (-5, 100, 0.0), (9, 1, 100.0)],
)
async def test_progress_is_brought_to_a_scale_of_100(
    demo: Demo, percent: Any, scale: float, shown: float
) -> None:
    backend = demo.backend(more=f"progress_scale = {scale}")
    [view] = await started(backend)
    await demo.set(view.handle, percent=percent, status="RUNNING", stage={"frame": 3})
    status = await poll_one(backend, view)
    assert isinstance(status, Status)
    assert (status.progress, status.message) == (shown, '{"frame":3}')


async def test_json_under_another_content_type_is_taken(demo: Demo) -> None:
    backend = demo.backend()
    [view] = await started(backend)
    await demo.behave("text", task=view.handle)
    assert isinstance(await poll_one(backend, view), Status)


async def test_retry_after_comes_with_any_answer_and_in_both_forms(demo: Demo) -> None:
    [view] = await started(demo.backend())
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    for mode, text, least, most in [
        ("ok", "13", 13.0, 13.0),
        ("503", "14", 14.0, 14.0),
        ("html", date, 90 - PATIENCE, 90.0),
    ]:
        await demo.behave(mode, task=view.handle, retry_after=text, count=1)
        wait = (await poll_one(demo.backend(), view)).retry_after
        assert wait is not None
        assert least <= wait <= most


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 3 ", 3.0),
        ("0.5", 0.5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 30.0),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_rfc_9110_says(text: str | None, seconds: float | None) -> None:
    now = datetime(2015, 10, 21, 7, 27, 30, tzinfo=UTC).timestamp()
    assert retry_after({"retry-after": text} if text else {}, now) == seconds


def test_a_date_in_retry_after_counts_from_the_date_of_the_answer() -> None:
    until, sent = "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:50 GMT"
    for wrong_clock in (0.0, 2e9):
        assert retry_after({"retry-after": until, "date": sent}, wrong_clock) == 10.0
    assert retry_after({"retry-after": "7", "date": sent}, 0.0) == 7.0
    assert retry_after({"retry-after": until, "date": "soon"}, 1445412450.0) == 30.0


def test_azures_milliseconds_are_kept_exactly() -> None:
    assert retry_after({"retry-after-ms": "250", "retry-after": "1"}, 0.0) == 0.25
    assert retry_after({"x-ms-retry-after-ms": "1500"}, 0.0) == 1.5
    assert retry_after({"retry-after-ms": "soon", "retry-after": "3"}, 0.0) == 3.0


async def test_no_more_requests_are_under_way_than_allowed(demo: Demo) -> None:
    backend = demo.backend(more="concurrency = 3")
    views = await started(backend, 12)
    await demo.behave("ok", on="poll", delay=0.1)
    began = time.monotonic()
    halves = await asyncio.gather(backend.poll(views[:6]), backend.poll(views[6:]))
    assert all(isinstance(status, Status) for half in halves for status in half.values())
    assert time.monotonic() - began >= 0.4


async def test_however_many_jobs_hang_a_poll_takes_no_longer_than_the_timeout(demo: Demo) -> None:
    backend = demo.backend(timeout=0.5)
    views = await started(demo.backend(), 100)
    await demo.behave("hang", on="poll")
    began = time.monotonic()
    found = await backend.poll(views)
    assert 0.5 <= time.monotonic() - began < 45  # and not 100 times as long
    assert {str(error) for error in found.values()} == {sentence("hang", timeout=0.5)}


async def test_a_cancelled_poll_leaves_nothing_behind(demo: Demo) -> None:
    backend = demo.backend()
    views = await started(backend, 20)
    await demo.behave("hang", on="poll")
    before = asyncio.all_tasks()
    polling = asyncio.create_task(backend.poll(views))
    async with asyncio.timeout(PATIENCE):
        while (await demo.stats())["under_way"] < 8:
            await asyncio.sleep(0.01)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling
    assert asyncio.all_tasks() <= before
    async with asyncio.timeout(PATIENCE):
        while (await demo.stats())["under_way"]:
            await asyncio.sleep(0.01)


async def test_a_cancel_ends_the_job_and_one_that_is_gone_counts_as_cancelled(demo: Demo) -> None:
    backend = demo.backend()
    [view] = await started(backend)
    assert await backend.cancel(view) is None
    status = await poll_one(backend, view)
    assert isinstance(status, Status)
    assert status.state == "cancelled"
    assert await backend.cancel(job("nobody")) is None


async def test_a_refused_cancel_tells_where_the_job_stands(demo: Demo) -> None:
    backend = demo.backend()
    [view] = await started(backend, seconds=0.05)
    await asyncio.sleep(0.06)
    status = await backend.cancel(view)
    assert status is not None
    assert (status.state, status.progress) == ("succeeded", 100.0)


async def test_a_cancel_without_an_answer_raises_and_the_next_try_looks_first(demo: Demo) -> None:
    backend = demo.backend(timeout=0.5)
    [view] = await started(demo.backend())
    await demo.behave("hang", on="cancel")
    with pytest.raises(BackendError, match=sentence("hang", timeout=0.5)):
        await backend.cancel(view)
    await demo.set(view.handle, status="done", output=7)
    status = await backend.cancel(JobView(view.id, view.handle, {}, again=True))
    assert status is not None
    assert (status.state, status.result) == ("succeeded", 7)


async def test_a_cancel_that_meets_an_error_tells_it_and_that_the_job_runs(demo: Demo) -> None:
    [view] = await started(demo.backend())
    await demo.behave("500", on="cancel")
    status = await demo.backend().cancel(view)
    assert status is not None
    assert (status.state, status.error) == ("running", sentence("500"))


async def test_a_backend_that_is_not_there_is_told_and_surely_got_nothing(
    demo: Demo, unused: int
) -> None:
    backend = demo.backend(url=f"http://127.0.0.1:{unused}")
    with pytest.raises(BackendError, match=r"^connection refused$") as raised:
        await backend.start(job())
    assert not raised.value.sent
    assert str(await poll_one(backend, job("h"))) == "connection refused"


@pytest.fixture
def unused() -> Iterator[int]:
    """A port that is taken, but on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@asynccontextmanager
async def recorder(body: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers every request with this body and keeps the requests' heads."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                asked.append(head)
                if b"Content-Length: 2\r\n" in head:
                    await reader.readexactly(2)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", asked


NOT_JSON = sentence("html")
NESTED, DEEPER = (b"[" * depth + b"]" * depth for depth in (500, 5_000))
TOO_DEEP = {
    "unended": (b"[" * 100_000, NOT_JSON),
    "ended": (b"[" * 50_000 + b"]" * 50_000, NOT_JSON),
    "for the reader of NaN": (
        b'{"percent": NaN, "status": "running", "id": %b}' % DEEPER,
        NOT_JSON,
    ),
    "for a word": (b'{"status": %b}' % NESTED, sentence("stateless")),
}


@pytest.mark.parametrize("deep", TOO_DEEP)
async def test_an_answer_that_is_nested_too_deep_has_its_sentence(demo: Demo, deep: str) -> None:
    body, told = TOO_DEEP[deep]
    async with recorder(body) as (url, _):
        backend = demo.backend(url=url)
        error = await poll_one(backend, job("h"))
        with pytest.raises(BackendError):
            await backend.start(job())
        await backend.aclose()
    assert isinstance(error, BackendError)
    assert (error.sentence, error.final) == (told, False)


async def test_an_answer_that_is_not_quite_json_ends_the_job_all_the_same(demo: Demo) -> None:
    body = rb'{"status": "DONE", "output": ["ok \ud83d", 12345678901234567890123, NaN], "id": 7}'
    async with recorder(body) as (url, _):
        backend = demo.backend(url=url)
        status = await poll_one(backend, job("h"))
        await backend.aclose()
    assert isinstance(status, Status)
    assert status.state == "succeeded"
    assert status.result == ["ok \ufffd", "12345678901234567890123", None]


async def test_what_is_sent_is_exactly_what_was_configured(
    demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    async with recorder(b'{"status": "running", "id": 7}') as (url, asked):
        backend = demo.backend(
            url=url, many=MANY, more='headers = { Authorization = "Bearer s3cret" }'
        )
        view = job()
        assert await backend.start(view) == "7"
        await backend.poll([job("a/b?c#d%2F é,{handle}")])
        await backend.poll([job("a/b"), job("c&d")])
        await backend.aclose()
    lines = [head.split(b"\r\n")[0].decode() for head in asked]
    assert lines == [
        "POST /v1/tasks HTTP/1.1",
        "GET /v1/tasks/a%2Fb%3Fc%23d%252F%20%C3%A9%2C%7Bhandle%7D HTTP/1.1",
        "GET /v1/tasks?ids=a%2Fb,c%26d HTTP/1.1",
    ]
    assert all(
        b"Authorization: Bearer s3cret\r\n" in head and b"Cookie" not in head for head in asked
    )
    assert f"Idempotency-Key: {view.id}\r\n".encode() in asked[0]


async def test_a_handle_that_would_climb_is_never_asked_for(demo: Demo) -> None:
    backend = demo.backend()
    before = (await demo.stats())["requests"]
    for handle, told in {"": "is empty", ".": "climbs", "..": "climbs", "a/../b": "climbs"}.items():
        assert told in str(await poll_one(backend, job(handle)))
    assert (await demo.stats())["requests"] == before


async def test_a_connection_that_never_comes_about_surely_carried_no_start(demo: Demo) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # takes the connection, never answers the TLS handshake
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        backend = demo.backend(url=f"https://127.0.0.1:{port}", timeout=5.0)
        with pytest.raises(BackendError, match="accepts no connection") as raised:
            await backend.start(job())
        await backend.aclose()
    assert not raised.value.sent


def test_every_error_of_aiohttp_has_a_sentence_and_the_special_come_first() -> None:
    def below(kind: type[Exception]) -> Iterator[type[Exception]]:
        yield kind
        for inner in kind.__subclasses__():
            yield from below(inner)

    about = {
        "connection_key": SimpleNamespace(host="render.internal", port=443, ssl=True),
        "os_error": OSError(113, "No route to host"),
        "certificate_error": ValueError("expired"),
        "path": "/run/render.sock",
    }
    for kind in set(below(aiohttp.ClientError)):
        if issubclass(kind, aiohttp.ClientConnectorError):
            error = kind(*(about[name] for name in inspect.signature(kind).parameters))
        else:
            error = kind.__new__(kind)
        assert isinstance(error, aiohttp.ClientError)
        assert translate(error).sentence
    for (first, *_), (second, *_) in itertools.combinations(SENTENCES, 2):
        assert not issubclass(second, first), f"{second.__name__} would never be reached"
