"""What the gate of chaos reads of the tasks that pass it, however their bytes are cut."""

import pytest
from pamqp import base, body, commands, frame, header

from progrock.broker.tasks import Task, encode, properties
from tests.chaos.wire import Noted, Passed, Wire

JOB = "00000000-0000-4000-8000-000000000001"
TASKS = [Task(JOB, 3, 1_800_000_000.25), Task(JOB, 4, 1_800_000_001.0, again=True)]
PUBLISH = commands.Basic.Publish(exchange="progrock.delay", routing_key="1s.render.0")


def message(method: base.Frame, *, kind: str = "progrock.poll", **headers: object) -> bytes:
    """The frames of a message of TASKS on channel 1."""
    content = encode(TASKS)
    about = properties(TASKS, 1_800_000_000.0)
    known = commands.Basic.Properties(
        content_type=about["content_type"],
        headers=about["headers"] | headers,
        message_id="one",
        message_type=kind,
    )
    head = header.ContentHeader(0, len(content), known)
    halves = content[:50], content[50:]
    frames = (method, head, *(body.ContentBody(half) for half in halves))
    return b"".join(frame.marshal(each, 1) for each in frames)


def deliver(redelivered: bool) -> base.Frame:
    return commands.Basic.Deliver(
        consumer_tag="worker", delivery_tag=7, redelivered=redelivered, exchange="", routing_key="q"
    )


def read(*data: bytes) -> list[Passed]:
    wire = Wire()
    take = wire.reader()
    for each in data:
        take(each)
    assert not wire.unread
    return wire.passed


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_published_message_is_read_in_any_pieces(size: int) -> None:
    whole = b"AMQP\x00\x00\x09\x01" + message(PUBLISH)
    [passed] = read(*(whole[n : n + size] for n in range(0, len(whole), size)))
    assert (passed.id, passed.before) == ("one", None)
    assert passed.tasks == (
        Noted(JOB, 3, 1_800_000_000.25, False),
        Noted(JOB, 4, 1_800_000_001.0, True),
    )


def test_a_delivery_tells_how_often_there_was_one_before() -> None:
    counted = message(deliver(True), **{"x-delivery-count": 3})
    found = read(message(deliver(False)) + message(deliver(True)) + counted)
    assert [each.before for each in found] == [0, 1, 3]


def test_other_messages_are_passed_over() -> None:
    assert read(message(PUBLISH, kind="another") + message(deliver(False), kind="another")) == []


def test_what_cannot_be_read_is_told() -> None:
    wire = Wire()
    take = wire.reader()
    take(b"AMQP\x00\x00\x09\x01" + message(PUBLISH).replace(b'"tasks"', b'"takes"'))
    assert wire.unread
    take(message(PUBLISH))
    assert wire.passed == []
