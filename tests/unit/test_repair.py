"""The repair of a web process: how far back each check reaches."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from progrock import conf, ledger
from progrock.consumers import repair as module
from progrock.consumers.repair import OVERLAP, Repair
from progrock.consumers.sockets import Audience


class Quiet:
    """No version ever went back."""

    suspects = False

    async def check(self, changed: Any) -> None:
        """Nothing to do."""


async def test_a_check_reaches_back_over_all_the_time_that_the_machine_was_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A monotonic clock stands still while a machine sleeps, and jobs go on elsewhere."""
    spans: list[float] = []
    now = 1000.0

    class Database:
        away = False

        async def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
            if function is ledger.changed_since:
                spans.append(args[1])
            return {}

    monkeypatch.setattr(module, "database", Database())
    monkeypatch.setattr(conf, "backends", dict)
    monkeypatch.setattr(module.clock, "elapsed", lambda: now)
    repair = Repair({"user:1": Audience()}, lambda changes: None, cast(Any, Quiet()))
    repair.database = cast(Any, Database())
    for asleep in (5.0, 3600.0, 5.0):
        now += asleep
        await repair.check()
    assert spans == pytest.approx([5 + OVERLAP, 3600 + OVERLAP, 5 + OVERLAP])
