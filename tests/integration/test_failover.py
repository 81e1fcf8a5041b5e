"""A database that fails over, is locked, migrated or busy, under real processes.

Nobody is told of an outage where calls only met each other, and nobody waits for ever in one.
"""

import asyncio
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest

from tests.chaos.gate import Gate
from tests.services import PATIENCE, Postgres, Stack, answers, free_port, own_postgres, web_command
from tests.visitor import Frame, Visitor, browse

#: A name in front of the database moves so many seconds after the old primary has come back.
MOVES = 6.0


@pytest.fixture
def primary() -> Iterator[Postgres]:
    """A PostgreSQL of a test's own, which may fail over."""
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed: `make test` installs it")
    with own_postgres() as primary:
        yield primary


@asynccontextmanager
async def running(
    stack: Callable[..., Stack], database: str, *, workers: int = 2, **options: object
) -> AsyncIterator[Stack]:
    """A stack; the event loop goes on while it starts and stops, because a gate may run in it."""
    up = await asyncio.to_thread(lambda: stack(workers=workers, database=database, **options))
    try:
        yield up
    finally:
        await asyncio.to_thread(up.stop)


async def status(up: Stack, path: str) -> int:
    """The status of a page, for a visitor who is new."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(up.url + path, timeout=aiohttp.ClientTimeout(total=PATIENCE)) as answer,
    ):
        return answer.status


async def becomes(up: Stack, path: str, wanted: int) -> None:
    """Wait until a page has this status."""
    async with asyncio.timeout(PATIENCE):
        while await status(up, path) != wanted:
            await asyncio.sleep(0.2)


def live(frame: Frame) -> bool:
    """Whether a frame says that updates come again."""
    return frame["type"] == "status" and bool(frame["live"])


async def ask(visitor: Visitor, request: str, **params: object) -> None:
    """Send a start with this request, and wait for nothing."""
    await visitor.send({"action": "start", "params": params, "request": request})


async def all_back(up: Stack) -> None:
    """Wait until each process that said that the database is away has said that it is back."""
    async with asyncio.timeout(PATIENCE):
        while any(
            process.output().count(f"the {it} is away")
            > process.output().count(f"the {it} is back")
            for process in up.processes.values()
            for it in ("database", "ledger")
        ):
            await asyncio.sleep(0.2)


def expect_one_outage(up: Stack) -> None:
    """Expect one line when the database went and one when it came back, and no traceback."""
    assert "Traceback" not in up.logs(), up.logs()[-6000:]
    told = 0
    for process in up.processes.values():
        log = process.output()
        away, back = (
            len(re.findall(f"the (?:database|ledger) is {it}", log)) for it in ("away", "back")
        )
        assert away == back, log
        assert away <= 1, log  # 0: it had nothing to do meanwhile, and did not notice
        told += away
    assert told >= 2, up.logs()


async def test_all_goes_on_when_the_name_has_moved_after_a_failover(
    stack: Callable[..., Stack], primary: Postgres
) -> None:
    """The old primary comes back at once as a standby, so connections stay with it."""
    address = primary.new_database()
    standby = await asyncio.to_thread(primary.standby)
    gate = await Gate([("127.0.0.1", primary.port)]).start()
    parts = urlsplit(address)
    named = parts._replace(netloc=f"postgres@127.0.0.1:{gate.port}").geturl()
    try:
        async with running(stack, named) as up, browse(up) as visitor:
            jobs = await visitor.starts(6, seconds=12)
            await visitor.running()
            await asyncio.to_thread(primary.wait_for_standby)
            await asyncio.to_thread(primary.shut_down)
            await asyncio.to_thread(standby.promote)
            await asyncio.to_thread(primary.follow, standby)
            await ask(visitor, "to the standby")
            error = await visitor.error()
            assert (error["code"], error["request"]) == ("unavailable", "to the standby")
            await asyncio.sleep(MOVES)  # the fault itself
            assert await status(up, "/") == 503
            gate.nodes = [("127.0.0.1", standby.port)]
            await becomes(up, "/", 200)
            await visitor.until(live)
            jobs.add((await visitor.start(seconds=1))["job"])
            assert await visitor.end_states(jobs) == {"succeeded"}
            await all_back(up)
            expect_one_outage(up)
            assert up.logs().count("starting over until it works") == 0, "RabbitMQ was there"
    finally:
        await gate.close()
        await asyncio.to_thread(standby.stop)


async def test_of_many_starts_at_once_none_is_refused_where_transactions_are_serializable(
    stack: Callable[..., Stack], postgres_url: Postgres
) -> None:
    """Two web processes, and all jobs of one audience: each counts the others' rows."""
    database = postgres_url.new_database()
    with psycopg.connect(database, autocommit=True) as connection:
        name = urlsplit(database).path[1:]
        connection.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation = serializable"  # type: ignore[arg-type, unused-ignore]
        )
    async with running(stack, database) as up:
        other = await asyncio.to_thread(second_web, up)
        async with AsyncExitStack() as sockets:
            session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
            await sockets.enter_async_context(session)
            async with session.get(f"{up.url}/"):
                pass  # one visitor for all sockets
            both = (up.ws_url, other)
            visitors = []
            for n in range(20):
                socket = await sockets.enter_async_context(
                    session.ws_connect(both[n % 2], max_msg_size=0)
                )
                visitors.append(Visitor(up, session, socket))
            requests: list[set[str]] = [set() for _ in visitors]
            for n in range(60):
                requests[n % 20].add(request := str(uuid.uuid4()))
                await ask(visitors[n % 20], request, seconds=1)

            async def answered(visitor: Visitor, wanted: set[str]) -> set[str]:
                found: dict[str, str] = {}
                while found.keys() != wanted:
                    frame = await visitor.until(lambda f: f.get("request") in wanted)
                    assert frame["type"] == "job", frame
                    found[frame["request"]] = frame["job"]
                return set(found.values())

            made = await asyncio.gather(*map(answered, visitors, requests))
            jobs = set().union(*made)
            assert len(jobs) == 60
            assert await visitors[0].end_states(jobs) == {"succeeded"}
        assert "is away" not in up.logs()
        assert "Traceback" not in up.logs(), up.logs()[-6000:]


def second_web(up: Stack) -> str:
    """Start a second web process; returns the address of its socket."""
    port = free_port()
    up.add("web2", web_command(port)).start(lambda: answers(f"http://127.0.0.1:{port}/healthz"))
    return f"ws://127.0.0.1:{port}/prog/"


#: A host project that says nothing of SQLite but where it is, and starts jobs in threads.
STARTS = """
import threading
from concurrent.futures import ThreadPoolExecutor
from progrock.models import Job
import progrock
together = threading.Barrier(8)

def starts(n):
    together.wait()
    failed = []
    for _ in range(25):
        try:
            progrock.start("render", {"n": n}, audience="user:%d" % n)
        except Exception as error:
            failed.append(repr(error))
    return failed

with ThreadPoolExecutor(8) as threads:
    failed = sum(threads.map(starts, range(8)), [])
print(Job.objects.count(), len(failed), *failed[:3])
"""


def test_of_many_starts_in_threads_none_is_refused_by_sqlite_with_default_options(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(
        "from config.settings import *\nDATABASES['default'].pop('OPTIONS')\n"
    )
    env = {"PYTHONPATH": f"{tmp_path}:{Path('site').resolve()}", "DJANGO_SETTINGS_MODULE": "plain"}
    with stack(workers=0, web=False, env=env) as up:
        assert up.shell(STARTS) == "200 0"


async def test_a_result_that_no_statement_can_hold_fails_its_job_alone(
    stack: Callable[..., Stack], postgres_url: Postgres, tmp_path: Path
) -> None:
    """PostgreSQL takes no text in JSON from 256 MB on; three of 90 MB are too much together."""
    backends = tmp_path / "backends.toml"
    backends.write_text(
        '[bulky]\nclass = "tests.fragile.Bulky"\nbrowser = true\nshards = 1\ninterval = 1\n'
    )
    async with (
        running(stack, postgres_url.new_database(), workers=1, backends=backends) as up,
        browse(up) as visitor,
    ):
        large = (await visitor.start("bulky", mib=256))["job"]
        fine = await visitor.starts(3, "bulky", mib=90)
        fine |= await visitor.starts(1, "bulky", mib=0)
        assert await visitor.end_states(fine, 8 * PATIENCE) == {"succeeded"}
        end = (await visitor.ends({large}, 4 * PATIENCE))[large]
        assert end["state"] == "failed"
        assert end["error"].startswith("the database cannot hold what came of this job: ")
        assert "is away" not in up.logs()
        assert "Traceback" not in up.logs(), up.logs()[-6000:]


async def test_a_column_that_is_missing_means_away_in_web_and_worker(
    stack: Callable[..., Stack], postgres_url: Postgres
) -> None:
    """So it is while a migration has not yet run."""
    database = postgres_url.new_database()

    def rename(old: str, new: str) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(f"ALTER TABLE progrock_job RENAME COLUMN {old} TO {new}")  # type: ignore[arg-type, unused-ignore]

    async with running(stack, database) as up, browse(up) as visitor:
        jobs = await visitor.starts(4, seconds=10)
        await visitor.running()
        await asyncio.to_thread(rename, "result_size", "not_yet")
        await ask(visitor, "too early")
        error = await visitor.error()
        assert (error["code"], error["request"]) == ("unavailable", "too early")
        await visitor.send({"action": "cancel", "job": next(iter(jobs))})
        assert (await visitor.error())["code"] == "unavailable"
        assert await status(up, f"/jobs/{next(iter(jobs))}") == 503
        async with asyncio.timeout(PATIENCE):
            while "the ledger is away" not in up.logs():
                await asyncio.sleep(0.2)
        await asyncio.to_thread(rename, "not_yet", "result_size")
        await visitor.until(live)
        jobs.add((await visitor.start(seconds=1))["job"])
        assert await visitor.end_states(jobs) == {"succeeded"}
        await all_back(up)
        expect_one_outage(up)


async def test_after_a_lock_each_error_frame_was_true(
    stack: Callable[..., Stack], postgres_url: Postgres
) -> None:
    """`unavailable`: nothing was done. `outcome_unknown`: the same request starts one job."""
    database = postgres_url.new_database()
    locked, free = threading.Event(), threading.Event()

    def lock() -> None:
        with psycopg.connect(database) as connection:
            connection.execute("LOCK TABLE progrock_job IN ACCESS EXCLUSIVE MODE")
            locked.set()
            free.wait(PATIENCE)

    def requests() -> dict[str, int]:
        with psycopg.connect(database) as connection:
            found = connection.execute(
                "SELECT request, count(*) FROM progrock_job WHERE request LIKE 'locked%' GROUP BY 1"
            )
            return dict(found.fetchall())

    async with running(stack, database, workers=1) as up, browse(up) as visitor:
        await visitor.snapshot()
        locking = asyncio.create_task(asyncio.to_thread(lock))
        try:
            assert await asyncio.to_thread(locked.wait, PATIENCE)
            for n in range(3):
                await ask(visitor, f"locked {n}", seconds=1)
            errors = [await visitor.error() for _ in range(3)]
            await asyncio.sleep(2)  # the lock outlives all answers
        finally:
            free.set()
            await locking
        said = {error["request"]: error["code"] for error in errors}
        assert said.keys() == {f"locked {n}" for n in range(3)}
        assert said["locked 0"] == "outcome_unknown"
        assert set(said.values()) <= {"outcome_unknown", "unavailable"}
        await visitor.until(live)
        await visitor.start(seconds=1)  # what still stood in line was before it
        undone = {request for request, code in said.items() if code == "unavailable"}
        assert not undone & (await asyncio.to_thread(requests)).keys()
        jobs = set()
        for request in said.keys() - undone:
            await ask(visitor, request, seconds=1)
            known = await visitor.until(lambda f, r=request: f.get("request") == r and "job" in f)
            jobs.add(known["job"])
        assert await asyncio.to_thread(requests) == dict.fromkeys(said.keys() - undone, 1)
        assert await visitor.end_states(jobs) == {"succeeded"}
        assert "Traceback" not in up.logs(), up.logs()[-6000:]
