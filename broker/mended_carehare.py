"""Mends carehare and channels-rabbitmq: all that reaches into their private parts stands here.

Both are pinned exactly in pyproject.toml. tests/unit/test_mended_carehare.py names each private
part that we use, and fails with a sentence when a release moves one. Each entry says what is wrong,
what mends it here, and when that may go.

carehare 1.0.2
- It gives RabbitMQ no name for the connection, does not ask to be told of a deleted queue, and
  takes the server's heartbeat, so that it notices a silent loss only after a minute or more.
  Mended in `Protocol._accept_handshake_frame`, until it takes client properties and a heartbeat.
- It cannot handle the notice that its queue was deleted.
  Mended in `Protocol.accept_frame`, until that ends the consumer.
- It waits for ever if the peer closes the connection before it is open, as a load balancer without
  a node does. Mended in `Protocol.connection_lost`, until `connect` fails then.
- It does not decode a percent-encoded login, and knows neither IPv6 addresses nor the URL's TLS
  options. Mended in `Connection.connect`, until it reads all of the URL.
- A caller that is cancelled cancels a future that carehare wants to resolve later. That fails and
  ends the connection. Mended in `Connection.publish` and those after it, until it shields them.
- The connection lives on after its exchange or queue was deleted, but only a new connection makes
  them again. Mended in `Connection._answered`, for as long as the layer declares them once.
- It logs a traceback at each end of a consumer, and waits for RabbitMQ's answer even if the
  consumer was cancelled. Mended in `Connection.acking_consumer`, until it does neither.
- It can neither end a connection at once nor say whether one is closing.
  Mended in `Connection.abort` and `Connection.usable`, until it has the like.

channels-rabbitmq 4.0.1
- All callers wait for one future, so that one of them who is cancelled in an outage ends the layer
  for good. Mended in `Layer.carehare_connection`, until the library shields it.
- Its loop ends for good if the connection is lost during the set-up, and logs a traceback a second
  in an outage. Mended in `Layer._reconnect_forever`, and in `Layer.close`, which ends that loop.
  Both may go when the library's loop lives through every loss.
- It declares a queue in every process, even in one that only sends, and gives it a random name.
  Mended in `Layer.receives` and `Layer.queue_name`, until both can be chosen.
- It checks names by methods that Channels 4.3 warns about. Mended in `Layer.valid_channel_name` and
  `Layer.valid_group_name`, until it asks by the new names.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import carehare
import pamqp.commands as spec
from carehare._protocol import Protocol as CarehareProtocol
from channels.exceptions import StopConsumer
from channels_rabbitmq.core import RabbitmqChannelLayer
from channels_rabbitmq.reader import consume_into_multi_queue_until_connection_close

from progrock.broker.address import place, read, tls_of
from progrock.broker.connection import CONNECT_TIMEOUT, HEARTBEAT, persist, words
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.names import NAMES, Names

CLOSE_TIMEOUT = 2.0


class Protocol(CarehareProtocol):  # type: ignore[misc] # carehare has no types
    """carehare's protocol with a name, our heartbeat, and an end for every loss."""

    _crash_exc: Exception | None
    names: Names = NAMES

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
            "connection_name": self.names.label("channel layer"),
            "capabilities": able,
        }
        login = f"\x00{self._username}\x00{self._password}"
        return self._frame_writer.send_frame(spec.Connection.StartOk(about, "PLAIN", login))

    def accept_frame(self, frame: Any, channel_id: int) -> None:
        """End the connection if RabbitMQ has cancelled the consumer."""
        if isinstance(frame, spec.Basic.Cancel):
            self.end(ConnectionResetError("the queue of this process was deleted"))
        else:
            super().accept_frame(frame, channel_id)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail `open` for a connection that was closed before it was open."""
        if exc is None and not self.open.done():
            exc = ConnectionResetError("the connection was closed before it was open")
        super().connection_lost(exc)

    def end(self, reason: Exception | None = None) -> None:
        """End the connection at once, without a word to RabbitMQ."""
        self._crash_exc = self._crash_exc or reason
        self._transport.abort()

    @property
    def closing(self) -> bool:
        """Whether the connection is lost or about to be."""
        return bool(self._transport.is_closing())


class Connection(carehare.Connection):  # type: ignore[misc] # carehare has no types
    """carehare's connection, whose futures a cancelled caller cannot cancel."""

    _protocol: Protocol | None = None
    names: Names = NAMES

    async def connect(self) -> None:
        """Connect and log in. Raises whatever carehare and asyncio raise."""
        address = read(self._url)

        def protocol() -> Protocol:
            made = Protocol(address.user, address.password, address.vhost)
            made.names = self.names
            return made

        tls = tls_of(self._url) if self._ssl is None else self._ssl
        loop = asyncio.get_running_loop()
        _, self._protocol = await loop.create_connection(
            protocol, address.host, address.port, ssl=tls
        )
        await asyncio.shield(self._protocol.open)

    @property
    def usable(self) -> bool:
        """Whether a message would go out now."""
        return self._protocol is not None and not self._protocol.closing

    def abort(self, reason: Exception | None = None) -> None:
        """End the connection at once, without a word to RabbitMQ."""
        if self._protocol:
            self._protocol.end(reason)

    def send_close(self) -> None:
        """Tell RabbitMQ that the connection ends; `closed` is done when it has answered."""
        if self._protocol:
            self._protocol.send_close_if_allowed()

    def publish(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        """As carehare's."""
        return self._answered(super().publish(*args, **options))

    def queue_bind(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        """As carehare's."""
        return self._answered(super().queue_bind(*args, **options))

    def queue_unbind(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        """As carehare's."""
        return self._answered(super().queue_unbind(*args, **options))

    def queue_declare(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        """As carehare's."""
        return asyncio.shield(super().queue_declare(*args, **options))

    def exchange_declare(self, *args: Any, **options: Any) -> asyncio.Future[None]:
        """As carehare's; raises ChannelClosedByServer with code 404 for a missing exchange."""
        return asyncio.shield(super().exchange_declare(*args, **options))

    @asynccontextmanager
    async def acking_consumer(self, *args: Any, **options: Any) -> AsyncIterator[Any]:
        """As carehare's, but it does not close the channel, because the connection ends then.

        On a connection that closes, `ack` does nothing.
        """
        consumer = super().acking_consumer(*args, **options)
        consumer.closed.add_done_callback(lambda closed: closed.cancelled() or closed.exception())
        ack = consumer.ack

        def ack_while_open(delivery_tag: int) -> None:
            if self.usable:
                ack(delivery_tag)

        consumer.ack = ack_while_open
        yield consumer

    def _answered(self, answer: asyncio.Future[None]) -> asyncio.Future[None]:
        """Shield an answer; end the connection if the exchange or the queue is gone."""

        def end_if_gone(answer: asyncio.Future[None]) -> None:
            error = answer.exception()
            if isinstance(error, carehare.ChannelClosedByServer) and error.reply_code == 404:
                self.abort(error)

        answer.add_done_callback(end_if_gone)
        return asyncio.shield(answer)


class Layer(RabbitmqChannelLayer, ABC):  # type: ignore[misc] # channels_rabbitmq has no types
    """channels-rabbitmq's layer with a loop of ours, which starts over after every loss.

    `receives` says whether the process has a queue, whose name is `queue_name`. A subclass
    implements `set_up` and `is_up`.
    """

    _carehare_connection: asyncio.Future[Connection]

    # The library still asks by the names that Channels 4.3 warns about.
    valid_channel_name = RabbitmqChannelLayer.require_valid_channel_name
    valid_group_name = RabbitmqChannelLayer.require_valid_group_name

    def __init__(self, *, host: str, names: Names, queue_name: str, **options: Any) -> None:
        super().__init__(host=host, **options)
        self.names = names
        self._place = place(host)
        self._queue_name = queue_name
        self.receives = False

    @abstractmethod
    async def set_up(self, connection: Connection) -> None:
        """Make in RabbitMQ what the layer needs; called for each new connection."""

    @abstractmethod
    def is_up(self) -> None:
        """A new connection is ready."""

    @property
    def connected(self) -> bool:
        """Whether a message would go out now."""
        future = self._carehare_connection
        if not future.done() or future.cancelled() or future.exception():
            return False
        return future.result().usable

    @property
    def carehare_connection(self) -> asyncio.Future[Connection]:
        """The connection; done once it is up. The first caller starts the loop."""
        if self._carehare_connection.done() and not self.connected and not self._want_close:
            # The connection is lost, and the loop has not noticed it yet.
            self._carehare_connection = asyncio.Future()
        return asyncio.shield(super().carehare_connection)

    @property
    def queue_name(self) -> str:
        """The queue of this process; the names of its channels begin with it."""
        return str(self._queue_name)

    @property
    def groups(self) -> list[str]:
        """The groups that channels of this process are in."""
        return list(self._multi_queue._local_groups)

    def reconnect(self) -> None:
        """End the connection, if there is one; the loop makes a new one."""
        if self.connected:
            self._carehare_connection.result().abort()
            self._carehare_connection = asyncio.Future()

    async def close(self) -> None:
        """End the connection; whoever waits for a message gets StopConsumer."""
        self._want_close = True
        self._multi_queue.close()
        names = ("_expire_task", "_reconnect_forever_task")
        tasks = [getattr(self, name) for name in names if hasattr(self, name)]
        if self.connected:
            connection = self._carehare_connection.result()
            connection.send_close()
            await asyncio.wait([self._reconnect_forever_task], timeout=CLOSE_TIMEOUT)
            connection.abort()
        elif not self._carehare_connection.done():
            self._carehare_connection.set_exception(StopConsumer)
            self._carehare_connection.exception()  # marks it as seen, even if nobody waits
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reconnect_forever(self) -> None:
        """In place of the library's loop: start over after every loss, one log line a change."""
        await persist(self.host, "channel layer", self._session)

    async def _session(self, up: Callable[[], None]) -> None:
        connection = Connection(url=self.host, ssl=self.ssl_context)
        connection.names = self.names
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()
                await self.set_up(connection)
            if self._carehare_connection.done():
                self._carehare_connection = asyncio.Future()
            self._carehare_connection.set_result(connection)
            self.is_up()
            up()
            if self.receives:
                await consume_into_multi_queue_until_connection_close(
                    connection, self._queue_name, self._multi_queue, self.local_capacity
                )
            await asyncio.shield(connection.closed)
            raise ConnectionResetError("the connection was lost")
        except Exception as error:  # also for a message that cannot be read: the layer must live on
            if not self._want_close:
                raise BrokerUnavailable(f"RabbitMQ at {self._place}: {words(error)}") from error
        finally:
            connection.abort()
            if self._carehare_connection.done() and not self._want_close:
                self._carehare_connection = asyncio.Future()
