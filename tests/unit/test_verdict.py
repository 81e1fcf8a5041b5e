"""The judge of chaos can say no: each way to break the promise shows in its own row."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.chaos.audit import Change, Entry
from tests.chaos.backend import Asked, Look
from tests.chaos.clients import Rewound, Wish
from tests.chaos.verdict import Verdict, broken, forked, judge

JOB = "00000000-0000-4000-8000-000000000001"


def looks(*times: float) -> list[Look]:
    return [Look(time, time + 0.005, True) for time in times]


def saw(looks: Sequence[Look], posts: int = 1, tasks: int = 1) -> Asked:
    """What the backend was asked."""
    return Asked(posts=posts, tasks=tasks, looks=list(looks))


def changes(*rows: tuple[float, int, int, str]) -> list[Change]:
    """(at, turn, version, state); each step is due a second later."""
    return [Change(at, turn, version, state, at + 1, False) for at, turn, version, state in rows]


GOOD = changes(
    (100, 1, 1, "queued"), (101, 2, 2, "running"), (102, 3, 3, "running"), (103, 4, 4, "succeeded")
)


OVERLAP = [Look(101, 102.5, True), Look(102, 103, True)]
TWICE_AS_FAST = looks(*[101 + n / 2 for n in range(12)])
DUE_AT_103 = [
    Change(101, 2, 2, "running", 103, False),
    Change(103, 3, 3, "running", 104, False),
]


def verdict(
    *,
    state: str = "succeeded",
    backend: str = "render",
    error: str = "",
    history: Sequence[Change] = GOOD,
    seen: Asked | None = None,
    cancelled: bool = False,
    calm: bool = True,
    known: bool = True,
    told: bool = True,
    rewound: Sequence[Rewound] = (),
) -> Verdict:
    wish = Wish(
        request="r", backend=backend, seconds=1, outcome="succeed", cancel_after=None, job_id=JOB
    )
    entries = [Entry(JOB, "r", backend, state, 4, error)] if known else []
    seen = seen or saw(looks(101, 102, 103))
    intervals = {"render": 1.0, "once": 1.0}
    found = judge(
        [wish],
        {JOB} if cancelled else set(),
        entries,
        {JOB: history},
        {JOB: seen},
        intervals,
        {"once"},
        lambda *_: calm,
        told={(JOB, state)} if told else {(JOB, "failed")},
        rewound=rewound,
    )
    found.checked = 1
    return found


def test_a_good_run_passes() -> None:
    assert verdict().passed
    assert verdict(state="cancelled", cancelled=True).passed
    assert verdict(state="failed", backend="once", error="outcome unknown: late").passed
    assert "lost" in verdict().table()


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ("lost", {"known": False}),
        ("lost", {"state": "running"}),
        ("wrong", {"state": "failed", "error": "given up"}),
        ("wrong", {"state": "cancelled"}),
        ("wrong", {"state": "failed", "error": "outcome unknown: late"}),
        ("twice", {"seen": saw([], posts=2, tasks=2)}),
        ("twice", {"seen": saw([], posts=2), "backend": "once"}),
        ("broken", {"history": [*GOOD, *changes((104, 4, 5, "running"))]}),
        ("untold", {"told": False}),
        ("forked", {"seen": saw(OVERLAP)}),
        ("forked", {"seen": saw(TWICE_AS_FAST), "calm": False}),
        ("early", {"seen": saw(looks(101, 101.9))}),
        ("early", {"seen": saw(looks(102.8)), "history": DUE_AT_103}),
    ],
)
def test_each_way_to_break_the_promise_shows_in_its_row(row: str, broken: dict[str, Any]) -> None:
    found = verdict(**broken)
    assert getattr(found, row), found
    assert not found.passed


def test_a_repeated_poll_soon_after_a_fault_is_counted_and_allowed() -> None:
    found = verdict(seen=saw(looks(101, 101.2, 102.2)), calm=False)
    found.calm_polls = 1  # One of another job.
    assert (found.passed, found.repeated) == (True, 1)


def test_only_what_the_database_lost_may_be_started_a_second_time() -> None:
    sent_again = saw([], posts=2, tasks=2)
    found = verdict(seen=sent_again, backend="once", rewound=[Rewound(101, 102)])
    assert not found.twice
    assert verdict(seen=sent_again, backend="once", rewound=[Rewound(104, 105)]).twice
    assert verdict(seen=sent_again, rewound=[Rewound(101, 102)]).twice, "it knows its keys"


def test_a_run_that_saw_nothing_while_all_was_calm_proves_nothing() -> None:
    assert not verdict(calm=False).passed
    found = verdict()
    found.checked = 0
    assert not found.passed
    assert "no screens were compared while all was calm" in found.table()


@pytest.mark.parametrize("row", ["stale", "unserved", "neighbours", "fallen", "tracebacks"])
def test_what_shows_on_screens_and_in_logs_counts(row: str) -> None:
    found = verdict()
    getattr(found, row).append("something")
    assert not found.passed


def test_a_turn_and_a_version_grow_by_at_most_one() -> None:
    assert broken(GOOD) == []
    assert broken(changes((1, 1, 1, "queued"), (2, 3, 2, "running"))) == ["turn 1 → 3"]
    assert broken(changes((1, 1, 2, "queued"), (2, 2, 1, "running"))) == ["version 2 → 1"]


def test_retries_after_errors_are_no_second_loop() -> None:
    fast = [Look(100 + n / 4, 100 + n / 4, n % 4 == 0) for n in range(60)]
    assert not forked(fast, 1.0)
    assert forked(looks(*[100 + n / 2 for n in range(12)]), 1.0)
