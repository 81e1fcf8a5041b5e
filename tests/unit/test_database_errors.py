"""What an error of the database means, and what a worker does about it."""

import asyncio
import sqlite3
import time
from functools import partial
from typing import Any

import psycopg
import pytest
from django.db import DataError, Error, InterfaceError, InternalError, OperationalError

from progrock import ledger
from progrock.consumers import worker_database as database_module
from progrock.consumers.worker_database import WorkerDatabase
from progrock.database_errors import Trouble, drop, trouble
from progrock.lifecycle import Decision
from progrock.outage import DatabaseAway
from progrock.storable import Result
from tests.jobs import row
from tests.logs import own


def of_postgresql(state: str, kind: type[Error] = OperationalError) -> Error:
    error = kind("as Django raises it")
    error.__cause__ = psycopg.errors.lookup(state)("as psycopg raises it")
    return error


@pytest.mark.parametrize(
    ("state", "means"),
    [
        *((state, Trouble.AWAY) for state in ("25006", "57P01", "57P03", "08006", "53300")),
        *((state, Trouble.AWAY) for state in ("53100", "42P01", "42703", "57014", "40003")),
        *((state, Trouble.CONFLICT) for state in ("40001", "40P01", "55P03")),
        *((state, Trouble.MISTAKE) for state in ("54000", "22P05", "23505", "42601", "XX000")),
    ],
)
def test_a_sqlstate_has_one_meaning(state: str, means: Trouble) -> None:
    assert trouble(of_postgresql(state, InternalError)) is means


def of_sqlite(name: str, words: str = "") -> Error:
    cause = sqlite3.OperationalError(words)
    cause.sqlite_errorcode = getattr(sqlite3, name)
    error = OperationalError(words)
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("name", "words", "means"),
    [
        ("SQLITE_BUSY", "database is locked", Trouble.CONFLICT),
        ("SQLITE_BUSY_SNAPSHOT", "database is locked", Trouble.CONFLICT),
        ("SQLITE_READONLY", "attempt to write a readonly database", Trouble.AWAY),
        ("SQLITE_FULL", "database or disk is full", Trouble.AWAY),
        ("SQLITE_ERROR", "no such column: due_slot", Trouble.AWAY),
        ("SQLITE_ERROR", "near SELEC: syntax error", Trouble.MISTAKE),
        ("SQLITE_TOOBIG", "string or blob too big", Trouble.MISTAKE),
    ],
)
def test_a_code_of_sqlite_has_one_meaning(name: str, words: str, means: Trouble) -> None:
    assert trouble(of_sqlite(name, words)) is means


def test_a_connection_that_has_gone_is_away_and_other_errors_are_mistakes() -> None:
    assert trouble(OperationalError("the connection is closed")) is Trouble.AWAY
    assert trouble(InterfaceError("connection already closed")) is Trouble.AWAY
    assert trouble(DataError("too long")) is Trouble.MISTAKE


class Worker(WorkerDatabase):
    """A worker's database that answers as it is told; `tries` and `drops` are counted."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer, self.tries, self.drops = answer, 0, 0

    async def _run(self, function: Any) -> Any:
        if not isinstance(function, partial):
            self.drops += function is drop
            return None
        self.tries += 1
        return self.answer(self.tries, function)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        """It takes no time."""

    monkeypatch.setattr(database_module.asyncio, "sleep", sleep)


async def test_a_worker_drops_its_connection_to_a_read_only_server() -> None:
    def answer(n: int, _: Any) -> str:
        if n < 4:
            raise of_postgresql("25006", InternalError)
        return "written"

    worker = Worker(answer)
    assert await worker(len, []) == "written"
    assert (worker.tries, worker.drops) == (4, 3)


async def test_a_read_that_works_does_not_end_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of two rounds one reads and one writes, while the server takes no writes."""
    writable = False

    def write() -> None:
        if not writable:
            raise of_postgresql("25006", InternalError)

    monkeypatch.setattr("progrock.pulse.touch", write, raising=False)
    monkeypatch.setattr(database_module, "drop", lambda: None)
    worker = WorkerDatabase()
    writing = asyncio.create_task(worker(write))
    while not worker.away:
        await asyncio.to_thread(time.sleep, 0.01)
    for _ in range(5):
        await worker(len, [])
        assert worker.away
        await asyncio.to_thread(time.sleep, 0.01)
    writable = True
    await writing
    assert not worker.away
    told = [each.getMessage().partition(":")[0] for each in own(caplog)]
    assert told == ["the ledger is away, rounds wait for it", "the ledger is back"]


async def test_a_conflict_is_tried_again_and_is_no_outage() -> None:
    def answer(n: int, _: Any) -> str:
        if n < 4:
            raise of_postgresql("40001")
        return "written"

    worker = Worker(answer)
    assert await worker(len, []) == "written"
    assert (worker.tries, worker.drops, worker.away) == (4, 0, False)


async def test_a_step_that_cannot_be_written_fails_its_job_and_no_other() -> None:
    large, *others = jobs = [row(state="running", handle="h") for _ in range(3)]

    def answer(n: int, call: Any) -> Any:
        (steps, *_), written = call.args, []
        assert call.func is ledger.commit
        for job, decision in steps:
            if decision.result.value == "too large":
                raise of_postgresql("54000")
            written.append((job.id, decision.state, decision.error))
        return written

    def step(value: str) -> Decision:
        return Decision("succeeded", "h", 100.0, result=Result(value, len(value)))

    steps = [(job, step("too large" if job is large else "fine")) for job in jobs]
    written: list[Any] = await Worker(answer).commit(steps, 0.0)
    ends = {job_id: (state, error) for job_id, state, error in written}
    state, error = ends[large.id]
    assert state == "failed"
    assert error.startswith("the database cannot hold what came of this job")
    assert [ends[job.id] for job in others] == [("succeeded", "")] * 2


async def test_results_that_are_too_large_together_go_into_several_statements() -> None:
    steps = [
        (row(state="running"), Decision("succeeded", "h", 100.0, result=Result("", 40 * 2**20)))
        for _ in range(3)
    ]
    worker = Worker(lambda n, call: list(call.args[0]))
    assert len(await worker.commit(steps, 0.0)) == 3
    assert worker.tries == 3


@pytest.mark.parametrize(
    ("state", "status"), [("25006", 503), ("42703", 503), ("40001", 503), ("22P05", None)]
)
def test_a_page_answers_503_unless_it_is_a_mistake(state: str, status: int | None) -> None:
    middleware = DatabaseAway(lambda request: None)  # type: ignore[arg-type, return-value]
    answer = middleware.process_exception(None, of_postgresql(state, InternalError))  # type: ignore[arg-type]
    assert (answer and answer.status_code) == status
