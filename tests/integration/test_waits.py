"""Waiting requests: `Prefer: wait`, against a real server, workers and RabbitMQ."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.services import PATIENCE, Stack
from tests.visitor import Visitor, browse

PLACES = 30


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """One stack for all tests; only the last has a worker, so that nothing changes by itself."""
    with stack(workers=0, env={"PROGROCK_MAX_SOCKETS": str(PLACES)}) as up:
        yield up


class Got:
    """An answer: its status, its headers, and its JSON."""

    def __init__(self, answer: aiohttp.ClientResponse, json: Any) -> None:
        self.status, self.headers, self.json = answer.status, answer.headers, json


async def get(visitor: Visitor, path: str, **headers: str) -> Got:
    """Ask for a path of the visitor's server."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    patient = aiohttp.ClientTimeout(total=3 * PATIENCE)
    url = visitor.stack.url + path
    async with visitor.session.get(url, headers=names, timeout=patient) as answer:
        found = await answer.json(content_type=None) if answer.status != 304 else None
        return Got(answer, found)


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


async def test_without_a_change_the_plain_answer_comes_at_the_end(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=60)
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
        job = await browser.start("render", seconds=60)
        path = f"/jobs/{job['job']}"
        asked = await waiting(browser, path)
        await stranger.start("render", seconds=60)
        other = await browser.start("render", seconds=60)
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
        job = await browser.start("render", seconds=60)
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


def threads(stack: Stack) -> int:
    """How many threads the web process has."""
    process = stack.processes["web"].popen
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("Threads:")[2].split()[0])


async def test_a_server_that_stops_answers_those_who_wait(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=60)
        asked = await waiting(browser, f"/jobs/{job['job']}")
        await asyncio.to_thread(running.stop_web)
        assert (await asked).json["state"] == "queued"
        running.start_web()


async def test_a_program_follows_a_job_to_its_end_by_waiting_requests(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=1)
        path, versions = f"/jobs/{job['job']}", [job["version"]]
        running.start_worker()
        async with asyncio.timeout(PATIENCE):
            while not (got := await get(browser, path, Prefer="wait=60")).json["complete"]:
                versions.append(got.json["version"])
        assert got.json["state"] == "succeeded"
        assert got.json["result"]
        assert versions == sorted(set(versions)), "each answer is news"
