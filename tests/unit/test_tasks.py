"""Poll tasks as messages: what goes out comes back, and what is broken says why."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.broker.errors import BrokenMessage
from progrock.broker.tasks import (
    Task,
    decode,
    deliveries_before,
    encode,
    entered_queue,
    last_death,
    properties,
    shard_of,
)

JOB = "0191a6c0-5c1e-7000-8000-00000000ff02"
tasks = st.builds(
    Task,
    job_id=st.uuids().map(str),
    turn=st.integers(0, 2**53),
    due=st.floats(1e9, 4e9, allow_nan=False),
    again=st.booleans(),
)


@given(st.lists(tasks, min_size=1, max_size=100))
def test_what_is_encoded_is_decoded(some: list[Task]) -> None:
    back = decode(encode(some))
    assert [(task.job_id, task.turn, task.again) for task in back] == [
        (task.job_id, task.turn, task.again) for task in some
    ]
    assert all(abs(one.due - other.due) <= 1e-6 for one, other in zip(back, some, strict=True))


def test_a_person_can_read_the_body() -> None:
    assert json.loads(encode([Task(JOB, 7, 1767225600.25)])) == {
        "v": 1,
        "tasks": [{"job": JOB, "turn": 7, "due": "2026-01-01T00:00:00.250000Z"}],
    }


def test_only_a_task_of_which_there_may_be_two_bears_a_mark() -> None:
    [plain, marked] = json.loads(encode([Task(JOB, 7, 1e9), Task(JOB, 7, 1e9, True)]))["tasks"]
    assert "again" not in plain
    assert marked == plain | {"again": True}
    assert not decode(broken(again=False))[0].again


def test_keys_of_a_later_release_are_ignored() -> None:
    entry = {"job": JOB, "turn": 1, "due": "2026-01-01T00:00:00+00:00", "why": "new"}
    assert decode(json.dumps({"v": 1, "tasks": [entry], "from": "the future"}).encode()) == [
        Task(JOB, 1, 1767225600.0)
    ]


def broken(**change: Any) -> bytes:
    return json.dumps(
        {"v": 1, "tasks": [{"job": JOB, "turn": 1, "due": "2026-01-01T00:00:00Z"} | change]}
    ).encode()


#: JSON that can be read, and that Python cannot write without care.
DEEP = b"[" * 990 + b"]" * 990


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"v": 1, "tasks": [', "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "unknown version None"),
        (b'{"v": 2, "tasks": []}', "unknown version 2"),
        (b'{"v": 1}', "'tasks' is not a list"),
        (b'{"v": 1, "tasks": []}', "'tasks' is not a list"),
        (b'{"v": 1, "tasks": {"job": 1}}', "'tasks' is not a list"),
        (b'{"v": 1, "tasks": [7]}', "broken task 7"),
        (broken(job="render"), "job is not a UUID"),
        (broken(job=JOB.replace("-", "")), "job is not a UUID"),
        (broken(job=JOB.upper()), "job is not a UUID"),
        (broken(job=7), "broken task"),
        (broken(turn="1"), "turn is not a whole number"),
        (broken(turn=True), "turn is not a whole number"),
        (broken(turn=-1), "turn is not a whole number"),
        (broken(turn=1.5), "turn is not a whole number"),
        (broken(again="yes"), "again is neither true nor false"),
        (broken(again=1), "again is neither true nor false"),
        (broken(again=None), "again is neither true nor false"),
        (broken(due="soon"), "Invalid isoformat"),
        (broken(due="2026-01-01T00:00:00"), "no time zone"),
        (broken(due=1767225600), "broken task"),
        (broken(due=[]), "broken task"),
        (b'{"v": ' + DEEP + b"}", "unknown version"),
        (b'{"v": 1, "tasks": [' + DEEP + b"]}", "broken task"),
        (b'{"v": 1, "tasks": [{"job": "' + JOB.encode() + b'", "turn": 1}]}', "'due'"),
    ],
)
def test_a_broken_body_says_why(body: bytes, reason: str) -> None:
    with pytest.raises(BrokenMessage, match=reason):
        decode(body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
zones = st.none() | st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
some_dues = st.datetimes(timezones=zones).map(datetime.isoformat) | st.sampled_from(
    [
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
        "2026-W01-1",
        "20260101T000000Z",
    ]
)
entries = json_values | st.fixed_dictionaries(
    {},
    optional={
        "job": st.uuids().map(str) | json_values,
        "turn": st.integers(-1, 2**63) | json_values,
        "due": some_dues | json_values,
        "again": st.booleans() | json_values,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | json_values,
        "tasks": st.lists(entries, max_size=3) | json_values,
        "more": json_values,
    },
)


@given(st.binary() | (json_values | messages).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_tasks_that_can_be_sent_on_or_broken(body: bytes) -> None:
    try:
        some = decode(body)
    except BrokenMessage:
        return
    assert some
    assert decode(encode(some)) == some  # a worker that gets them early sends them on
    assert properties(some, 0.0)


@pytest.mark.parametrize(
    "due", ["9999-12-31T23:59:59-23:59", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59"]
)
def test_a_due_that_no_clock_will_reach_is_broken(due: str) -> None:
    with pytest.raises(BrokenMessage, match="due"):
        decode(broken(due=due))


@given(st.uuids(), st.integers(1, 64))
def test_a_job_keeps_its_shard_and_the_last_digits_decide(job: UUID, shards: int) -> None:
    assert shard_of(str(job), shards) == (job.int & 0xFFFF) % shards


def test_shards_get_alike() -> None:
    counts = [0] * 4
    for _ in range(4000):
        counts[shard_of(str(uuid4()), 4)] += 1
    assert min(counts) > 800


def test_properties_tell_a_person_what_waits() -> None:
    some = [Task(str(UUID(int=number)), 1, 1767225600.5 + number) for number in range(5)]
    about = properties(some, 1767225599.9)
    assert about["headers"] == {
        "tasks": 5,
        "jobs": [task.job_id for task in some[:3]],
        "due": "2026-01-01T00:00:00.500Z",
    }
    assert (about["type"], about["app_id"], about["content_type"]) == (
        "progrock.poll",
        "progrock",
        "application/json",
    )
    assert about["delivery_mode"] == 2
    assert about["timestamp"] == 1767225599


LEFT = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
PUBLISHED = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("forged", [{}, {"x-death": 7}, {"x-death": []}, {"x-death": ["once"]}])
def test_a_message_that_never_died_or_whose_deaths_are_forged_has_no_last_death(
    forged: dict[str, Any],
) -> None:
    assert last_death(forged) == {}


@pytest.mark.parametrize(
    ("headers", "published", "entered"),
    [
        ({"x-death": [{"time": LEFT}, {"time": PUBLISHED}]}, PUBLISHED, LEFT.timestamp()),
        ({}, PUBLISHED, PUBLISHED.timestamp()),
        ({"x-death": [{}]}, PUBLISHED, PUBLISHED.timestamp()),
        ({"x-death": [{"time": "yesterday"}]}, PUBLISHED, PUBLISHED.timestamp()),
        ({"x-death": [{"time": PUBLISHED}]}, LEFT, LEFT.timestamp()),  # its clock is behind
        ({"x-death": [{"time": "yesterday"}]}, None, 7.0),
        ({}, None, 7.0),
    ],
)
def test_a_message_entered_its_queue_when_it_left_its_lane_or_was_published(
    headers: dict[str, Any], published: datetime | None, entered: float
) -> None:
    assert entered_queue(headers, published, now=7.0) == entered


@pytest.mark.parametrize(
    ("headers", "redelivered", "before"),
    [
        ({}, False, 0),
        ({}, True, 1),
        ({"x-delivery-count": 4}, True, 4),
        ({"x-delivery-count": 0}, True, 1),
        ({"x-delivery-count": "many"}, False, 0),
    ],
)
def test_deliveries_are_counted_by_the_queue_or_else_by_the_redelivered_flag(
    headers: dict[str, Any], redelivered: bool, before: int
) -> None:
    assert deliveries_before(headers, redelivered) == before
