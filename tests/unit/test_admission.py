"""Handshakes: who gets a place when, and what changes while snapshots are read."""

import asyncio
from typing import Any
from weakref import ref

import pytest

from progrock.consumers import admission as module
from progrock.consumers.admission import Admission, Crowded, Gone, Missed
from tests.services import PATIENCE


async def never() -> None:
    """Receive nothing, because the browser stays."""
    await asyncio.Event().wait()


class Handshakes:
    """Handshakes that hold their places until `free` is set."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.free = asyncio.Event()
        self.entered: list[int] = []

    async def enter(self, name: int, receive: Any = never) -> None:
        async with self.admission.place(receive):
            self.entered.append(name)
            await self.free.wait()


@pytest.fixture
async def handshakes(monkeypatch: pytest.MonkeyPatch) -> Handshakes:
    monkeypatch.setattr(module, "PLACES", 3)
    monkeypatch.setattr(module, "MOST_WAITING", 5)
    return Handshakes(Admission())


async def turns() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_few_enter_at_once_and_the_others_in_the_order_of_coming(
    handshakes: Handshakes,
) -> None:
    tasks = [asyncio.create_task(handshakes.enter(n)) for n in range(8)]
    await turns()
    assert handshakes.entered == [0, 1, 2]
    with pytest.raises(Crowded):
        await handshakes.enter(8)
    handshakes.free.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*tasks)
    assert handshakes.entered == list(range(8))


async def test_a_browser_that_leaves_gives_up_its_place_in_the_line(
    handshakes: Handshakes,
) -> None:
    left = asyncio.Event()
    tasks = [asyncio.create_task(handshakes.enter(n)) for n in range(3)]
    await turns()
    gone = asyncio.create_task(handshakes.enter(3, left.wait))
    stays = asyncio.create_task(handshakes.enter(4))
    await turns()
    left.set()
    with pytest.raises(Gone):
        await gone
    handshakes.free.set()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*tasks, stays)
        await asyncio.gather(*(handshakes.enter(n) for n in range(5, 8)))  # no place was lost
    assert handshakes.entered == [0, 1, 2, 4, 5, 6, 7]


async def test_a_browser_that_leaves_just_as_its_turn_comes_loses_no_place(
    handshakes: Handshakes,
) -> None:
    left = asyncio.Event()
    tasks = [asyncio.create_task(handshakes.enter(n)) for n in range(3)]
    await turns()
    gone = asyncio.create_task(handshakes.enter(3, left.wait))
    await turns()
    left.set()
    handshakes.free.set()
    await asyncio.gather(*tasks)
    with pytest.raises(Gone):
        await gone
    handshakes.free.clear()
    again = [asyncio.create_task(handshakes.enter(n)) for n in (4, 5, 6)]
    await turns()
    assert handshakes.entered[-3:] == [4, 5, 6]
    handshakes.free.set()
    await asyncio.gather(*again)


class Change(list[str]):
    """A change of which a test can say whether anybody keeps it."""


def test_what_comes_while_a_snapshot_is_read_is_kept_for_its_reader_alone() -> None:
    missed = Missed()
    first, second, third = ([name] for name in "abc")
    missed.note(["before"])
    with missed.reading() as early:
        missed.note(first)
        with missed.reading() as late:
            missed.note(second)
            assert missed.since(early) == [first, second]
            assert missed.since(late) == [second]
        missed.note(third)
        assert missed.since(early) == [first, second, third]


def test_a_change_is_kept_as_long_as_somebody_may_ask_for_it() -> None:
    """A reader who ends first takes nothing from the others."""
    missed = Missed()
    early, late = missed.reading(), missed.reading()

    def noted(name: str) -> ref[Change]:
        change = Change([name])
        missed.note(change)
        return ref(change)

    assert noted("before")() is None
    early.__enter__()
    first = noted("a")
    reader = late.__enter__()
    second = noted("b")
    early.__exit__(None, None, None)
    assert missed.since(reader) == [["b"]]
    assert (first(), second()) == (None, ["b"])
    late.__exit__(None, None, None)
    assert second() is None
