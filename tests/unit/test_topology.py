"""The topology as data: names, arguments, routes, and what a reader sees."""

import pytest

from progrock.broker.names import NAMES
from progrock.broker.topology import Topology, describe, route

TOPOLOGY = Topology({"render": 2, "long-report_2": 1})


def test_every_lane_dead_letters_at_least_once_and_has_a_ttl() -> None:
    lanes = [queue for queue in TOPOLOGY.queues if queue.name.startswith("progrock.delay.")]
    assert len(lanes) == 11
    for lane in lanes:
        assert lane.arguments["x-queue-type"] == "quorum"
        assert lane.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert (
            lane.arguments["x-overflow"] == "reject-publish"
        )  # without it: at most once, silently
        assert lane.arguments["x-dead-letter-exchange"] == NAMES.poll
        assert lane.arguments["x-message-ttl"] > 0


def test_poll_queues_have_a_delivery_limit_and_no_length_limit() -> None:
    polls = {
        queue.name: queue for queue in TOPOLOGY.queues if queue.name.startswith("progrock.poll.")
    }
    assert list(polls) == [
        "progrock.poll.render.0",
        "progrock.poll.render.1",
        "progrock.poll.long-report_2.0",
    ]
    for queue in polls.values():
        assert queue.arguments == {
            "x-queue-type": "quorum",
            "x-delivery-limit": 1000,
            "x-dead-letter-exchange": "progrock.dead",
        }


def test_what_the_poll_exchange_cannot_route_goes_to_the_dead_queue() -> None:
    assert {each.name: each.arguments for each in TOPOLOGY.exchanges}[NAMES.poll] == {
        "alternate-exchange": "progrock.dead"
    }


def test_a_poll_queue_gets_its_shard_from_every_lane_and_at_once() -> None:
    keys = {
        binding.queue: binding.key
        for binding in TOPOLOGY.bindings
        if binding.exchange == NAMES.poll
    }
    assert keys["progrock.poll.render.1"] == "*.render.1"
    assert keys["progrock.poll.long-report_2.0"] == "*.long-report_2.0"


@pytest.mark.parametrize("name", ["progrock.poll.render.0", "progrock.poll.long-report_2.17"])
def test_a_poll_queues_name_tells_backend_and_shard(name: str) -> None:
    parsed = NAMES.parse_poll_queue(name)
    assert parsed
    assert NAMES.poll_queue(*parsed) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "render.0",
        "progrock.poll.render",
        "progrock.poll..0",
        "progrock.poll.render.x",
        "progrock.dead",
    ],
)
def test_other_names_are_no_poll_queues(name: str) -> None:
    assert NAMES.parse_poll_queue(name) is None


@pytest.mark.parametrize(
    ("delay", "left", "wanted"),
    [
        (0.0, 0.0, (NAMES.poll, "now.render.1", None)),
        (0.05, 0.05, (NAMES.poll, "now.render.1", None)),
        (1.0, 0.995, (NAMES.delay, "1s.render.1", 0.995)),  # the lane stays the one that was chosen
        (1.0, -2.0, (NAMES.delay, "1s.render.1", 0.0)),
        (86400.0, 86400.0, (NAMES.delay, "10min.render.1", 599.98)),
    ],
)
def test_a_delay_chooses_the_exchange_and_the_key(
    delay: float, left: float, wanted: tuple[str, str, float | None]
) -> None:
    assert route(NAMES, "render", 1, delay, left) == wanted


def test_the_description_names_every_object() -> None:
    text = describe(TOPOLOGY)
    for each in (*TOPOLOGY.exchanges, *TOPOLOGY.queues):
        assert each.name in text
    assert "*.render.1" in text
    assert "message-ttl=600000" in text
