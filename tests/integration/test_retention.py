"""Old jobs are deleted, and those that cannot be are kept and told, on both databases."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.db.models.signals import post_delete, pre_delete

from progrock import clock, ledger
from progrock.consumers import retention as module
from progrock.consumers.retention import Retention
from progrock.ledger import Row
from progrock.models import Job
from tests.ledgers import at, make
from tests.logs import own
from tests.services import PATIENCE


@pytest.fixture(autouse=True)
def empty(database: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job is left of the test before, and old are those of two days."""
    Job.objects.all().delete()
    settings.PROGROCK_KEEP_DAYS = 2
    monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest.fixture
def raising() -> Iterator[Callable[..., Any]]:
    """Connects a receiver that raises where one of some jobs is deleted."""
    connected = []

    def connect(error: Exception, *rows: Row, signal: Any = pre_delete) -> Any:
        ids = {uuid.UUID(row.id) for row in rows}

        def receiver(sender: Any, instance: Job, **kwargs: Any) -> None:
            if instance.pk in ids:
                raise error

        signal.connect(receiver, sender=Job, weak=False)
        connected.append((signal, receiver))
        return receiver

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver, sender=Job)


def ended(days: float, **changes: Any) -> Row:
    """A job that ended so many days ago."""
    then = at(days * 86400)
    return make(**{"state": "failed", "ended_at": then, "changed_at": then} | changes)


def left() -> set[str]:
    return {str(key) for key in Job.objects.values_list("pk", flat=True)}


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [each for each in own(caplog) if each.name == module.__name__]


@pytest.fixture
def an_hour_passes(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, an hour more has passed."""
    passed = 0.0

    def pass_on() -> None:
        nonlocal passed
        passed += module.TRY_KEPT_AGAIN
        later = SimpleNamespace(elapsed=lambda: clock.elapsed() + passed)
        monkeypatch.setattr(module, "clock", later)

    return pass_on


def test_old_jobs_that_ended_are_deleted() -> None:
    for _ in range(5):
        ended(3)
    kept = {ended(1).id, make(created_at=at(9 * 86400), changed_at=at(9 * 86400)).id}
    Retention().delete_old()
    assert left() == kept


def test_nothing_is_deleted_where_keep_days_is_0(settings: Any) -> None:
    settings.PROGROCK_KEEP_DAYS = 0
    kept = ended(999)
    Retention().delete_old()
    assert left() == {kept.id}


def test_jobs_that_ended_in_the_same_moment_are_gone_through_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    then = at(3 * 86400)
    rows = [ended(3, changed_at=then) for _ in range(7)]
    monkeypatch.setattr(module, "BATCH", 2)
    assert [each.job_id for each in ledger.old(2)] == sorted(row.id for row in rows)
    seen, after = [], None
    while found := ledger.old(2, after, 2):
        seen += [each.job_id for each in found]
        after = found[-1]
    assert seen == sorted(row.id for row in rows)
    Retention().delete_old()
    assert left() == set()


@pytest.mark.parametrize("signal", [pre_delete, post_delete])
def test_a_receiver_that_raises_keeps_its_own_jobs_alone(
    raising: Callable[..., Any],
    an_hour_passes: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    signal: Any,
) -> None:
    rows = [ended(9 - n / 100) for n in range(100)]
    kept = [rows[17], rows[18], rows[80]]
    raising(ValueError("no such order"), *kept, signal=signal)
    tries: list[int] = []
    delete = ledger.delete
    monkeypatch.setattr(
        ledger, "delete", lambda job_ids: (tries.append(len(job_ids)), delete(job_ids))[1]
    )
    retention = Retention()
    retention.delete_old()
    assert left() == {row.id for row in kept}
    assert len(tries) < 50, "a batch is halved, and not tried job by job"
    [record] = told(caplog)
    assert record.getMessage() == (
        "jobs that ended long ago are kept: 3,"
        f" for example job={rows[17].id}, because of ValueError: no such order"
    )
    assert record.exc_info, "a mistake is told with its place"
    for pass_on in (lambda: None, an_hour_passes):
        pass_on()
        ended(5)
        retention.delete_old()
        assert left() == {row.id for row in kept}
    assert len(told(caplog)) == 1, "told once"


def test_what_cannot_be_deleted_is_tried_again_after_an_hour(
    raising: Callable[..., Any],
    an_hour_passes: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept, _ = ended(9), ended(8)
    receiver = raising(ValueError("a mistake"), kept)
    retention = Retention()
    retention.delete_old()
    assert left() == {kept.id}
    pre_delete.disconnect(receiver, sender=Job)
    retention.delete_old()
    assert left() == {kept.id}, "not yet"
    an_hour_passes()
    retention.delete_old()
    assert left() == set()
    raising(ValueError("a mistake"), ended(9))
    an_hour_passes()
    retention.delete_old()
    assert len(told(caplog)) == 2, "told again, because there was nothing to tell meanwhile"


def test_a_database_error_of_a_receiver_is_not_taken_for_an_outage(
    raising: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """As of another database of the project's, or of a table whose migration is forgotten."""
    kept, _ = ended(9), ended(8)
    raising(OperationalError("no such table: shop_order"), kept)
    Retention().delete_old()
    assert left() == {kept.id}
    assert "OperationalError: no such table: shop_order" in told(caplog)[0].getMessage()


def test_jobs_at_which_a_table_of_the_projects_own_points_are_kept(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its foreign key says nothing of deletions, and Django knows nothing of it."""
    rows = [ended(9 - n / 10) for n in range(9)]
    kind = "uuid" if database == "postgresql" else "char(32)"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE own (job {kind} NOT NULL REFERENCES progrock_job (id))")
        cursor.execute("INSERT INTO own SELECT id FROM progrock_job ORDER BY changed_at LIMIT 2")
    try:
        Retention().delete_old()
        assert left() == {row.id for row in rows[:2]}
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE own")
    [record] = told(caplog)
    assert f"are kept: 2, for example job={rows[0].id}, because of" in record.getMessage()
    assert "IntegrityError" in record.getMessage()
    assert not record.exc_info


def test_while_the_ledger_cannot_be_written_nothing_is_blamed(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    row = ended(9)
    on, off = (
        ("SET default_transaction_read_only = on", "SET default_transaction_read_only = off")
        if database == "postgresql"
        else ("PRAGMA query_only = ON", "PRAGMA query_only = OFF")
    )
    with connection.cursor() as cursor:
        cursor.execute(on)
    retention = Retention()
    retention.delete_old()  # it closes its connection, as a worker leaves a server that is standby
    with connection.cursor() as cursor:
        cursor.execute(off)
    assert left() == {row.id}
    assert told(caplog) == []
    retention.delete_old()
    assert left() == set()


def test_it_stops_between_two_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    # so that its thread has a connection to the database of this test
    monkeypatch.setitem(connections.settings, "default", connections.settings["ledger"])
    monkeypatch.setattr(module, "EVERY", 0.01)
    monkeypatch.setattr(module, "BATCH", 1)
    for _ in range(3):
        ended(9)
    threads: list[threading.Thread] = []
    deleted, stopped = threading.Event(), threading.Event()
    delete = ledger.delete

    def deletes(job_ids: Sequence[str]) -> Exception | None:
        threads.append(threading.current_thread())
        error = delete(job_ids)
        deleted.set()
        stopped.wait(PATIENCE)
        return error

    async def stop() -> None:
        task = asyncio.create_task(Retention().run())
        assert await asyncio.to_thread(deleted.wait, PATIENCE)
        task.cancel()
        await asyncio.wait([task])

    monkeypatch.setattr(ledger, "delete", deletes)
    asyncio.run(stop())
    stopped.set()
    threads[0].join(PATIENCE)
    assert len(left()) == 2


async def test_it_works_beside_the_loop_and_ends_with_its_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A receiver that hangs holds a thread of its own, and not the worker's database."""
    monkeypatch.setattr(module, "EVERY", 0.01)
    retention, threads = Retention(), []
    looked = threading.Event()

    def look() -> None:
        threads.append(threading.current_thread())
        looked.set()

    monkeypatch.setattr(retention, "delete_old", look)
    task = asyncio.create_task(retention.run())
    assert await asyncio.to_thread(looked.wait, PATIENCE)
    task.cancel()
    await asyncio.wait([task])
    assert threads[0].name.startswith("retention")
    await asyncio.to_thread(threads[0].join, PATIENCE)
    assert not threads[0].is_alive()
