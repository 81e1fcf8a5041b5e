"""Server-sent events: the frames of the wire over HTTP, against real servers and RabbitMQ."""

import asyncio
import sys
from collections.abc import Callable, Iterator

import aiohttp
import pytest

from deploy.demo.rabbitmq_node import free_port
from tests.integration.test_security import client, post, sign_in
from tests.listener import Listener, listen
from tests.proxy import proxy
from tests.services import PATIENCE, Stack, answers
from tests.visitor import browse

PLACES = 3
ANN = "from django.contrib.auth.models import User; User.objects.create_user('ann', password='ann')"


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """One stack for the tests that leave it as it was."""
    with stack(workers=1, env={"PROGROCK_MAX_SOCKETS": str(PLACES)}) as up:
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


async def test_a_stream_takes_a_place_and_a_browser_that_leaves_gives_it_up(
    running: Stack, url: str
) -> None:
    async with listen(running, url=url) as first:
        await first.snapshot()
        async with listen(running, first.session, url=url) as second:
            await second.snapshot()
            async with listen(running, first.session, url=url) as third:
                await third.snapshot()
                async with listen(running, first.session, url=url) as refused:
                    await is_problem(refused, 429, "too_many_sockets")
                    assert int(refused.answer.headers["Retry-After"]) > 0
        async with asyncio.timeout(PATIENCE):
            while True:
                async with listen(running, first.session, url=url) as again:
                    if again.answer.status == 200:
                        break
                await asyncio.sleep(0.1)


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
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), listen(running, url=there.url):
                pytest.fail("the proxy let something through")
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
                stopping = asyncio.create_task(asyncio.to_thread(up.stop_web))
                assert (await stays.over())["type"] == "snapshot"
                await stopping
        assert "Traceback" not in up.logs("web")
