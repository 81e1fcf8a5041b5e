"""The arithmetic of lanes: by table at its edges, by Hypothesis where a law can be stated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.broker.lanes import (
    HEAD_START,
    LANES,
    LONGEST,
    SHORTEST,
    SPREAD,
    Lane,
    lane_for,
    round_delay,
    spread_of,
    ttl,
)
from progrock.broker.names import NAMES

DAYS = 10 * 86400.0
delays = st.one_of(
    st.floats(0, 1),
    st.floats(0, DAYS),
    st.sampled_from(LANES).map(lambda lane: lane.seconds),
    st.integers(0, 864000),
)


def hops(delay: float) -> list[Lane]:
    """The lanes that a delay goes through, in order; the rest is shorter than the shortest lane."""
    way = []
    while lane := lane_for(delay):
        way.append(lane)
        delay -= lane.seconds
    return way


def names(delay: float) -> list[str]:
    return [lane.name for lane in hops(delay)]


def test_lanes_sort_by_length_in_the_management_ui() -> None:
    assert [*map(NAMES.lane, LANES)] == sorted(map(NAMES.lane, LANES))
    assert NAMES.lane(LANES[0]) == "progrock.delay.01-100ms"
    assert NAMES.lane(LANES[-1]) == "progrock.delay.11-10min"


@pytest.mark.parametrize(
    ("delay", "lane"),
    [
        (-1.0, None),
        (0.0, None),
        (0.05, None),
        (0.0999, None),
        (0.1, "100ms"),
        (0.1999, "100ms"),
        (0.2, "200ms"),
        (0.9, "500ms"),
        (1.0, "1s"),
        (59.9, "30s"),
        (599.9, "5min"),
        (600.0, "10min"),
        (DAYS, "10min"),
    ],
)
def test_a_delay_goes_to_the_longest_lane_that_is_not_longer(
    delay: float, lane: str | None
) -> None:
    found = lane_for(delay)
    assert (found.name if found else None) == lane


@pytest.mark.parametrize(
    ("delay", "way"),
    [
        (0.0, []),
        (0.05, []),
        (0.3, ["200ms"]),  # 0.3 - 0.2 is a hair below 0.1 in binary: slept out
        (1.5, ["1s", "500ms"]),
        (1.7, ["1s", "500ms", "100ms"]),
        (13.7, ["10s", "2s", "1s", "500ms", "100ms"]),
        (3600.0, ["10min"] * 6),
        (86400.0 + 61, ["10min"] * 144 + ["1min", "1s"]),
    ],
)
def test_a_delay_passes_through_these_lanes(delay: float, way: list[str]) -> None:
    assert names(delay) == way


@given(delays)
def test_hops_never_exceed_the_delay_and_leave_less_than_the_shortest_lane(delay: float) -> None:
    left = delay
    for lane in hops(delay):
        left -= lane.seconds
        assert left >= 0
    assert 0 <= left < SHORTEST or left == delay < SHORTEST


@given(delays)
def test_hops_only_get_shorter(delay: float) -> None:
    seconds = [lane.seconds for lane in hops(delay)]
    assert seconds == sorted(seconds, reverse=True)


@given(st.sampled_from(LANES), st.floats(-10, DAYS))
def test_a_message_leaves_its_lane_before_it_is_due_and_never_later_than_the_lane(
    lane: Lane, left: float
) -> None:
    seconds = ttl(lane, left)
    assert 0 <= seconds <= lane.seconds
    assert seconds <= max(left, 0)


@pytest.mark.parametrize(
    ("lane", "left", "seconds"),
    [
        ("1s", 1.0, 1.0),
        ("1s", 0.995, 0.995),
        ("1s", 1.05, 1.0),
        ("1s", 1.5, 1.0 - HEAD_START),
        ("1s", -3.0, 0.0),
    ],
)
def test_a_message_lives_in_a_lane_for_so_long(lane: str, left: float, seconds: float) -> None:
    assert ttl(next(each for each in LANES if each.name == lane), left) == pytest.approx(
        seconds, abs=1e-9
    )


@given(delays, st.floats(0.002, 0.015))
def test_as_a_hop_really_goes_a_task_is_never_early_and_what_is_left_is_slept_out(
    delay: float, cost: float
) -> None:
    left, count, most = delay, 0, 3 * len(hops(delay)) + 3
    while lane := lane_for(left):
        spent = ttl(lane, left)
        assert spent <= left
        left, count = left - spent - cost, count + 1
        assert count <= most
    assert left < SHORTEST


@given(
    st.sampled_from([0.3, 0.7, 1.2, 1.5, 2.5, 4.0, 7.0, 15.0, 35.0, 90.0, 360.0]),
    st.floats(0.001, 0.015),
)
def test_two_lanes_cost_two_messages_also_when_each_hop_takes_some_milliseconds(
    delay: float, cost: float
) -> None:
    left, count = delay, 0
    while lane := lane_for(left):
        left, count = left - ttl(lane, left) - cost, count + 1
    assert count <= 2


@pytest.mark.parametrize(
    ("delay", "rounded"),
    [
        (0.0, 0.0),
        (0.07, 0.07),
        (0.1, 0.1),
        (0.11, 0.2),
        (0.21, 0.3),
        (0.8, 1.0),
        (1.0, 1.0),
        (1.01, 1.1),
        (1.3, 1.5),
        (3.1, 4.0),
        (8.0, 10.0),
        (61.0, 61.0),
        (1200.0, 1200.0),
        (1200.1, 1800.0),
        (86400.0, 86400.0),
    ],
)
def test_a_delay_is_rounded_up_to_what_two_lanes_hold(delay: float, rounded: float) -> None:
    assert round_delay(delay) == rounded


@given(delays)
def test_a_rounded_delay_is_never_shorter_and_at_most_two_lanes_hold_it(delay: float) -> None:
    rounded = round_delay(delay)
    assert rounded >= delay
    if delay < SHORTEST:
        assert rounded == delay
    elif rounded <= 2 * LONGEST:
        assert len(hops(rounded)) <= 2
    else:
        assert rounded % LONGEST == 0
    assert round_delay(rounded) == rounded


@given(delays, delays)
def test_rounding_keeps_the_order(one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert round_delay(low) <= round_delay(high)


@pytest.mark.parametrize(
    ("interval", "spread"), [(0.0, 0.0), (1.0, SPREAD), (2.0, SHORTEST), (60.0, SHORTEST)]
)
def test_the_extra_delay_is_a_small_part_of_the_interval_and_never_another_hop(
    interval: float, spread: float
) -> None:
    assert spread_of(interval) == spread
