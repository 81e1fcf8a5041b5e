"""Many browsers, pages and probes at once: all are served, with a bounded number of connections."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import aiohttp
import psycopg
import pytest

from tests.bench.storm import storm
from tests.services import PATIENCE, Postgres, Stack
from tests.visitor import browse

#: The most connections: those of a web process, as PROGROCK_POOL has it, and one of the worker.
MOST = 10 + 1
#: So many browsers come back at once. Their calls take longer together than one may take.
BROWSERS = 600


def slow_audiences(scope: Mapping[str, Any]) -> list[str]:
    """For PROGROCK_AUDIENCES: a project's own function, which asks somebody else."""
    from progrock.audiences import audiences

    time.sleep(0.02)
    return audiences(scope)


@pytest.fixture(scope="module")
def up(stack: Callable[..., Stack], postgres_url: Postgres) -> Iterator[Stack]:
    """A web process on PostgreSQL, and a worker, so that no job is late."""
    env = {"PROGROCK_AUDIENCES": "tests.integration.test_many_at_once.slow_audiences"}
    with stack(workers=1, database=postgres_url.new_database(), env=env) as up:
        yield up


def connections(up: Stack) -> int:
    """How many connections others have to the database of this stack."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with psycopg.connect(up.database_url) as connection:
        [(found,)] = connection.execute(query).fetchall()
    return int(found)


async def test_many_probes_cost_one_connection(up: Stack) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    until, most = time.monotonic() + 3, 0
    async with aiohttp.ClientSession(connector=connector) as session:

        async def probe() -> int:
            answered = 0
            while time.monotonic() < until:
                async with session.get(f"{up.url}/healthz") as answer:
                    assert answer.status == 200
                    answered += 1
            return answered

        probes = [asyncio.create_task(probe()) for _ in range(150)]
        while time.monotonic() < until:
            most = max(most, await asyncio.to_thread(connections, up))
            await asyncio.sleep(0.3)
        assert all(await asyncio.gather(*probes))
    assert most <= MOST


async def test_many_pages_at_once_are_all_served_and_leave_no_connections(up: Stack) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as s:

        async def page() -> int:
            async with s.get(f"{up.url}/", timeout=aiohttp.ClientTimeout(PATIENCE)) as answer:
                await answer.read()
                return answer.status

        assert set(await asyncio.gather(*(page() for _ in range(200)))) == {200}
    assert await asyncio.to_thread(connections, up) <= MOST


async def test_browsers_that_come_back_at_once_all_have_their_snapshot(up: Stack) -> None:
    await asyncio.to_thread(up.stop_web)
    await asyncio.to_thread(up.start_web)
    found = await storm(up.ws_url, BROWSERS, 2 * PATIENCE)
    assert found["missing"] == 0
    assert found["told"] == {}
    assert found["tries"] == BROWSERS
    assert found["displaced"] < 100, "they are served in the order of coming"
    assert found["starts"]["taken"]
    assert not found["starts"]["not taken"]
    assert "the database is away" not in up.logs("web")
    assert await asyncio.to_thread(connections, up) <= MOST
    async with browse(up) as visitor:
        assert (await visitor.snapshot())["jobs"] == []
