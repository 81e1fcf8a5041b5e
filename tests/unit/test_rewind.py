"""A database that comes back without its last commits: which sockets need a new snapshot."""

from collections.abc import Callable, Collection
from typing import Any

import pytest

from progrock import ledger
from progrock.consumers import rewind as module
from progrock.consumers.rewind import FULL, Rewind
from progrock.consumers.sockets import Audience
from progrock.ledger import Version


class World:
    """A ledger in memory, what was shown of it, and who was shown everything anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[str, Version] = {}
        self.audiences: dict[str, Audience] = {}
        self.anew: list[set[str]] = []
        self.away = False
        self.asked: list[set[str]] = []
        self.time = 1000.0
        monkeypatch.setattr(module, "database", self.database)
        monkeypatch.setattr(module.clock, "elapsed", lambda: self.time)
        self.rewind = Rewind(self.audiences, self.show_anew)

    def job(self, job_id: str, audience: str, version: int, ended: bool = False) -> None:
        """A job that is in the ledger as it was shown."""
        self.held[job_id] = Version(audience, version, ended)
        self.shown(job_id, audience, version, ended)

    def shown(self, job_id: str, audience: str, version: int, ended: bool = False) -> None:
        shown = self.audiences.setdefault(audience, Audience())
        shown.is_news(job_id, version, ended)

    async def database(self, function: Callable[..., Any], job_ids: Collection[str]) -> Any:
        assert function is ledger.versions
        self.asked.append(set(job_ids))
        if self.away:
            raise ConnectionError
        return {job_id: self.held[job_id] for job_id in job_ids if job_id in self.held}

    async def show_anew(self, names: Collection[str]) -> None:
        if self.away:
            raise ConnectionError
        self.anew.append(set(names))
        for name in names:
            self.audiences[name].forget()

    async def check(self, *changed: str) -> list[set[str]]:
        await self.rewind.check({job_id: self.held[job_id] for job_id in changed})
        return self.anew


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize(
    ("shown", "ended", "there", "there_ended", "differs"),
    [
        (7, False, 5, False, True),
        (7, True, 5, False, True),
        (7, False, 7, True, True),  # another change got that number: a page would wait for ever
        (7, True, 7, False, True),
        (7, False, 7, False, False),
        (7, True, 7, True, False),
        (7, False, 8, True, False),  # the repair shows it
    ],
)
async def test_a_version_that_went_back_twice_means_a_new_snapshot(
    world: World, shown: int, ended: bool, there: int, there_ended: bool, differs: bool
) -> None:
    world.shown("a", "user:1", shown, ended)
    world.held["a"] = Version("user:1", there, there_ended)
    assert await world.check("a") == [], "a push may have overtaken this answer"
    assert world.rewind.suspects is differs
    assert await world.check("a") == [{"user:1"}] * differs
    assert not world.rewind.suspects
    assert await world.check("a") == [{"user:1"}] * differs, "once"


async def test_a_push_that_overtook_the_answer_changes_nothing(world: World) -> None:
    world.shown("a", "user:1", 8)
    world.held["a"] = Version("user:1", 7, False)
    await world.check("a")
    world.held["a"] = Version("user:1", 8, False)
    assert await world.check("a") == []
    assert not world.rewind.suspects
    assert world.asked == [{"a"}], "only the second look costs a query"


async def test_one_version_that_went_back_means_that_the_whole_database_did(world: World) -> None:
    world.job("a", "user:1", 3)
    world.job("b", "user:2", 3, ended=True)
    world.held["a"] = Version("user:1", 2, False)
    await world.check("a")
    assert await world.check() == [{"user:1", "user:2"}]


async def test_what_has_not_changed_since_is_found_after_an_outage_and_once_a_minute(
    world: World,
) -> None:
    for _ in range(2):
        world.job("a", "user:1", 9)
        world.held["a"] = Version("user:1", 4, False)
        assert await world.check() == []
        assert world.asked == []
        world.rewind.soon()
        await world.check()
        assert await world.check() == [{"user:1"}]
        world.asked.clear()
        world.anew.clear()
        world.audiences["user:1"].is_news("a", 4, False)
        world.rewind.soon = lambda: setattr(world, "time", world.time + FULL)  # type: ignore[method-assign]


async def test_a_start_that_was_lost_is_shown_no_more_but_old_jobs_may_be_deleted(
    world: World,
) -> None:
    world.job("a", "user:1", 1)
    world.job("b", "user:2", 5, ended=True)
    world.job("c", "user:3", 5)
    del world.held["a"], world.held["b"]
    world.rewind.soon()
    await world.check()
    assert await world.check() == [{"user:1"}]


async def test_a_database_that_is_away_meanwhile_is_asked_again(world: World) -> None:
    world.job("a", "user:1", 9)
    world.held["a"] = Version("user:1", 4, False)
    await world.check("a")
    world.away = True
    with pytest.raises(ConnectionError):
        await world.check()
    world.away = False
    assert world.rewind.suspects
    assert await world.check() == [{"user:1"}]
