"""Settings under which nothing is sent to RabbitMQ, and changes stay in the process."""

from typing import Any
from unittest import mock

from django.conf import settings
from django.db import connections
from django.test.utils import TestContextDecorator, override_settings

from progrock import conf
from progrock.broker.address import MEMORY

#: The channel layer in memory. More messages than it holds would be dropped without a word.
LAYER = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 10_000}}


class without_rabbitmq(TestContextDecorator):
    """A context manager, and a decorator of functions and TestCase classes.

    Within it `AMQP_URL` is "memory://", and the channel layer that ProgRock uses is in memory.
    Settings that say so already are not changed. It also keeps asynchronous code from closing a
    TestCase's connection, and the open transaction with it.
    """

    def enable(self) -> None:
        """Change the settings."""
        changes: dict[str, Any] = {}
        if not conf.in_memory():
            layers = getattr(settings, "CHANNEL_LAYERS", {})
            changes["AMQP_URL"] = MEMORY
            changes["CHANNEL_LAYERS"] = {**layers, conf.channel_layer(): LAYER}
        self._changed = override_settings(**changes)
        self._changed.enable()
        self._patch = mock.patch("channels.db.close_old_connections", _close_old_connections)
        self._patch.start()

    def disable(self) -> None:
        """Change them back."""
        self._patch.stop()
        self._changed.disable()


def _close_old_connections() -> None:
    """As Django's, but connections within a transaction stay open.

    Channels' own communicators replace Django's as well (channels/testing/application.py).
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
