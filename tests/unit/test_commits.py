"""The end of a job: its receivers run first, but browsers do not wait for them for long."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from progrock import ledger
from progrock.backends import Options
from progrock.consumers import commits as module
from progrock.consumers.commits import Commits
from progrock.ledger import Row
from tests.jobs import row
from tests.services import PATIENCE


class World:
    """Receivers that end when `done` is set; `seen` is the order of all that happens."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.done = asyncio.Event()
        self.pushed = asyncio.Event()
        options = Options(name="render")
        self.commits = Commits(
            options,
            cast(Any, None),
            database=cast(Any, self.database),
            publisher=cast(Any, None),
            layer=self,
            receivers=cast(Any, self),
            draw=lambda: 0.5,
        )

    async def send(self, rows: Sequence[Row]) -> list[str]:
        await self.done.wait()
        self.seen.append("the receivers ran")
        return [each.id for each in rows]

    async def group_send(self, group: str, message: Any) -> bool:
        self.seen.append("shown")
        self.pushed.set()
        return True

    async def database(self, function: Callable[..., Any], *args: Any) -> None:
        assert function is ledger.settle
        self.seen.append("settled")


async def test_an_end_is_shown_when_its_receivers_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECEIVERS_FIRST", PATIENCE)
    world = World()
    asyncio.get_running_loop().call_later(0.3, world.done.set)
    await world.commits.tell_ended([row(state="succeeded")])
    assert world.seen == ["the receivers ran", "shown", "settled"]


async def test_browsers_do_not_wait_for_receivers_that_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert module.RECEIVERS_FIRST <= 1.0
    monkeypatch.setattr(module, "RECEIVERS_FIRST", 0.05)
    world = World()
    telling = asyncio.create_task(world.commits.tell_ended([row(state="succeeded")]))
    async with asyncio.timeout(PATIENCE):
        await world.pushed.wait()
    assert world.seen == ["shown"]
    assert not telling.done(), "the end is owed until the receivers have run"
    world.done.set()
    await telling
    assert world.seen == ["shown", "the receivers ran", "settled"]
