"""How a web process calls its database: in line, and each call with a time limit of its own."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError

from progrock.consumers import database as module
from progrock.consumers.database import WebDatabase
from tests.logs import own
from tests.services import PATIENCE


@pytest.fixture
async def database(
    django_db_blocker: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WebDatabase]:
    # There are no tables.
    monkeypatch.setattr("progrock.pulse.touch", lambda: None, raising=False)
    monkeypatch.setattr(module, "TOUCH", 0.0, raising=False)
    with django_db_blocker.unblock(), ThreadPoolExecutor(1) as executor:
        yield WebDatabase(executor)


async def test_the_time_in_line_does_not_count(
    database: WebDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER", 2.0)
    begun = time.monotonic()
    await asyncio.gather(*(database(time.sleep, 0.25) for _ in range(12)))
    assert time.monotonic() - begun > 2.0
    assert not database.away


async def test_behind_a_call_without_an_answer_all_give_up_and_never_run(
    database: WebDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER", 0.5)
    begun, answer, ran = threading.Event(), threading.Event(), []
    hangs = asyncio.create_task(database(lambda: (begun.set(), answer.wait())))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    behind = [asyncio.create_task(database(ran.append, n)) for n in range(3)]
    for each in (hangs, *behind):
        with pytest.raises(OperationalError, match="no answer within"):
            await each
    assert database.away
    answer.set()
    await database(ran.append, "back")
    assert ran == ["back"]
    assert not database.away


async def test_only_a_write_that_works_ends_an_outage(
    database: WebDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is read-only answers reads."""
    writable = False

    def write() -> None:
        if not writable:
            raise OperationalError("read-only")

    monkeypatch.setattr("progrock.pulse.touch", write, raising=False)
    for _ in range(3):
        with pytest.raises(OperationalError):
            await database(write)
        assert await database(len, "read") == 4
        assert database.away
    writable = True
    assert await database(len, "read") == 4
    assert not database.away
    assert [each.getMessage() for each in own(caplog)] == [
        "the database is away: read-only",
        "the database is back",
    ]
