"""Jobs that nobody watches are looked at more rarely, on both databases, until somebody comes."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction

from progrock import attention, clock, conf, ledger
from progrock.backends import Options
from progrock.lease import resumed
from progrock.ledger import Committed, Row
from progrock.lifecycle import Decision
from progrock.models import Attention, Job
from tests.ledgers import make
from tests.services import PATIENCE, Process, Stack, answers, web_command
from tests.visitor import Visitor, browse

#: The interval of a job that is watched, and of one that is not, in seconds.
SOON, LATER = 1.0, 3600.0
JOBS = 3
#: The interval of the backend of the stack.
QUICK = 0.3
#: This backend never ends a job, and each look at one has news.
TABLE = f"""
[noop]
class = "tests.bench.noop.Noop"
changes = true
interval = {QUICK}
unwatched = {LATER}
shards = 1
deadline = 80000
"""
#: A web process that forgets an audience some seconds after its last socket, in place of 60.
WEB = """
import os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
django.setup()
from progrock import attention
from progrock.consumers import attention as duty
attention.GOOD_FOR, duty.RENEW = 6.0, 3.0
import uvicorn
uvicorn.main(sys.argv[1:])
"""


# The ledger


@pytest.fixture
def backends(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend with `unwatched`, and nothing left of the test before."""
    options = Options(name="render", interval=SOON, unwatched=LATER)
    monkeypatch.setattr(conf, "backends", lambda: {"render": options})
    Job.objects.all().delete()
    Attention.objects.all().delete()


def job(audience: str = "user:1", **changes: Any) -> Row:
    """A running job that is due now and was never looked at, as a worker reads it."""
    return read(make(audience=audience, **changes).id)


def read(job_id: str) -> Row:
    """The job as a worker reads it."""
    return ledger.load([job_id], attention=True)[job_id]


def look(
    row: Row, *, now: float, delay: float = LATER, soon: float = SOON, free: float = 0.0
) -> Committed:
    """The step of a worker that has read this row: nothing new."""
    decision = Decision("running", "h1", None, delay=delay, soon=soon, free=free)
    [won] = ledger.commit([(replace(row), decision)], now)
    there = read(row.id)
    assert won.row.turn == there.turn
    assert won.row.due_at == pytest.approx(there.due_at, abs=1e-5)
    return won


def waits(audience: str = "user:1", *, since: float = 10.0, **about: Any) -> Row:
    """A job that was looked at so many seconds ago, and its next look is far away."""
    row, then = job(audience), time.time() - since
    look(row, now=then)
    look(read(row.id), now=then, **about)
    return read(row.id)


@pytest.mark.usefixtures("backends")
def test_a_row_knows_whether_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = job("user:1"), job("team:blue")
    assert not mine.watched
    attention.watch(["user:1", "visitor:x"])
    assert read(mine.id).watched
    assert not read(other.id).watched
    assert ledger.load([other.id])[other.id].watched, "where nobody asks, all are watched"
    later = clock.now() + attention.GOOD_FOR + 1
    monkeypatch.setattr(clock, "now", lambda: later)
    assert not read(mine.id).watched


@pytest.mark.usefixtures("backends")
def test_who_comes_makes_the_jobs_of_all_their_audiences_due_now() -> None:
    mine, teams, others = waits("user:1"), waits("team:blue"), waits("user:2")
    assert mine.due_at > time.time() + LATER / 2
    before = time.time()
    found = attention.watch(["user:1", "team:blue"])
    assert {each.row.id for each in found} == {mine.id, teams.id}
    for each in found:
        assert before - 1 < each.row.due_at <= time.time() + 1
        assert (each.delay, each.visible) == (0.0, False)
        assert each.row.turn == read(each.row.id).turn, "a second task of the same turn"
        assert read(each.row.id).due_at == each.row.due_at
    assert read(others.id).due_at == others.due_at
    [slot] = Job.objects.filter(pk=mine.id).values_list("due_slot", flat=True)
    assert slot == int(read(mine.id).due_at // 5), "the sweep finds it where it is due"


@pytest.mark.usefixtures("backends")
def test_a_second_socket_of_an_audience_moves_nothing() -> None:
    waits()
    assert len(attention.watch(["user:1"])) == 1
    moved = waits()  # a worker that has not seen that somebody watches
    assert attention.watch(["user:1"]) == []
    assert read(moved.id).due_at == moved.due_at
    assert attention.watch(["user:1", "user:2"]) == []


@pytest.mark.usefixtures("backends")
def test_who_comes_back_after_a_while_makes_them_due_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = waits()
    assert len(attention.watch(["user:1"])) == 1
    look(read(row.id), now=time.time())
    look(read(row.id), now=time.time())
    Attention.objects.update(until=clock.as_datetime(time.time() - 1))
    [again] = attention.watch(["user:1"])
    assert again.row.id == row.id
    assert Attention.objects.get().until > clock.as_datetime(time.time())


@pytest.mark.usefixtures("backends")
def test_a_wait_that_the_backend_asked_for_is_kept() -> None:
    row = waits(since=10.0, soon=60.0, free=60.0)
    now = time.time()
    [found] = attention.watch(["user:1"])
    assert now + 45 < found.row.due_at < now + 55
    assert 45 < found.delay < 55
    assert read(row.id).due_at == found.row.due_at


@pytest.mark.parametrize("first", [False, True], ids=["a later look", "the first look"])
@pytest.mark.parametrize("comes", ["before the load", "during the call", "after the commit"])
@pytest.mark.usefixtures("backends")
def test_whoever_comes_while_a_job_is_looked_at_sees_the_next_look_soon(
    first: bool, comes: str
) -> None:
    """In each order the job is due soon, and each task that matters is published."""
    row = job() if first else waits(since=LATER)
    if first:
        look(row, now=time.time() - SOON, delay=SOON, soon=SOON)  # the start
    now = time.time()
    if comes == "before the load":
        assert attention.watch(["user:1"]) == [], "its task is on the way"
    loaded = read(row.id)
    assert loaded.watched is (comes == "before the load")
    if comes == "during the call":
        assert attention.watch(["user:1"]) == [], "its task is being worked"
        assert read(row.id).turn == loaded.turn
    done = look(loaded, now=now, delay=SOON if loaded.watched else LATER)
    if comes == "after the commit":
        [done] = attention.watch(["user:1"])
    assert done.delay is not None
    assert done.delay <= SOON
    soon = now if comes == "after the commit" else now + SOON
    assert done.row.due_at == pytest.approx(soon, abs=0.5)
    assert read(row.id).due_at == pytest.approx(done.row.due_at, abs=1e-5)
    look(read(row.id), now=now)
    assert look(read(row.id), now=now).delay == LATER, "it is said once"


@pytest.mark.parametrize(
    ("comes", "pause"),
    [("before the commit", 0.0), ("after the commit", 0.0), ("after the commit", 60.0)],
)
@pytest.mark.usefixtures("backends")
def test_whoever_comes_after_a_resume_is_not_kept_waiting(comes: str, pause: float) -> None:
    """A worker died between its commit and the next task, and its task is delivered again."""
    row = waits(since=0.0, soon=pause or SOON, free=pause)
    now = time.time()
    decision = resumed(row, Options(name="render", interval=SOON, unwatched=LATER), now)
    found = attention.watch(["user:1"]) if comes == "before the commit" else []
    [done] = ledger.commit([(replace(row), decision)], now)
    assert done.row.turn == row.turn + 1
    if comes == "after the commit":
        found = attention.watch(["user:1"])
        [done] = found
    assert len(found) == 1
    assert read(row.id).due_at == pytest.approx(done.row.due_at, abs=1e-5)
    soon = pause if comes == "after the commit" else SOON
    assert done.row.due_at == pytest.approx(now + soon, abs=0.5)


@pytest.mark.usefixtures("backends")
def test_a_cancel_waits_for_nobody_and_for_no_pause() -> None:
    row = waits(since=LATER)
    attention.watch(["user:1"])
    ledger.request_cancel(row.id, time.time())
    done = look(row, now=(now := time.time()))
    assert (done.delay, done.row.due_at) == (0.0, now)


@pytest.mark.usefixtures("backends")
def test_a_commit_whose_answer_was_lost_is_known_again_when_somebody_came() -> None:
    row = waits(since=LATER)
    attention.watch(["user:1"])
    decision = Decision(state="running", handle="h1", progress=None, delay=LATER, soon=SOON)
    now = time.time()
    [told] = ledger.commit([(replace(row), decision)], now)
    [found] = ledger.committed([(replace(row), decision)], now)
    assert (found.delay, told.delay) == (SOON, SOON)
    assert found.row.due_at == pytest.approx(told.row.due_at, abs=1e-5)


@pytest.mark.usefixtures("backends")
def test_jobs_that_do_not_run_are_left_alone() -> None:
    now = datetime.now(UTC)
    far = now + timedelta(seconds=LATER)
    others = [
        job(state="queued", due_at=far),
        job(state="starting", due_at=far),
        job(state="succeeded", due_at=far, due_slot=None, free_at=now, ended_at=now),
        job(due_at=far),  # a backoff of an older release
    ]
    assert attention.watch(["user:1"]) == []
    assert [read(each.id).due_at for each in others] == [each.due_at for each in others]


@pytest.mark.usefixtures("backends")
def test_what_has_lapsed_is_deleted() -> None:
    attention.watch(["user:1", "user:2"])
    long_ago = clock.as_datetime(time.time() - 2 * attention.GOOD_FOR)
    Attention.objects.filter(audience="user:1").update(until=long_ago)
    attention.forget()
    assert [each.audience for each in Attention.objects.all()] == ["user:2"]


@pytest.mark.usefixtures("backends")
def test_without_the_key_it_costs_no_statement_and_no_join(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = job()
    asked: list[str] = []

    def note(execute: Any, sql: str, *more: Any) -> Any:
        asked.append(sql)
        return execute(sql, *more)

    monkeypatch.setattr(conf, "backends", lambda: {"render": Options(name="render")})
    with connection.execute_wrapper(note):
        assert attention.watch(["user:1"]) == []
        assert asked == []
        ledger.load([row.id])
        ledger.commit([(row, Decision("running", "h1", None, delay=1.0))], time.time())
    assert len(asked) == 2
    assert not [sql for sql in asked if "attention" in sql or "free_at" in sql]


@pytest.mark.parametrize("first", ["the commit", "the socket"])
@pytest.mark.usefixtures("backends")
def test_a_commit_and_somebody_who_comes_wait_for_each_other(database: str, first: str) -> None:
    """On PostgreSQL the row's lock decides."""
    if database == "sqlite":
        return  # it has one writer at a time
    row, found = waits(since=LATER), []
    ours, written = connections["default"], threading.Event()

    def come() -> None:
        connections["default"] = own = ours.copy()
        try:
            if first == "the commit":
                assert written.wait(PATIENCE)
                found.extend(attention.watch(["user:1"]))
                return
            with transaction.atomic():
                found.extend(attention.watch(["user:1"]))
                written.set()
                until_blocked(own)
        finally:
            own.close()

    thread = threading.Thread(target=come)
    thread.start()
    if first == "the commit":
        with transaction.atomic():
            commit = look(row, now=time.time())
            written.set()
            until_blocked(ours)
        thread.join(PATIENCE)
        assert commit.delay == LATER
        assert [each.row.id for each in found] == [row.id]
        assert read(row.id).due_at < time.time() + SOON
    else:
        assert written.wait(PATIENCE)
        commit = look(row, now=time.time())
        thread.join(PATIENCE)
        assert (commit.delay, found) == (SOON, [])


def until_blocked(own: Any) -> None:
    """Wait until somebody waits for a lock of this connection."""
    end = time.monotonic() + PATIENCE
    with own.cursor() as cursor:
        while time.monotonic() < end:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits")


# All of ProgRock


class Watched:
    """A stack with some jobs of the audience team:blue, and a web process that forgets soon."""

    def __init__(self, up: Stack) -> None:
        self.up, self.socket = up, up.ws_url

    def see(self, *audiences: str) -> None:
        """Let the browsers that come from now on see the jobs of these audiences."""
        self.up.ws_url = f"{self.socket}?audience={'&audience='.join(audiences)}"

    def start_web(self) -> Process:
        """Start the web server."""
        command = [sys.executable, "-c", WEB, *web_command(self.up.port)[3:]]
        web = self.up.add("web", [*command, "--ws-ping-timeout", "600"])
        return web.start(lambda: answers(f"{self.up.url}/healthz"))

    def waiting(self) -> int:
        """How many jobs wait for long: SQLite has the time as a text, and PostgreSQL as a time."""
        soon = datetime.now(UTC) + timedelta(seconds=LATER / 2)
        [(count,)] = self.up.rows(
            f"SELECT count(*) FROM progrock_job WHERE due_at > '{soon:%Y-%m-%d %H:%M:%S+00}'"
        )
        return int(count)

    async def until_waiting(self, count: int) -> None:
        """Wait until so many jobs wait for long."""
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(self.waiting) != count:
                await asyncio.sleep(0.2)

    def turns(self) -> list[int]:
        """The turns of all jobs."""
        return [turn for (turn,) in self.up.rows("SELECT turn FROM progrock_job ORDER BY id")]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def ready(
    request: Any, stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """Three jobs that nobody watches wait for an hour."""
    backends = tmp_path_factory.mktemp("backends") / "backends.toml"
    backends.write_text(TABLE)
    env = {"PROGROCK_AUDIENCES": "tests.bench.sockets.audiences"}
    with stack(web=False, database=request.param, backends=backends, env=env) as up:
        fill = [sys.executable, "-m", "tests.bench.fill", str(JOBS), "--audience", "team:blue"]
        up.run(fill)
        yield Watched(up)
        assert "Traceback" not in up.logs()


@pytest.fixture
def watched(ready: Watched) -> Watched:
    """The same, with a web process: the test before may have killed it."""
    if "web" not in ready.up.processes or not ready.up.processes["web"].alive:
        ready.start_web()
    return ready


async def test_a_browser_that_comes_sees_fresh_state_and_one_that_goes_is_forgotten(
    watched: Watched,
) -> None:
    await watched.until_waiting(JOBS)
    before = await asyncio.to_thread(watched.turns)
    await asyncio.sleep(4 * QUICK)
    assert await asyncio.to_thread(watched.turns) == before, "nobody watches"
    watched.see("team:red", "team:blue")
    async with browse(watched.up) as visitor:
        snapshot = await visitor.snapshot()
        shown = {each["job"]: each["version"] for each in snapshot["jobs"]}
        assert len(shown) == JOBS
        for job_id, version in shown.items():
            await fresh(visitor, job_id, version)
        for job_id, version in shown.items():
            await fresh(visitor, job_id, version + 2)  # and so it goes on
        async with browse(watched.up) as second:
            await second.snapshot()
            for job_id, version in shown.items():
                await fresh(second, job_id, version + 4)
    await watched.until_waiting(JOBS)
    turns = await asyncio.to_thread(watched.turns)
    await asyncio.sleep(4 * QUICK)
    assert await asyncio.to_thread(watched.turns) == turns
    assert "swept" not in watched.up.logs()


async def test_the_audiences_of_a_killed_web_process_lapse(watched: Watched) -> None:
    await watched.until_waiting(JOBS)
    watched.see("team:blue")
    async with browse(watched.up) as visitor:
        [shown, *_] = (await visitor.snapshot())["jobs"]
        await fresh(visitor, shown["job"], shown["version"] + 2)
        watched.up.processes["web"].kill()
    await watched.until_waiting(JOBS)


async def fresh(visitor: Visitor, job_id: str, version: int) -> None:
    """Wait until a later version of the job than this one was seen."""

    def later(frame: dict[str, Any]) -> bool:
        return frame.get("job") == job_id and frame["version"] > version

    if not any(map(later, visitor.frames)):
        await visitor.until(later)
