"""Channels' layer on RabbitMQ: channels-rabbitmq, with its callers shielded and its connection kept by a loop of ours.

Until channels-rabbitmq (4.0.1) and carehare (1.0.2) mend it themselves: a caller that is cancelled cancels a future
that others share, which ends the layer for good; a loss in the middle of the set-up does so, too; an outage logs a
traceback per second; names and percent-encoded credentials are not known. Both are pinned, as this reaches into them.
"""

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import carehare
import pamqp.commands as spec
from carehare._protocol import Protocol
from channels.exceptions import StopConsumer
from channels_rabbitmq.core import RabbitmqChannelLayer
from channels_rabbitmq.reader import consume_into_multi_queue_until_connection_close
from channels_rabbitmq.util import GroupRecipient, serialize_message

from progrock.broker.connection import (
    CONNECT_TIMEOUT,
    HEARTBEAT,
    label,
    persist,
    place,
    tls_of,
    vhost_of,
    words,
)
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.topology import GROUPS, WEB

logger = logging.getLogger(__name__)
# It has one thing to say, a traceback at each end of a consumer, whatever ended it; that reaches us as an exception.
logging.getLogger("carehare._consume_channel").addFilter(lambda record: False)

READY_TIMEOUT = 1.0
CONFIRM_TIMEOUT = 5.0
CLOSE_TIMEOUT = 2.0
CALM = 10.0  # seconds without a dropped push after which all is said to be well: a queue that is just full flutters
PROBE = 30.0  # seconds between the pushes that go out while RabbitMQ confirms none


class _Protocol(Protocol):  # type: ignore[misc] # carehare has no types
    """Tells RabbitMQ the connection's name, and notices a silent loss as early as the other connections do."""

    _crash_exc: Exception | None

    def _accept_handshake_frame(self, frame: Any) -> Any:
        if isinstance(frame, spec.Connection.Tune):
            frame.heartbeat = HEARTBEAT
        if not isinstance(frame, spec.Connection.Start):
            return super()._accept_handshake_frame(frame)
        self._lifecycle[spec.Connection.Start] = frame
        able: Any = {
            "authentication_failure_close": True,
            "publisher_confirms": True,
            "consumer_cancel_notify": True,
        }
        about: Any = {
            "product": "carehare",
            "connection_name": label("channel layer"),
            "capabilities": able,
        }
        login = f"\x00{self._username}\x00{self._password}"
        return self._frame_writer.send_frame(spec.Connection.StartOk(about, "PLAIN", login))

    def accept_frame(self, frame: Any, channel_id: int) -> None:
        if isinstance(frame, spec.Basic.Cancel):
            self.end(ConnectionResetError("the queue of this process was deleted"))
        else:
            super().accept_frame(frame, channel_id)

    def end(self, reason: Exception | None = None) -> None:
        """Ends the connection without a word."""
        self._crash_exc = self._crash_exc or reason
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if (
            exc is None and not self.open.done()
        ):  # a load balancer without a node: carehare would wait for ever
            exc = ConnectionResetError("the connection was closed before it was open")
        super().connection_lost(exc)


class _Connection(carehare.Connection):  # type: ignore[misc] # carehare has no types
    """Futures that a cancelled caller cannot cancel: carehare would stumble over one when its answer comes."""

    async def connect(self) -> None:
        parts = urlsplit(self._url)

        def protocol() -> _Protocol:
            return _Protocol(
                unquote(parts.username or "guest"),
                unquote(parts.password or "guest"),
                vhost_of(self._url),
            )

        tls = tls_of(self._url) if self._ssl is None else self._ssl
        host, port = parts.hostname or "localhost", parts.port or (5671 if tls else 5672)
        _, self._protocol = await asyncio.get_running_loop().create_connection(
            protocol, host, port, ssl=tls
        )
        await asyncio.shield(self._protocol.open)

    def abort(self) -> None:
        """Ends the connection without a word."""
        if protocol := getattr(self, "_protocol", None):
            protocol.end()

    def publish(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        return self._answered(super().publish(*args, **options))

    def queue_bind(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        return self._answered(super().queue_bind(*args, **options))

    def queue_unbind(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        return self._answered(super().queue_unbind(*args, **options))

    def _answered(self, answer: asyncio.Future[None]) -> asyncio.Future[None]:
        """Where the exchange or the queue is gone, only a new connection makes it again."""

        def look(answer: asyncio.Future[None]) -> None:
            error = answer.exception()
            if isinstance(error, carehare.ChannelClosedByServer) and error.reply_code == 404:
                self._protocol.end(error)

        answer.add_done_callback(look)
        return asyncio.shield(answer)


class ChannelLayer(RabbitmqChannelLayer):  # type: ignore[misc] # channels_rabbitmq has no types
    """`CHANNEL_LAYERS = {"default": {"BACKEND": "progrock.broker.channel_layer.ChannelLayer", "CONFIG": {"host": AMQP_URL}}}`.

    A process that only sends (a worker) has no queue; the exclusive queue comes with the first channel.
    `connected` says whether a message would go out now, `epoch` counts the connections: when it changes, pushes may
    have been lost in between. `stalled`: RabbitMQ takes messages and confirms none (a memory or disk alarm), so pushes
    are dropped here; carehare would pile them up.
    """

    _carehare_connection: asyncio.Future[_Connection]

    def __init__(self, host: str = "amqp://guest:guest@127.0.0.1/", **options: Any) -> None:
        defaults = {
            "local_capacity": 200,
            "remote_capacity": 1000,
            "local_expiry": 10.0,
            "groups_exchange": GROUPS,
        }
        super().__init__(host=host, **(defaults | options))
        self._place = place(host)
        machine = re.sub(r"[^a-zA-Z0-9-]", "-", socket.gethostname())[:30]
        self._queue_name = f"{WEB}.{machine}.{os.getpid()}.{uuid4().hex[:6]}"
        self._receives = False
        self._dropped: float | None = None  # when the last push was, until all is said to be well
        self._probed = 0.0
        self.stalled = False
        self.epoch = 0

    # The library still asks by the names that Channels 4.3 warns about.
    valid_channel_name = RabbitmqChannelLayer.require_valid_channel_name
    valid_group_name = RabbitmqChannelLayer.require_valid_group_name

    @property
    def connected(self) -> bool:
        future = self._carehare_connection
        if not future.done() or future.cancelled() or future.exception():
            return False
        return not future.result()._protocol._transport.is_closing()

    @property
    def carehare_connection(self) -> asyncio.Future[_Connection]:
        if self._carehare_connection.done() and not self.connected and not self._want_close:
            self._carehare_connection = (
                asyncio.Future()
            )  # lost, and the loop below is about to find out
        return asyncio.shield(super().carehare_connection)

    async def new_channel(self, prefix: str = "") -> str:
        if not self._receives:
            self._receives = True
            if self.connected:  # as a sender until now: connect again, with a queue
                self._carehare_connection.result().abort()
                self._carehare_connection = asyncio.Future()
        name: str = await super().new_channel(prefix)
        return name

    async def group_send(self, group: str, message: dict[str, Any]) -> bool:
        """Sends to a group, at most once. Never raises for RabbitMQ's sake: False, after some seconds at most."""
        self.require_valid_group_name(group)
        body = serialize_message(GroupRecipient(group), message)
        now = asyncio.get_running_loop().time()
        if self.stalled and now < self._probed + PROBE:
            return False
        self._probed = now
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                connection = await self.carehare_connection
            sent = connection.publish(body, exchange_name=self.groups_exchange, routing_key=group)
            sent.add_done_callback(self._confirmed)  # a late one, too
            done, _ = await asyncio.wait([sent], timeout=CONFIRM_TIMEOUT)
            self.stalled = self.stalled or not done
            if not done:
                raise TimeoutError("RabbitMQ confirms none (an alarm?)")
            sent.result()
        except Exception as error:  # whatever the driver raises: a push never fails who sends it
            if self.connected:  # else the loss was said already
                if self._dropped is None:
                    logger.warning(
                        "channel layer: pushes are dropped: %s", str(error) or type(error).__name__
                    )
                self._dropped = now
            return False
        return True

    def _confirmed(self, sent: asyncio.Future[None]) -> None:
        if not sent.cancelled() and isinstance(sent.exception(), carehare.ServerSentNack):
            self.stalled = False  # a no is an answer, too
        if not sent.cancelled() and sent.exception() is None:
            self.stalled = False
            if (
                self._dropped is not None
                and asyncio.get_running_loop().time() > self._dropped + CALM
            ):
                logger.info("channel layer: pushes are delivered again")
                self._dropped = None

    async def close(self) -> None:
        """Ends the connection; who waits for a message gets StopConsumer."""
        self._want_close = True
        self._multi_queue.close()
        tasks = [
            getattr(self, name)
            for name in ("_expire_task", "_reconnect_forever_task")
            if hasattr(self, name)
        ]
        if self.connected:
            connection = self._carehare_connection.result()
            connection._protocol.send_close_if_allowed()
            await asyncio.wait([self._reconnect_forever_task], timeout=CLOSE_TIMEOUT)
            connection.abort()  # a consumer waits for RabbitMQ's answer even when it is cancelled
        elif not self._carehare_connection.done():
            self._carehare_connection.set_exception(StopConsumer)
            self._carehare_connection.exception()  # seen, even when nobody waits
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reconnect_forever(self) -> None:
        """In place of the library's loop: every way to lose a connection means to start over; one line a change."""
        await persist(self.host, "channel layer", self._session)

    async def _session(self, up: Callable[[], None]) -> None:
        connection = _Connection(url=self.host, ssl=self.ssl_context)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
                await self._set_up(connection)
            if self._carehare_connection.done():
                self._carehare_connection = asyncio.Future()
            self._carehare_connection.set_result(connection)
            self.epoch += 1
            self.stalled = False
            up()
            if self._receives:
                await consume_into_multi_queue_until_connection_close(
                    connection, self._queue_name, self._multi_queue, self.local_capacity
                )
            await asyncio.shield(connection.closed)
            raise ConnectionResetError("the connection was lost")
        except (
            Exception
        ) as error:  # whatever it was (a broken message, too): the layer must live on
            if not self._want_close:
                raise BrokerUnavailable(f"RabbitMQ at {self._place}: {words(error)}") from error
        finally:
            connection.abort()
            if self._carehare_connection.done() and not self._want_close:
                self._carehare_connection = asyncio.Future()

    async def _set_up(self, connection: _Connection) -> None:
        """The exchange (a user without rights to make it finds it made), and what this process receives by."""
        try:
            await asyncio.shield(connection.exchange_declare(self.groups_exchange, passive=True))
        except carehare.ChannelClosedByServer as error:
            if error.reply_code != 404:
                raise
            await asyncio.shield(connection.exchange_declare(self.groups_exchange, durable=True))
        if self._receives:
            limits = {"x-max-length": self.remote_capacity, "x-overflow": "reject-publish"}
            limits["x-message-ttl"] = int(self.expiry * 1000)
            await asyncio.shield(
                connection.queue_declare(self._queue_name, exclusive=True, arguments=limits)
            )
            for group in list(self._multi_queue._local_groups):
                await connection.queue_bind(
                    self._queue_name, self.groups_exchange, routing_key=group
                )
