"""The synchronous publisher without a RabbitMQ: what fails there is said in our own words."""

import inspect
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pika import BlockingConnection, SelectConnection

from progrock.broker import blocking, mended_pika
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.tasks import Task
from tests.logs import own

BATCHES = [
    ("render", 0, [Task("0191a6c0-5c1e-7000-8000-00000000ff02", 1, 1767225600.0)], 0.0),
]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}/"


def test_a_server_that_accepts_and_says_nothing_is_unavailable(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocking, "TIMEOUT", 0.3)
    start = time.monotonic()
    with pytest.raises(BrokerUnavailable, match=r"cannot connect to RabbitMQ at 127.+Timeout"):
        blocking.send(silent, BATCHES, [])
    assert time.monotonic() - start >= 0.3


def test_a_refused_connection_says_so() -> None:
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1: .*refused"):
        blocking.send("amqp://guest:guest@127.0.0.1:1/", BATCHES, [])


def test_the_private_names_that_are_mended_are_where_they_were() -> None:
    """If a release of pika fails here: is `mended_pika` still needed, and how is it done now?"""
    assert "_impl" in BlockingConnection.__init__.__code__.co_names
    later = inspect.signature(SelectConnection._adapter_call_later)
    assert list(later.parameters) == ["self", "delay", "callback"]
    assert list(inspect.signature(SelectConnection._terminate_stream).parameters) == [
        "self",
        "error",
    ]


@pytest.mark.parametrize(
    "changed",
    [
        SimpleNamespace(),
        SimpleNamespace(_impl=SimpleNamespace()),
        SimpleNamespace(_impl=SimpleNamespace(_terminate_stream=print, _adapter_call_later=min)),
    ],
)
def test_a_pika_that_has_changed_publishes_without_a_limit_and_says_so_once(
    changed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    mended_pika._warn.cache_clear()
    mended_pika.limit(changed, 1.0)
    mended_pika.limit(changed, 1.0)
    assert [each.levelname for each in own(caplog)] == ["WARNING"]
    assert "no time limit" in caplog.text
