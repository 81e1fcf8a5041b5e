"""The judge of chaos can say no: each way to break the promise shows in its own row."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.chaos.audit import Change, Entry
from tests.chaos.backend import Asked, Look
from tests.chaos.clients import Rewound, Wish
from tests.chaos.verdict import Pace, Verdict, broken, forked, judge
from tests.chaos.wire import Noted, Passed

JOB = "00000000-0000-4000-8000-000000000001"


def looks(*times: float) -> list[Look]:
    return [Look(time, time + 0.005, True) for time in times]


def saw(looks: Sequence[Look], posts: int = 1, tasks: int = 1) -> Asked:
    """What the backend was asked."""
    return Asked(posts=posts, tasks=tasks, looks=list(looks))


def changes(*rows: tuple[float, int, int, str]) -> list[Change]:
    """(at, turn, version, state); a job that runs has a lease of 16 seconds."""
    return [
        Change(at, turn, version, state, at + (16 if state == "running" else 1), False)
        for at, turn, version, state in rows
    ]


GOOD = changes(
    (100, 1, 1, "queued"), (101, 2, 2, "running"), (102, 3, 3, "running"), (103, 4, 4, "succeeded")
)


OVERLAP = [Look(101, 102.5, True), Look(102, 103, True)]
TWICE_AS_FAST = looks(*[101 + n / 2 for n in range(12)])


#: One turn that is looked at for a whole lease, until 117.
LEASED = changes((101, 2, 2, "running"), (116, 3, 3, "running"), (117, 4, 4, "succeeded"))
#: The same turn, of which a sweep has made a second task.
SWEPT = [LEASED[0], Change(104.3, 2, 2, "running", 104.3, False, sweeps=1), *LEASED[1:]]
AFTER_A_FAILURE = [
    Change(101, 2, 2, "running", 103, False, attempts=1),
    *changes((102.9, 3, 3, "running"), (103, 4, 4, "succeeded")),
]


def published(
    *tasks: tuple[float, float], turn: int = 2, again: bool = False, name: str = ""
) -> list[Passed]:
    """Messages with a task each, by when they were published and when they are due."""
    return [
        Passed(at, name or f"{at}/{due}", None, (Noted(JOB, turn, due, again),))
        for at, due in tasks
    ]


def delivered(message: Passed, at: float, before: int = 0) -> Passed:
    return Passed(at, message.id, before, message.tasks)


def loop(first: float, last: float) -> list[Passed]:
    """The tasks of one loop: one that is due at `first`, and another after each look."""
    return published(*[(first - 0.99 + n, first + n) for n in range(int(last - first) + 1)])


def merged(*some: Sequence[Passed]) -> list[Passed]:
    return sorted((each for one in some for each in one), key=lambda each: each.at)


LOOP = loop(102, 115)
SECOND_LOOP = loop(103.5, 108.5)
FIRST_COPY, SECOND_COPY = delivered(LOOP[0], 102), delivered(LOOP[0], 102.4)


def verdict(
    *,
    state: str = "succeeded",
    backend: str = "render",
    error: str = "",
    history: Sequence[Change] = GOOD,
    seen: Asked | None = None,
    cancelled: bool = False,
    calm: bool | Callable[[float, float], bool] = True,
    known: bool = True,
    told: bool = True,
    passed: Sequence[Passed] = LOOP,
    rewound: Sequence[Rewound] = (),
) -> Verdict:
    wish = Wish(
        request="r", backend=backend, seconds=1, outcome="succeed", cancel_after=None, job_id=JOB
    )
    entries = [Entry(JOB, "r", backend, state, 4, error)] if known else []
    seen = seen or saw(looks(101, 102, 103))
    paces = {"render": Pace(1.0, 16.0), "once": Pace(1.0, 4.0)}
    found = judge(
        [wish],
        {JOB} if cancelled else set(),
        entries,
        {JOB: history},
        {JOB: seen},
        paces,
        {"once"},
        calm if callable(calm) else lambda *_: calm,
        told={(JOB, state)} if told else {(JOB, "failed")},
        passed=passed,
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
        (
            "early",
            {"seen": saw(looks(102.8)), "passed": published((101.5, 103)), "history": LEASED},
        ),
        ("unhealed", {"history": changes((101, 2, 2, "running"), (160, 3, 3, "succeeded"))}),
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
    assert "each poll was followed by a write" in verdict(passed=LOOP[:1]).table()
    found = verdict()
    found.unread = ["ValueError: no AMQP"]
    assert not found.passed


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


# Two live tasks of one turn


def forks(*passed: Sequence[Passed], **more: Any) -> Verdict:
    """The verdict about the turn of LEASED, in which these tasks passed."""
    more.setdefault("history", LEASED)
    more.setdefault("seen", saw(looks(*range(102, 117))))
    return verdict(passed=merged(*passed), **more)


def test_looks_without_a_write_are_counted_and_are_no_fork() -> None:
    found = forks(LOOP)
    assert (found.passed, found.unwritten, found.twins) == (True, 13, {})


def test_a_second_loop_of_a_turn_is_a_fork_however_seldom_the_backend_was_asked() -> None:
    found = forks(LOOP, SECOND_LOOP)
    assert found.forked
    assert not found.twins
    at_the_same_time = published((102.02, 103), name="another")
    assert forks(LOOP, at_the_same_time).forked


def test_a_pair_that_rabbitmq_made_is_counted_by_itself() -> None:
    often = saw(looks(*[102 + n / 2 for n in range(15)], *range(110, 117)))
    found = forks(LOOP, [FIRST_COPY, SECOND_COPY], SECOND_LOOP, seen=often)
    assert found.passed, found.table()
    assert found.twins == {"RabbitMQ": [pytest.approx(6.6)]}, "until the last pair, at 109"
    assert "… by RabbitMQ" in found.table()
    assert forks(LOOP, SECOND_LOOP, seen=often).early, "nobody else has made a second task"


def test_a_message_that_comes_again_because_it_was_not_acked_is_no_pair_by_rabbitmq() -> None:
    again = delivered(LOOP[0], 102.4, before=1)
    found = forks(LOOP, [FIRST_COPY, again], SECOND_LOOP)
    assert found.forked
    assert not found.twins
    assert forks(LOOP, [FIRST_COPY, again]).passed


def test_no_pair_outlives_the_lease() -> None:
    assert forks(LOOP, loop(116, 119)).forked
    copies = [FIRST_COPY, SECOND_COPY]
    lives_on = loop(103.5, 125.5)
    longer = [Change(101, 2, 2, "running", 130, False), Change(130, 3, 3, "succeeded", 130, False)]
    assert forks(loop(102, 125), copies, lives_on, history=longer).forked


def test_a_second_task_that_the_row_tells_of_is_no_fork_but_ends_the_lease() -> None:
    """The sweep of SWEPT is at 104.3; from then on each look writes."""
    before = [each for each in LOOP if each.at < 104.3]
    second = published((104.31, 104.3))
    found = forks(before, second, history=SWEPT)
    assert (found.passed, found.unwritten) == (True, 3), "the second task comes from no look"
    found = forks(LOOP, second, history=SWEPT)
    assert "not written though a second task was made" in found.forked[0]
    assert not forks(LOOP, second, history=SWEPT, calm=False).forked, "a look may be held up"


def test_a_task_that_is_sent_on_is_the_same_task() -> None:
    message = LOOP[0]
    sent_on = published((101.5, message.tasks[0].due), name="sent on")
    assert forks(LOOP, [delivered(message, 101.4)], sent_on).passed
    assert forks(LOOP, sent_on).forked, "the first one was never delivered"


def test_a_marked_task_makes_no_loop() -> None:
    assert forks(LOOP, published((102.2, 102.5), again=True)).passed


def test_what_was_queued_has_no_lease_and_no_fork() -> None:
    queued = changes((101, 2, 2, "queued"), (102, 3, 3, "succeeded"))
    assert not forks(LOOP, SECOND_LOOP, history=queued).forked


def test_turns_that_the_database_has_lost_are_taken_twice() -> None:
    found = forks(LOOP, SECOND_LOOP, rewound=[Rewound(101, 103)])
    assert list(found.twins) == ["the database"]
    assert not found.forked
    assert forks(LOOP, SECOND_LOOP, rewound=[Rewound(200, 203)]).forked, "this turn was not lost"


# How late


def test_a_stall_counts_from_when_the_task_was_due_and_not_from_the_end_of_the_lease() -> None:
    found = verdict(history=LEASED, seen=saw(looks(110)))
    assert found.longest_stall[0] == pytest.approx(8), "since the turn began"
    found = verdict(history=LEASED, seen=saw(looks(102, 103, 113)))
    assert found.longest_stall[0] == pytest.approx(9), "since a look without a write"
    failed = verdict(history=AFTER_A_FAILURE, seen=saw([Look(101, 101, False)]))
    assert failed.longest_stall[0] == 0, "after a failure the row tells when the task is due"


def test_a_lost_task_has_time_to_heal_until_the_lease_the_grace_and_a_sweep_are_over() -> None:
    late = changes((101, 2, 2, "running"), (150, 3, 3, "succeeded"))
    assert not verdict(history=late).unhealed
    assert verdict(history=late, backend="once").unhealed, "its lease is shorter"
    in_vain = [*late[:1], Change(109, 2, 2, "running", 109, False, sweeps=1), late[1]]
    assert not verdict(history=in_vain, backend="once").unhealed, "the grace has doubled"
    lost = changes((101, 2, 2, "running"), (160, 3, 3, "succeeded"))
    assert verdict(history=lost).unhealed
    assert not verdict(history=lost, calm=lambda since, _: since > 110).unhealed
