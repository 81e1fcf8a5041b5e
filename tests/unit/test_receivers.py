"""Signal receivers: they run beside the rounds, in order for each job, and a slow one is named."""

import asyncio
import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import Signal

from progrock.consumers import receivers as module
from progrock.consumers.receivers import THREADS, Receivers
from progrock.ledger import Row
from progrock.signals import job_changed, job_finished
from tests.jobs import row
from tests.logs import own
from tests.services import PATIENCE


def job(job_id: str | None = None, *, ended: bool = True) -> Row:
    return row(id=job_id or str(uuid.uuid4()), state="failed" if ended else "running")


@pytest.fixture
def receivers(django_db_blocker: Any) -> Iterator[Receivers]:
    receivers = Receivers()
    with django_db_blocker.unblock():  # its threads let go of old connections
        yield receivers
        receivers.close()


@pytest.fixture
def connect() -> Iterator[Any]:
    """Connects receivers for one test."""
    connected: list[tuple[Signal, Any]] = []

    def connect(signal: Signal, receiver: Any) -> None:
        signal.connect(receiver)
        connected.append((signal, receiver))

    yield connect
    for signal, receiver in connected:
        signal.disconnect(receiver)


async def test_without_receivers_all_is_sent_at_once(receivers: Receivers) -> None:
    jobs = [job(), job()]
    assert await receivers.send(jobs) == [each.id for each in jobs]


async def test_a_change_is_one_signal_and_an_end_is_two(receivers: Receivers, connect: Any) -> None:
    seen: list[tuple[str, str]] = []

    def changed(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
        seen.append(("changed", job["job"]))

    def finished(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
        seen.append(("finished", job["job"]))

    connect(job_changed, changed)
    connect(job_finished, finished)
    job_id = str(uuid.uuid4())
    await receivers.send([job(job_id, ended=False)])
    assert await receivers.send([job(job_id)]) == [job_id]
    assert seen == [("changed", job_id), ("changed", job_id), ("finished", job_id)]


async def test_a_receiver_that_hangs_is_named_and_holds_up_no_job_of_another_thread(
    receivers: Receivers,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "SLOW", 0.05)
    let_on, told = threading.Event(), []
    stuck = "00000000-0000-4000-8000-000000000000"

    def mail(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
        if job["job"] == stuck:
            let_on.wait(PATIENCE)
        told.append(job["job"])

    connect(job_finished, mail)
    hanging = asyncio.create_task(receivers.send([job(stuck)]))
    try:
        others = [f"00000000-0000-4000-8000-{n:012x}" for n in range(1, THREADS)]
        async with asyncio.timeout(PATIENCE):
            assert await receivers.send([job(each) for each in others]) == others
            while not own(caplog):
                await asyncio.sleep(0.01)
        assert not hanging.done()
        said = own(caplog)[0].getMessage()
        assert said.startswith(f"a receiver of job_finished, job={stuck} has run for ")
        assert f": mail, {__file__}:" in said
    finally:
        let_on.set()
    assert await hanging == [stuck]
    assert len(own(caplog)) == 1, "said once"


async def test_a_receiver_that_raises_is_logged_and_counts_as_told(
    receivers: Receivers, connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
        raise ValueError("a mistake")

    connect(job_finished, broken)
    ended = job()
    assert await receivers.send([ended]) == [ended.id]
    [record] = [each for each in caplog.records if each.name == module.__name__]
    assert record.getMessage().startswith("a signal receiver failed: ")
    assert record.exc_info


async def test_what_waits_for_receivers_is_bounded_and_an_end_stays_owed(
    receivers: Receivers,
    connect: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    let_on = threading.Event()

    def slow(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
        let_on.wait(PATIENCE)

    connect(job_finished, slow)
    job_id = "00000000-0000-4000-8000-000000000000"
    waiting = [asyncio.create_task(receivers.send([job(job_id)])) for _ in range(2)]
    await asyncio.sleep(0)
    assert await receivers.send([job(job_id)]) == []
    assert await receivers.send([job(job_id)]) == []
    let_on.set()
    assert [await each for each in waiting] == [[job_id], [job_id]]
    assert await receivers.send([job(job_id)]) == [job_id]
    said = [each.getMessage() for each in caplog.records if each.name == module.__name__]
    assert [line.partition(", ")[0] for line in said] == [
        "signal receivers are too slow",
        "signal receivers get all signals again",
    ]
