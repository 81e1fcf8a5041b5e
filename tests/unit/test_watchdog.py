"""Whoever holds the event loop for more than a second is named.

Each test has a watchdog of its own and hears only that, because other tests' hubs have one as well.
"""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from progrock.consumers import watchdog
from progrock.consumers.watchdog import Watchdog, watch
from tests.logs import own
from tests.services import PATIENCE

#: What a test's watchdog has told until now.
Told = Callable[[], list[str]]


@asynccontextmanager
async def watching(
    caplog: pytest.LogCaptureFixture, limit: float
) -> AsyncIterator[tuple[Watchdog, Told]]:
    """A watchdog of this loop that bites after `limit` seconds."""
    dog = Watchdog(limit=limit, every=0.05)
    dog.thread.name = f"watchdog of {id(dog)}"
    dog.start()
    try:
        yield (
            dog,
            lambda: [
                each.getMessage() for each in own(caplog) if each.threadName == dog.thread.name
            ],
        )
    finally:
        dog.stop()
        await asyncio.to_thread(dog.thread.join, PATIENCE)
        assert not dog.thread.is_alive()


def polls_without_await(until: Callable[[], object]) -> None:
    """What a class backend must not do."""
    end = time.monotonic() + PATIENCE
    while not until() and time.monotonic() < end:
        time.sleep(0.05)


async def test_what_holds_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with watching(caplog, 0.2) as (_, told):
        polls_without_await(told)
        async with asyncio.timeout(PATIENCE):
            while len(told()) < 2:
                await asyncio.sleep(0.05)
    first, second = told()[:2]
    assert first.startswith("the event loop is held for more than 0.2 s: ")
    assert re.search(r"polls_without_await, \S+test_watchdog\.py:\d+ < test_what_holds", first)
    assert "run_forever" not in first, "the calls outside of the loop tell nothing"
    held = re.fullmatch(r"the event loop goes on; it was held for ([\d.]+) s", second)
    assert held
    assert float(held[1]) >= 0.2


async def test_a_loop_that_waits_or_works_in_small_steps_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its limit is so long that a busy machine does not break this."""
    loop, looks = asyncio.get_running_loop(), 0
    call = loop.call_soon_threadsafe

    def counted(*what: Any, **options: Any) -> asyncio.Handle:
        nonlocal looks
        looks += threading.current_thread() is dog.thread
        return call(*what, **options)

    async with watching(caplog, PATIENCE) as (dog, told):
        monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
        async with asyncio.timeout(PATIENCE):
            while looks < 5:  # it looks again only after a sign of life
                time.sleep(0.01)
                await asyncio.sleep(0.01)
    assert told() == []


async def test_a_process_that_stood_still_as_a_whole_is_not_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog's own thread was late by as much, so it can blame nobody."""
    reads = 0

    def suspended() -> float:
        """Each time that the test's watchdog reads the clock, ten minutes have passed."""
        nonlocal reads
        reads += threading.current_thread().name.startswith("watchdog of ")
        return time.monotonic() + 600.0 * reads

    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=suspended))
    async with watching(caplog, 1.0) as (_, told):
        polls_without_await(lambda: reads >= 2)  # it has no sign, and reads how late it is itself
        async with asyncio.timeout(PATIENCE):
            while reads < 3:  # it has gone on to its next look
                await asyncio.sleep(0.01)
        assert told() == []


def dogs() -> set[threading.Thread]:
    """The threads of all watchdogs of this process."""
    return {each for each in threading.enumerate() if each.name == "watchdog"}


async def test_it_ends_with_its_task() -> None:
    before = dogs()
    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    (mine,) = dogs() - before
    task.cancel()
    await asyncio.wait([task])
    await asyncio.to_thread(mine.join, PATIENCE)
    assert not mine.is_alive()


def test_its_thread_ends_with_the_loop() -> None:
    async def begin() -> threading.Thread:
        dog = Watchdog()
        dog.start()
        return dog.thread

    thread = asyncio.run(begin())
    thread.join(PATIENCE)
    assert not thread.is_alive()
