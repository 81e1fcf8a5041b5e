"""The database goes away and comes back: pages and sockets are told, and all jobs still end."""

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator

import aiohttp
import psutil
import pytest

from tests.services import PATIENCE, Postgres, Stack, own_postgres
from tests.visitor import Frame, browse

AWAY = "The database is away"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may stop or kill."""
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed: `make test` installs it")
    with own_postgres() as postgres:
        yield postgres


@pytest.fixture(scope="module")
def up(stack: Callable[..., Stack], postgres: Postgres) -> Iterator[Stack]:
    """A stack on that PostgreSQL."""
    env = {"DJANGO_SETTINGS_MODULE": "tests.impatient"}
    with stack(workers=2, database=postgres.new_database(), env=env) as up:
        yield up


def logged(up: Stack) -> dict[str, int]:
    """How many characters each process has logged."""
    return {name: len(process.output()) for name, process in up.processes.items()}


def since(up: Stack, name: str, before: dict[str, int]) -> str:
    """What a process has logged since `logged`."""
    return up.processes[name].output()[before[name] :]


async def get(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    """Status and text of a page."""
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=20)) as answer:
        return answer.status, await answer.text()


async def expect_refusal(up: Stack, session: aiohttp.ClientSession) -> None:
    """Expect that a socket is accepted, told that the database is away, and closed with 1013."""
    async with browse(up, session) as late:
        error = await late.error()
        assert error["code"] == "unavailable"
        assert AWAY in error["message"]
        assert (await late.socket.receive()).type == aiohttp.WSMsgType.CLOSE
        assert late.socket.close_code == 1013


def told_away(frame: Frame) -> bool:
    """Whether a frame says that the database is away."""
    return frame["type"] == "status" and not frame["live"] and "database" in frame["message"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
async def test_everything_goes_on_when_the_database_comes_back(
    up: Stack, postgres: Postgres, how: signal.Signals
) -> None:
    before = logged(up)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        browse(up, session) as visitor,
    ):
        await get(session, f"{up.url}/")  # It sets the session's cookie.
        jobs = await visitor.starts(5, seconds=4)
        await visitor.running()
        before_it = len(visitor.frames)  # which may tell of the outage in the test before
        os.kill(postgres.process.pid, how)
        assert postgres.process.popen
        await asyncio.to_thread(postgres.process.popen.wait, PATIENCE)
        async with asyncio.timeout(PATIENCE):  # what it says may be a second old
            while (await get(session, f"{up.url}/healthz"))[0] == 200:
                await asyncio.sleep(0.1)
        status, text = await get(session, f"{up.url}/healthz")
        assert status == 503
        assert "ok" not in text.split("rabbitmq")[0]
        # Each of these waits for a connection for some seconds, so they wait side by side.
        paths = ("/", "/jobs", f"/jobs/{next(iter(jobs))}", "/admin/")
        async with aiohttp.ClientSession() as other:
            found = asyncio.gather(
                *(get(session, up.url + path) for path in paths),
                expect_refusal(up, session),  # A visitor who comes back.
                expect_refusal(up, other),  # A visitor who is new.
            )
            start = {"action": "start", "params": {"seconds": 1}, "request": "away"}
            await visitor.send(start)
            error = await visitor.error()
            assert (error["code"], error["request"]) == ("unavailable", "away")
            assert AWAY in error["message"]
            await visitor.send({"action": "cancel", "job": next(iter(jobs))})
            assert (await visitor.error())["code"] == "unavailable"
            for path, page in zip(paths, (await found)[:4], strict=True):
                assert page is not None
                assert page[0] == 503, path
                assert AWAY in page[1]
        # It may have come before the errors.
        if not any(map(told_away, visitor.frames[before_it:])):
            await visitor.until(told_away)
        await asyncio.sleep(3)  # So a process that logs more than one line a change shows it.
        await asyncio.to_thread(postgres.restart)
        await visitor.until(lambda f: f["type"] == "status" and f["live"])
        jobs.add((await visitor.start(seconds=1))["job"])
        assert await visitor.end_states(jobs) == {"succeeded"}
        async with asyncio.timeout(PATIENCE):
            while (await get(session, f"{up.url}/healthz"))[0] != 200:
                await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            while not all(
                log.count(f"the {it} is away") == log.count(f"the {it} is back")
                for log in (since(up, name, before) for name in up.processes)
                for it in ("database", "ledger")
            ):
                await asyncio.sleep(0.2)
    away = 0
    for name in up.processes:
        log = since(up, name, before)
        assert "Traceback" not in log, log[-6000:]
        sentence = "the database is" if name == "web" else "the ledger is"
        told = len(re.findall(f"{sentence} away", log))
        assert told <= 1, log  # 0: a worker that had nothing to do meanwhile does not notice.
        assert len(re.findall(f"{sentence} back", log)) == told
        away += told
    assert away >= 2


async def test_while_the_database_is_read_only_nobody_sees_an_error_page(
    up: Stack, postgres: Postgres
) -> None:
    before = logged(up)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        browse(up, session) as visitor,
    ):
        await get(session, f"{up.url}/")  # It sets the session's cookie.
        jobs = await visitor.starts(1, seconds=8)
        await visitor.running()
        postgres.read_only(True)
        try:
            async with asyncio.timeout(PATIENCE):  # each server process reads it in its own time
                while True:
                    await visitor.send({"action": "start", "params": {"seconds": 1}})
                    frame = await visitor.until(lambda f: f["type"] in ("job", "error"))
                    if frame["type"] == "error":
                        break
            assert frame["code"] == "unavailable"
            await visitor.send({"action": "cancel", "job": next(iter(jobs))})
            assert (await visitor.error())["code"] == "unavailable"
            async with aiohttp.ClientSession() as new:
                status, text = await get(new, f"{up.url}/")
                assert (status, AWAY in text) == (503, True)
                async with asyncio.timeout(PATIENCE):  # what it says may be a second old
                    while (await get(new, f"{up.url}/healthz"))[0] != 503:
                        await asyncio.sleep(0.1)
            for _ in range(3):  # Reads work, and end no outage.
                async with browse(up, session) as reader:
                    await reader.snapshot()
                await asyncio.sleep(0.5)
                await visitor.send({"action": "start", "params": {"seconds": 1}})
                assert (await visitor.error())["code"] == "unavailable"
        finally:
            postgres.read_only(False)
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as new:
            while (await get(new, f"{up.url}/"))[0] != 200:
                await asyncio.sleep(0.1)
        assert await visitor.end_states(jobs) == {"succeeded"}
        async with asyncio.timeout(PATIENCE):
            while "the database is back" not in since(up, "web", before):
                await asyncio.sleep(0.1)
        told = [frame["live"] for frame in visitor.frames if frame["type"] == "status"]
    log = since(up, "web", before)
    assert "Traceback" not in log, log[-6000:]
    assert (log.count("the database is away"), log.count("the database is back")) == (1, 1), log
    assert told in ([False], [False, True]), "it may have come after the last frame"
    for name in up.processes:
        log = since(up, name, before)
        assert log.count("the ledger is away") <= 1, log


async def test_a_database_that_never_answers_blocks_nobody_for_ever(
    up: Stack, postgres: Postgres
) -> None:
    before = logged(up)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        browse(up, session) as visitor,
    ):
        jobs = await visitor.starts(1, seconds=8)
        await visitor.running()
        server = psutil.Process(postgres.process.pid)
        everything = [server, *server.children(recursive=True)]
        before_it = len(visitor.frames)  # which may tell of the outage in the test before
        for process in everything:
            process.suspend()
        try:
            for request in ("frozen", "and another"):
                start = {"action": "start", "params": {"seconds": 1}, "request": request}
                await visitor.send(start)
            await visitor.send({"action": "ping"})
            await visitor.until(lambda f: f["type"] == "beat")
            assert not any(f["type"] == "error" for f in visitor.frames), "it waited for the starts"
            async with aiohttp.ClientSession() as other:
                await expect_refusal(up, other)
            errors = [await visitor.error() for _ in range(2)]
            codes = {error["request"]: error["code"] for error in errors}
            second = {"and another": "unavailable"}  # it never began
            assert codes == {"frozen": "outcome_unknown"} | second
            if not any(map(told_away, visitor.frames[before_it:])):
                await visitor.until(told_away)
            assert not [f for f in visitor.frames if f["type"] == "status"][-1]["live"]
            assert (await get(session, f"{up.url}/healthz"))[0] == 503
        finally:
            for process in everything:
                process.resume()
        await visitor.until(lambda f: f["type"] == "status" and f["live"])
        for _ in range(2):  # Whoever asks again with the same request gets the same job.
            await visitor.send({"action": "start", "params": {"seconds": 1}, "request": "frozen"})
            again = await visitor.until(lambda f: f.get("request") == "frozen" and "job" in f)
            jobs.add(again["job"])
        assert len(jobs) == 2
        jobs |= await visitor.starts(1, seconds=1)
        assert await visitor.end_states(jobs) == {"succeeded"}
    for name in up.processes:
        assert "Traceback" not in since(up, name, before), since(up, name, before)[-6000:]
