"""Fixtures for tests that talk to RabbitMQ, or to a database, from their own process."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from progrock.broker import blocking, channel_layer
from progrock.broker import consumer as consumer_module
from progrock.broker import publisher as publisher_module
from progrock.broker.channel_layer import ChannelLayer
from tests.amqp import Line, NewLayer
from tests.answering import Service, service
from tests.ledgers import own_database
from tests.services import PATIENCE


@pytest.fixture
async def line(vhost_url: str) -> AsyncIterator[Line]:
    """A line to this test's vhost that can be cut and mended."""
    line = Line(vhost_url)
    await line.mend()
    yield line
    await line.cut()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer timeouts than the product has, because a busy machine may stand still for longer.

    A test of a timeout sets its own.
    """
    for module, name in (
        (blocking, "TIMEOUT"),
        (channel_layer, "CONFIRM_TIMEOUT"),
        (publisher_module, "CONFIRM_TIMEOUT"),
        (consumer_module, "OPEN_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, PATIENCE / 2)


@pytest.fixture
async def new_layer(vhost_url: str) -> AsyncIterator[NewLayer]:
    """Makes channel layers; each is closed at the end, however the test ends."""
    layers: list[ChannelLayer] = []

    def make(url: str = vhost_url, **options: Any) -> ChannelLayer:
        layers.append(ChannelLayer(host=url, **options))
        return layers[-1]

    yield make
    for layer in layers:
        await layer.close()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: Any, django_db_blocker: Any, tmp_path_factory: Any) -> Iterator[str]:
    """The default connection of this thread, on a database of its own."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'db.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_url").new_database()
    with django_db_blocker.unblock(), own_database(url):
        yield request.param


@pytest.fixture
async def render() -> AsyncIterator[Service]:
    """A backend whose jobs run, until a test has it say something else."""
    async with service() as made:
        made.says["/v1/tasks"] = {"id": "h1", "status": "running"}
        yield made
