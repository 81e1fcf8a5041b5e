"""Server-sent events and waiting requests: the wire over HTTP, on real servers and RabbitMQ."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from deploy.demo.rabbitmq_node import free_port
from tests.amqp import until
from tests.listener import Listener, listen
from tests.people import client, post, sign_in
from tests.proxy import proxy
from tests.services import PATIENCE, Stack, answers
from tests.visitor import Got, Visitor, browse, get

PLACES = 20
ANN = "from django.contrib.auth.models import User; User.objects.create_user('ann', password='ann')"


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """One stack for all tests. Nobody works for `transcribe`, so those jobs stay as they are."""
    with stack(workers=0, env={"PROGROCK_MAX_SOCKETS": str(PLACES)}) as up:
        up.start_worker("render")
        yield up


@pytest.fixture(scope="module")
def daphne(running: Stack) -> str:
    """The address of the same project under Daphne."""
    port = free_port()
    command = [sys.executable, "-m", "daphne", "-p", str(port), "config.asgi:application"]
    url = f"http://127.0.0.1:{port}"
    running.add("daphne", command).start(lambda: answers(f"{url}/healthz"))
    return url


@pytest.fixture(params=["uvicorn", "daphne"])
def url(request: pytest.FixtureRequest, running: Stack) -> str:
    """The address of a server of the project."""
    found: str = running.url if request.param == "uvicorn" else request.getfixturevalue("daphne")
    return found


async def test_a_job_is_watched_from_its_start_to_its_end(running: Stack, url: str) -> None:
    async with listen(running, url=url) as listener:
        headers = listener.answer.headers
        assert listener.answer.status == 200
        assert headers["Content-Type"] == "text/event-stream"
        assert "no-cache" in headers["Cache-Control"]
        assert headers["X-Accel-Buffering"] == "no"
        assert (await listener.snapshot())["jobs"] == []
        assert len(listener.frames) == 1, "the snapshot is the first frame"
        async with browse(running, listener.session) as browser:
            job = (await browser.start("render", seconds=1))["job"]
            await browser.ended(job)
        last = await listener.ended(job)
        of_socket = {f["version"]: f for f in browser.frames if f.get("job") == job}
        of_stream = {f["version"]: f for f in listener.frames if f.get("job") == job}
        assert last == of_socket[last["version"]]
        both = of_socket.keys() & of_stream.keys()
        assert [of_socket[each] for each in both] == [of_stream[each] for each in both]
        async with listen(running, listener.session, url=url) as later:
            assert (await later.snapshot())["jobs"] == [last], "the cookie of the first is known"


async def test_two_visitors_do_not_see_each_others_jobs(running: Stack) -> None:
    async with listen(running) as one, listen(running) as stranger, browse(running) as other:
        await one.snapshot()
        await stranger.snapshot()
        await other.start("render", seconds=60)
        async with browse(running, one.session) as mine:
            job = (await mine.start("render", seconds=0.2))["job"]
            await one.ended(job)
        assert {f["job"] for f in one.frames if f["type"] == "job"} == {job}
        async with listen(running, stranger.session) as again:
            assert (await again.snapshot())["jobs"] == []
        assert len(stranger.frames) == 1


async def test_streams_take_places_and_no_threads_and_a_browser_that_leaves_gives_its_up(
    running: Stack, url: str
) -> None:
    async with AsyncExitStack() as opened, listen(running, url=url) as first:
        await first.snapshot()
        server = "web" if url == running.url else "daphne"
        before = threads(running, server)
        for _ in range(PLACES - 1):
            more = await opened.enter_async_context(listen(running, first.session, url=url))
            await more.snapshot()
        assert threads(running, server) <= before + 5
        async with listen(running, first.session, url=url) as refused:
            await is_problem(refused, 429, "too_many_sockets")
            assert int(refused.answer.headers["Retry-After"]) > 0
        more.answer.close()
        async with asyncio.timeout(PATIENCE):
            while True:
                async with listen(running, first.session, url=url) as again:
                    if again.answer.status == 200:
                        break
                await asyncio.sleep(0.1)


def threads(stack: Stack, server: str = "web") -> int:
    """How many threads a server has."""
    process = stack.processes[server].popen
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


async def test_behind_a_proxy_that_refuses_websockets_the_frames_come_as_events(
    running: Stack,
) -> None:
    with proxy(running.url, websockets="refuse") as there:
        async with listen(running, url=there.url) as listener:
            await listener.snapshot()
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await listener.session.ws_connect(f"{there.url}/prog/")
            async with browse(running, listener.session) as browser:
                job = (await browser.start("render", seconds=0.2))["job"]
                await listener.ended(job)
        there.events = "refuse"
        async with listen(running, url=there.url) as refused:
            assert refused.answer.status == 502
        there.events = "hold"

        async def answered() -> None:
            async with listen(running, url=there.url):
                pytest.fail("the proxy let something through")

        held = asyncio.create_task(answered())
        await until(lambda: len(there.requests) == 4)
        await asyncio.wait([held], timeout=0.3)
        assert not held.done()
        held.cancel()
        await asyncio.wait([held])
        assert [each.split()[1] for each in there.requests] == [
            "/events",
            "/prog/",
            "/events",
            "/events",
        ]


async def is_problem(listener: Listener, status: int, code: str) -> None:
    """Assert that an answer is this problem."""
    assert listener.answer.status == status
    assert listener.answer.headers["Content-Type"] == "application/problem+json"
    found = await listener.answer.json(content_type=None)
    assert (found["status"], found["code"]) == (status, code)
    assert len(found["detail"]) > 10


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 400, "bad_host"),
        ({"Origin": "https://evil.example"}, 403, "forbidden"),
        ({"Origin": "http://[::1"}, 403, "forbidden"),
        ({"Origin": ""}, 403, "forbidden"),
    ],
)
async def test_other_sites_get_no_stream(
    running: Stack, headers: dict[str, str], status: int, code: str
) -> None:
    async with listen(running, **headers) as refused:
        await is_problem(refused, status, code)
    assert "Traceback" not in running.logs("web")


async def test_a_logout_ends_the_stream_with_its_reason_and_a_server_that_stops_without(
    stack: Callable[..., Stack],
) -> None:
    with stack(workers=0, env={"PROGROCK_ANONYMOUS": "0"}) as up:
        up.shell(ANN)
        async with listen(up) as nobody:
            await is_problem(nobody, 401, "login_required")
        async with client() as session, client() as other:
            await sign_in(up, session, "ann")
            await sign_in(up, other, "ann")
            async with listen(up, session) as listener, listen(up, other) as stays:
                await listener.snapshot()
                async with await post(up, session, "/logout/") as answer:
                    assert answer.status == 302
                last = await listener.over()
                assert (last["type"], last["code"]) == ("error", "session_ended")
                async with browse(up, other) as browser:
                    job = (await browser.start("render", seconds=60))["job"]
                    waits = await waiting(browser, f"/jobs/{job}")
                    stopping = asyncio.create_task(asyncio.to_thread(up.stop_web))
                    await stays.over()
                    assert (await waits).json["state"] == "queued"
                    await stopping
        assert "Traceback" not in up.logs("web")


# Waiting requests


async def waiting(visitor: Visitor, path: str, **headers: str) -> "asyncio.Task[Got]":
    """A request that waits at the server."""
    asked = asyncio.create_task(get(visitor, path, Prefer="wait=60", **headers))
    await asyncio.sleep(0.3)
    assert not asked.done()
    return asked


async def cancel(visitor: Visitor, job: str) -> None:
    """End a job that is queued."""
    await visitor.send({"action": "cancel", "job": job})
    await visitor.ended(job)


async def test_a_list_waits_for_a_change_of_what_it_shows(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("transcribe", seconds=60)
        plain = await get(browser, "/jobs?state=active")
        etag = plain.headers["ETag"]
        assert [each["job"] for each in plain.json["jobs"]] == [job["job"]]
        assert (await get(browser, "/jobs", Prefer="wait=60")).status == 200, "it knows no version"
        short = await get(browser, "/jobs?state=active", Prefer="wait=1", If_None_Match=etag)
        assert (short.status, short.headers["Preference-Applied"]) == (304, "wait=1")
        asked = await waiting(browser, "/jobs?state=active", If_None_Match=etag)
        other = await browser.start("transcribe", seconds=60)
        got = await asked
        assert [each["job"] for each in got.json["jobs"]] == [other["job"], job["job"]]
        assert got.headers["ETag"] != etag
        await cancel(browser, other["job"])
        await cancel(browser, job["job"])


async def test_with_the_version_that_it_knows_a_look_waits_for_another(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("transcribe", seconds=60)
        path = f"/jobs/{job['job']}"
        etag = (await get(browser, path)).headers["ETag"]
        short = await get(browser, path, Prefer="wait=1", If_None_Match=etag)
        assert (short.status, short.headers["Preference-Applied"]) == (304, "wait=1")
        asked = await waiting(browser, path, If_None_Match=etag)
        await cancel(browser, job["job"])
        assert (await asked).json["state"] == "cancelled"
        known = await get(browser, path, Prefer="wait=60", If_None_Match=etag)
        assert known.json["state"] == "cancelled", "a version that is old is answered at once"


async def test_without_a_change_the_plain_answer_comes_at_the_end(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("transcribe", seconds=60)
        got = await get(browser, f"/jobs/{job['job']}", Prefer="respond-async, wait=1;x=y")
        assert (got.status, got.json["version"]) == (200, job["version"])
        assert got.headers["Preference-Applied"] == "wait=1"
        plain = await get(browser, f"/jobs/{job['job']}", Prefer="wait=0")
        assert plain.json == got.json
        assert "Preference-Applied" not in plain.headers
        await cancel(browser, job["job"])


async def test_a_look_that_waits_is_answered_at_the_next_change_and_then_at_once(
    running: Stack,
) -> None:
    async with browse(running) as browser, browse(running) as stranger:
        job = await browser.start("transcribe", seconds=60)
        path = f"/jobs/{job['job']}"
        asked = await waiting(browser, path)
        await stranger.start("transcribe", seconds=60)
        other = await browser.start("transcribe", seconds=60)
        await asyncio.sleep(0.2)
        assert not asked.done(), "changes of other jobs are none of its own"
        await cancel(browser, job["job"])
        got = await asked
        assert (got.status, got.json["state"], got.json["complete"]) == (200, "cancelled", True)
        again = await get(browser, path, Prefer="wait=60")
        assert again.json == got.json, "a job that has ended is answered at once"
        strange = await get(stranger, path, Prefer="wait=60")
        assert strange.status == 404, "and so is a job of somebody else"
        await cancel(browser, other["job"])


async def test_requests_that_wait_take_places_and_no_threads(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("transcribe", seconds=60)
        path = f"/jobs/{job['job']}"
        before = threads(running)
        asked = [asyncio.create_task(get(browser, path, Prefer="wait=60")) for _ in range(PLACES)]
        refused, pending = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        [one] = [each.result() for each in refused]
        assert (one.status, one.json["code"]) == (429, "too_many_sockets"), "the socket has a place"
        assert int(one.headers["Retry-After"]) > 0
        assert one.json["detail"]
        async with asyncio.timeout(PATIENCE):
            while threads(running) > before + 5:
                await asyncio.sleep(0.1)
        pending.pop().cancel()  # a program that leaves gives up its place
        async with asyncio.timeout(PATIENCE):
            while (await get(browser, path, Prefer="wait=1")).status == 429:
                await asyncio.sleep(0.1)
        await cancel(browser, job["job"])
        answers = await asyncio.gather(*pending, return_exceptions=True)
        assert {each.json["state"] for each in answers if isinstance(each, Got)} == {"cancelled"}


async def test_a_program_follows_a_job_to_its_end_by_waiting_requests(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=1)
        path, versions = f"/jobs/{job['job']}", [job["version"]]
        async with asyncio.timeout(PATIENCE):
            while not (got := await get(browser, path, Prefer="wait=60")).json["complete"]:
                versions.append(got.json["version"])
        assert got.json["state"] == "succeeded"
        assert got.json["result"]
        assert versions == sorted(set(versions)), "each answer is news"
