"""The database goes away and comes back: who is told what, and that every job ends."""

import asyncio
import os
import re
import signal
from collections.abc import Iterator

import aiohttp
import psutil
import pytest

from tests.services import PATIENCE, Broker, DemoBackend, Postgres, Stack
from tests.visitor import Frame, browse

AWAY = "The database is away"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A cluster that a test may stop."""
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed: `make test` installs it")
    cluster = Postgres()
    cluster.process.command += [
        "-c",
        "synchronous_commit=on",
    ]  # what was acknowledged outlives a kill
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def up(
    rabbitmq: Broker,
    demo_backend: DemoBackend,
    postgres: Postgres,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stack]:
    """A stack whose ledger is there."""
    directory = tmp_path_factory.mktemp("outages")
    with Stack(
        directory, rabbitmq, database_url=postgres.new_database(), backend_url=demo_backend.url
    ) as up:
        up.manage("migrate", "--verbosity", "0")
        up.manage("topology", "--declare")
        up.start_worker()
        up.start_worker()
        up.start_web()
        yield up


def logged(up: Stack) -> dict[str, int]:
    """How much each process has logged."""
    return {name: len(process.output()) for name, process in up.processes.items()}


def since(up: Stack, name: str, before: dict[str, int]) -> str:
    """What a process logged since then."""
    return up.processes[name].output()[before[name] :]


async def get(session: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with session.get(url, timeout=aiohttp.ClientTimeout(total=20)) as answer:
        return answer.status, await answer.text()


async def refused(up: Stack, session: aiohttp.ClientSession) -> None:
    """A socket is accepted, told, and closed with 1013."""
    async with browse(up, session) as late:
        error = await late.error()
        assert error["code"] == "unavailable"
        assert AWAY in error["message"]
        assert (await late.socket.receive()).type == aiohttp.WSMsgType.CLOSE
        assert late.socket.close_code == 1013


def told_away(frame: Frame) -> bool:
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
        await get(
            session, f"{up.url}/"
        )  # a page with a session, so that the cookie is known to the server
        jobs = {(await visitor.start(seconds=8))["job"] for _ in range(5)}
        await visitor.until(lambda f: f.get("state") == "running")
        os.kill(postgres.process.pid, how)
        assert postgres.process.popen
        await asyncio.to_thread(postgres.process.popen.wait, PATIENCE)
        status, text = await get(session, f"{up.url}/healthz")
        assert status == 503
        assert "ok" not in text.split("rabbitmq")[0]
        await visitor.send({"action": "start", "params": {"seconds": 1}, "request": "away"})
        error = await visitor.error()
        assert (error["code"], error["request"]) == ("unavailable", "away")
        assert AWAY in error["message"]
        await visitor.send({"action": "cancel", "job": next(iter(jobs))})
        assert (await visitor.error())["code"] == "unavailable"
        await refused(up, session)  # who comes back
        async with aiohttp.ClientSession() as other:  # who is new
            await refused(up, other)
        for path in ("/", f"/jobs/{next(iter(jobs))}", "/admin/"):
            status, text = await get(session, up.url + path)
            assert status == 503, path
            assert AWAY in text
        if not any(map(told_away, visitor.frames)):  # it may have come before the errors
            await visitor.until(told_away)
        await asyncio.sleep(3)  # time to complain more than once
        await asyncio.to_thread(postgres.process.start, postgres._is_up)
        await visitor.until(lambda f: f["type"] == "status" and f["live"])
        jobs.add((await visitor.start(seconds=1))["job"])
        assert {frame["state"] for frame in (await visitor.ends(jobs)).values()} == {"succeeded"}
        assert (await get(session, f"{up.url}/healthz"))[0] == 200
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
        assert told <= 1, log  # none: a worker that had nothing to do meanwhile
        assert len(re.findall(f"{sentence} back", log)) == told
        away += told
    assert away >= 2


async def test_a_database_that_never_answers_holds_nobody_for_ever(
    up: Stack, postgres: Postgres
) -> None:
    before = logged(up)
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session,
        browse(up, session) as visitor,
    ):
        job = (await visitor.start(seconds=8))["job"]
        await visitor.until(lambda f: f.get("state") == "running")
        server = psutil.Process(postgres.process.pid)
        everything = [server, *server.children(recursive=True)]
        for process in everything:
            process.suspend()
        try:
            for request in ("frozen", "and another"):
                await visitor.send(
                    {"action": "start", "params": {"seconds": 1}, "request": request}
                )
            async with aiohttp.ClientSession() as other:
                await refused(up, other)
            assert [(await visitor.error())["request"] for _ in range(2)] == [
                "frozen",
                "and another",
            ]
            told = [f for f in visitor.frames if f["type"] == "status"]
            assert any(map(told_away, told))
            assert not told[-1]["live"]
            assert (await get(session, f"{up.url}/healthz"))[0] == 503
        finally:
            for process in everything:
                process.resume()
        await visitor.until(lambda f: f["type"] == "status" and f["live"])
        again = await visitor.start(seconds=1)
        ended = await visitor.ends({job, again["job"]})
        assert {frame["state"] for frame in ended.values()} == {"succeeded"}
    for name in up.processes:
        assert "Traceback" not in since(up, name, before), since(up, name, before)[-6000:]
