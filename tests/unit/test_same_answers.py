"""Most answers say what the row says already. They skip the policy, which would decide the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, Options, Status
from progrock.ledger import Row
from progrock.lifecycle import Moment, after_poll, is_visible, same, says_the_same
from tests.jobs import row

NOW = 1_800_000_000.0
OPTIONS = Options(name="render", interval=2.0)
AT = Moment(NOW, 0.5, OPTIONS)


def running(**changes: Any) -> Row:
    values = {"state": "running", "handle": "h1", "deadline_at": NOW + 3600}
    return row(**values | changes)


some_text = st.sampled_from(["", "Rendering", "h1", "h2"])
rows = st.builds(
    running,
    progress=st.sampled_from([None, 0.0, 1.0, 40.0]),
    message=some_text,
    attempts=st.sampled_from([0, 0, 0, 1]),
    missing_at=st.sampled_from([None, None, NOW - 5]),
    deadline_at=st.sampled_from([NOW + 3600, NOW + 1.5, NOW]),
    cancel_taken=st.booleans(),
)
statuses = st.builds(
    Status,
    state=st.sampled_from(["running", "running", "running", "succeeded", "failed", "cancelled"]),
    progress=st.sampled_from([None, 0, 0.0, 1, 40.0, True, False, "40", float("nan")]),
    message=st.none() | some_text,
    retry_after=st.sampled_from([None, None, 0.0, 9.0]),
    handle=st.sampled_from([None, None, "h1", "h2"]),
    error=st.none() | some_text,
)


@given(rows, statuses)
def test_what_counts_as_the_same_is_what_the_policy_would_leave_as_it_is(
    job: Row, answer: Status
) -> None:
    if not says_the_same(job, answer, AT):
        return
    decision = after_poll(job, answer, AT)
    assert decision == same(job, OPTIONS)
    assert not is_visible(job, decision)


@pytest.mark.parametrize(
    ("job", "answer"),
    [
        (running(), Status(state="running")),
        (running(progress=40.0), Status(state="running", progress=40)),
        (running(message="Rendering"), Status(state="running", message="Rendering")),
        (running(), Status(state="running", message="", handle="h1")),
    ],
)
def test_most_answers_are_the_same(job: Row, answer: Status) -> None:
    assert says_the_same(job, answer, AT)


class Strange:
    """No progress, and nothing that can be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    "answer",
    [
        Status(state="succeeded"),
        Status(state="running", progress=41),
        Status(state="running", progress=Strange()),  # type: ignore[arg-type]  # of a strange class
        Status(state="running", message="Rendering"),
        Status(state="running", retry_after=9.0),
        Status(state="running", handle="h2"),
        BackendError("away"),
        None,
        "running",
    ],
)
def test_another_answer_goes_to_the_policy(answer: object) -> None:
    assert not says_the_same(running(progress=40.0), answer, AT)
