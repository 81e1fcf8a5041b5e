"""Whoever holds the event loop for more than a second is named."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator

import pytest

from progrock.consumers import watchdog
from progrock.consumers.watchdog import Watchdog


@pytest.fixture
async def watching(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watchdog]:
    """A watchdog of this loop that bites after 0.2 s."""
    monkeypatch.setattr(watchdog, "LIMIT", 0.2)
    monkeypatch.setattr(watchdog, "EVERY", 0.05)
    dog = Watchdog()
    dog.start()
    await asyncio.sleep(0.1)
    yield dog
    dog.stop()


def polls_without_await(seconds: float) -> None:
    """What a class backend must not do."""
    time.sleep(seconds)


async def test_what_holds_the_loop_is_named(
    watching: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    polls_without_await(0.8)
    await asyncio.sleep(0.3)
    first, second = (each.getMessage() for each in caplog.records)
    assert first.startswith("the event loop is held for more than 0.2 s: polls_without_await, ")
    assert re.search(r"polls_without_await, \S+test_watchdog\.py:\d+ < test_what_holds", first)
    held = re.fullmatch(r"the event loop goes on; it was held for ([\d.]+) s", second)
    assert held
    assert 0.6 <= float(held[1]) <= 5


async def test_a_loop_that_waits_or_works_in_small_steps_is_not_told(
    watching: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        time.sleep(0.01)
        await asyncio.sleep(0)
    await asyncio.sleep(0.6)
    assert caplog.records == []


async def test_a_process_that_stood_still_as_a_whole_is_not_told(
    watching: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    """The watchdog's own thread was late by as much, so it can blame nobody."""
    watching._alive.clear()
    asyncio.get_running_loop().call_later(0.05, watching._alive.set)
    suspended = time.monotonic() - 100
    await asyncio.to_thread(watching._tell, suspended)
    assert caplog.records == []


def test_its_thread_ends_with_the_loop() -> None:
    async def watch() -> None:
        Watchdog().start()

    asyncio.run(watch())
    deadline = time.monotonic() + 10
    while any(each.name == "watchdog" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
