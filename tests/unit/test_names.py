"""The names in RabbitMQ, which all begin with one prefix."""

from collections.abc import Iterator

import pytest
from django.test import override_settings

from progrock.broker.channel_layer import ChannelLayer
from progrock.broker.names import NAMES, Names
from progrock.broker.operate.definitions import definitions
from progrock.broker.topology import Topology
from progrock.checks import LAYER, check_settings


def names_of(topology: Topology) -> Iterator[str]:
    yield from (each.name for each in topology.exchanges)
    yield from (each.name for each in topology.queues)
    for queue in topology.queues:
        if exchange := queue.arguments.get("x-dead-letter-exchange"):
            yield exchange
    for exchange in topology.exchanges:
        if other := exchange.arguments.get("alternate-exchange"):
            yield other
    for binding in topology.bindings:
        yield from (binding.exchange, binding.queue)


def test_two_prefixes_have_no_name_in_common() -> None:
    backends = {"render": 2, "report": 1}
    one, two = Topology(backends), Topology(backends, Names("other"))
    assert all(name.startswith("progrock.") for name in names_of(one))
    assert all(name.startswith("other.") for name in names_of(two))
    assert not {*names_of(one)} & {*names_of(two)}


def test_rights_end_at_the_prefix() -> None:
    passwords = {"web": "w", "worker": "k"}
    made = definitions(Topology({"render": 1}, Names("shop")), passwords)
    for rights in made["permissions"]:
        for action in ("configure", "write", "read"):
            assert "progrock" not in rights[action]
            assert rights[action] == "^$" or rights[action].startswith(r"^shop\.")


async def test_the_channel_layer_has_the_prefix() -> None:
    layer = ChannelLayer("amqp://guest:guest@127.0.0.1:1/", prefix="shop")
    assert layer.groups_exchange == "shop.groups"
    assert layer.queue_name.startswith("shop.web.")
    assert layer.names.label("channel layer").startswith("shop channel layer @")


@pytest.mark.parametrize("prefix", ["", "a.b", "-a", "ä", "a b", "a" * 41, "a\n"])
def test_what_cannot_be_a_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="cannot be a prefix"):
        Names(prefix)


def test_no_prefix_lies_among_the_names_of_another() -> None:
    assert Names("a-b").parse_poll_queue(NAMES.poll_queue("render", 0)) is None
    assert not Names("a-b").poll.startswith(Names("a").prefix + ".")


def test_the_check_wants_one_prefix_everywhere() -> None:
    alone = {"default": {"BACKEND": LAYER, "CONFIG": {"host": "amqp://"}}}
    with override_settings(PROGROCK_PREFIX="shop", CHANNEL_LAYERS=alone):
        assert "progrock.E006" in [each.id for each in check_settings()]
    both = {"default": {"BACKEND": LAYER, "CONFIG": {"host": "amqp://", "prefix": "shop"}}}
    with override_settings(PROGROCK_PREFIX="shop", CHANNEL_LAYERS=both):
        assert not check_settings()
    with override_settings(PROGROCK_PREFIX="a.b", CHANNEL_LAYERS=both):
        assert [each.id for each in check_settings()] == ["progrock.E005"]
