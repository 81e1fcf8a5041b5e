"""Channels' layer over RabbitMQ, by which workers and web processes push changes.

It is channels-rabbitmq's layer. What is mended there stands in `mended_carehare.py`.
"""

import asyncio
import logging
import os
import re
import socket
from typing import Any
from uuid import uuid4

import carehare
from channels_rabbitmq.util import GroupRecipient, serialize_message

from progrock.broker.mended_carehare import Connection, Layer
from progrock.broker.names import NAMES, Names

logger = logging.getLogger(__name__)

READY_TIMEOUT = 1.0
CONFIRM_TIMEOUT = 5.0
# "Delivered again" is logged only after this many seconds without a dropped push, because a queue
# at its limit would otherwise log on and off.
CALM = 10.0
# While RabbitMQ confirms nothing, one push is tried in this many seconds.
PROBE = 30.0


class ChannelLayer(Layer):
    """A channel layer that lives through outages, and whose pushes never raise.

    In the settings: `{"BACKEND": "progrock.broker.channel_layer.ChannelLayer", "CONFIG": {"host":
    AMQP_URL}}`, with `"prefix": PROGROCK_PREFIX` beside the host if that is not the default.
    Delivery is at most once.

    A process that only sends, such as a worker, has no queue. An exclusive queue comes with its
    first channel. `connected` says whether a message would go out now. `epoch` counts the
    connections, because pushes may have been lost between two of them. `stalled` says that RabbitMQ
    takes messages and confirms none (a memory or disk alarm). Then pushes are dropped here, because
    carehare would pile them up.
    """

    def __init__(
        self,
        host: str = "amqp://guest:guest@127.0.0.1/",
        prefix: str = NAMES.prefix,
        **options: Any,
    ) -> None:
        names = Names(prefix)
        defaults = {
            "local_capacity": 200,
            "remote_capacity": 1000,
            "local_expiry": 10.0,
            "groups_exchange": names.groups,
        }
        machine = re.sub(r"[^a-zA-Z0-9-]", "-", socket.gethostname())[:30]
        queue_name = f"{names.web}.{machine}.{os.getpid()}.{uuid4().hex[:6]}"
        super().__init__(host=host, names=names, queue_name=queue_name, **(defaults | options))
        self.stalled = False
        self.epoch = 0
        self._last_drop: float | None = None  # None again once "delivered again" was logged
        self._last_try = 0.0

    async def new_channel(self, prefix: str = "") -> str:
        """Make a channel of this process, and with the first one the queue of the process."""
        if not self.receives:
            self.receives = True
            self.reconnect()  # a new connection comes with the queue
        name: str = await super().new_channel(prefix)
        return name

    async def group_send(self, group: str, message: dict[str, Any]) -> bool:
        """Send to a group, at most once; returns whether RabbitMQ has taken it.

        Never raises because of RabbitMQ: it returns False, after some seconds at most.
        """
        self.require_valid_group_name(group)
        body = serialize_message(GroupRecipient(group), message)
        now = asyncio.get_running_loop().time()
        if self.stalled and now < self._last_try + PROBE:
            return False
        self._last_try = now
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                connection = await self.carehare_connection
            sent = connection.publish(body, exchange_name=self.groups_exchange, routing_key=group)
            sent.add_done_callback(self._on_answer)  # sees an answer after the timeout, too
            done, _ = await asyncio.wait([sent], timeout=CONFIRM_TIMEOUT)
            self.stalled = self.stalled or not done
            if not done:
                raise TimeoutError("RabbitMQ confirms nothing (has it a memory or disk alarm?)")
            sent.result()
        except Exception as error:  # whatever the driver raises: a push never fails its sender
            if self.connected:  # a lost connection was logged already
                self._on_drop(error, now)
            return False
        return True

    def _on_drop(self, error: Exception, now: float) -> None:
        if self._last_drop is None:
            reason = str(error) or type(error).__name__
            logger.warning("channel layer: pushes are dropped: %s", reason)
        self._last_drop = now

    def _on_answer(self, sent: asyncio.Future[None]) -> None:
        error = None if sent.cancelled() else sent.exception()
        if sent.cancelled() or (error and not isinstance(error, carehare.ServerSentNack)):
            return
        self.stalled = False  # a refusal is an answer as well
        now = asyncio.get_running_loop().time()
        if error is None and self._last_drop is not None and now > self._last_drop + CALM:
            logger.info("channel layer: pushes are delivered again")
            self._last_drop = None

    def is_up(self) -> None:
        """Count a new connection, which has no alarm until it shows one."""
        self.epoch += 1
        self.stalled = False

    async def set_up(self, connection: Connection) -> None:
        """Make the exchange and the queue of this process."""
        # Ask first: a user without the right to make the exchange may ask whether it exists.
        try:
            await connection.exchange_declare(self.groups_exchange, passive=True)
        except carehare.ChannelClosedByServer as error:
            if error.reply_code != 404:
                raise
            await connection.exchange_declare(self.groups_exchange, durable=True)
        if self.receives:
            limits = {
                "x-max-length": self.remote_capacity,
                "x-overflow": "reject-publish",
                "x-message-ttl": int(self.expiry * 1000),
            }
            await connection.queue_declare(self.queue_name, exclusive=True, arguments=limits)
            for group in self.groups:
                await connection.queue_bind(
                    self.queue_name, self.groups_exchange, routing_key=group
                )
