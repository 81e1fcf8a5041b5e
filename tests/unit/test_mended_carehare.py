"""What we mend in carehare and channels-rabbitmq is still where we reach for it."""

import ast
import asyncio
import logging
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import carehare
import pamqp.commands as spec
import pytest
from carehare._protocol import Protocol as CarehareProtocol
from channels_rabbitmq.core import RabbitmqChannelLayer
from channels_rabbitmq.multiqueue import MultiQueue
from channels_rabbitmq.util import ChannelRecipient

from progrock.broker import channel_layer, mended_carehare
from progrock.broker.channel_layer import ChannelLayer

URL = "amqp://guest:guest@127.0.0.1:1/"  # nobody listens there


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def writelines(self, list_of_data: Any) -> None:
        self.written += b"".join(list_of_data)

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def connected_protocol(kind: type[CarehareProtocol] = CarehareProtocol) -> Any:
    protocol = kind()
    protocol.connection_made(Transport())
    return protocol


#: Each private name that we use, and where a release of its package has it.
REACHES = {
    "carehare": {
        "_accept_handshake_frame": connected_protocol,
        "_lifecycle": connected_protocol,
        "_username": connected_protocol,
        "_password": connected_protocol,
        "_frame_writer": connected_protocol,
        "_crash_exc": connected_protocol,
        "_transport": connected_protocol,
        "_url": lambda: carehare.Connection(URL),
        "_ssl": lambda: carehare.Connection(URL),
    },
    "channels-rabbitmq": {
        "_carehare_connection": RabbitmqChannelLayer,
        "_want_close": RabbitmqChannelLayer,
        "_multi_queue": RabbitmqChannelLayer,
        "_queue_name": RabbitmqChannelLayer,
        "_reconnect_forever": RabbitmqChannelLayer,
        "_local_groups": lambda: MultiQueue(capacity=1),
    },
}
#: These are set later; the tests of behaviour below hold them.
SET_LATER = {"_protocol", "_expire_task", "_reconnect_forever_task"}
MOVED = (
    "{package} {version} has no {name} any more, and broker/mended_carehare.py needs it:"
    " pin the release before, or follow the change"
)


@pytest.mark.parametrize(
    ("package", "name"), [(package, name) for package in REACHES for name in REACHES[package]]
)
async def test_each_private_name_is_where_we_reach_for_it(package: str, name: str) -> None:
    assert hasattr(REACHES[package][name](), name), MOVED.format(
        package=package, version=version(package), name=name
    )


def private_names(module: Any) -> set[str]:
    """The private names that a module uses and does not define."""
    tree = ast.parse(Path(module.__file__).read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    used |= {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    used |= {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {name for name in used if name.startswith("_") and not name.endswith("__")}


def test_every_private_name_is_listed_here() -> None:
    listed = {name for names in REACHES.values() for name in names} | SET_LATER
    ours = {"_answered", "_place", "_session"}
    assert private_names(mended_carehare) - ours == listed
    assert not private_names(channel_layer) & listed, "what the layer promises reaches into nothing"


async def test_the_handshake_bears_our_name_and_heartbeat() -> None:
    protocol = connected_protocol(mended_carehare.Protocol)
    protocol.accept_frame(spec.Connection.Start(mechanisms="PLAIN"), 0)
    assert b"progrock channel layer @" in protocol._transport.written
    assert b"consumer_cancel_notify" in protocol._transport.written
    tune = spec.Connection.Tune(channel_max=10, frame_max=131072, heartbeat=60)
    protocol.accept_frame(tune, 0)
    assert tune.heartbeat == 20
    protocol.accept_frame(spec.Connection.OpenOk(), 0)
    assert protocol.open.done()
    protocol.accept_frame(spec.Basic.Cancel(consumer_tag="x"), 1)
    assert protocol.closing
    protocol.connection_lost(None)
    with pytest.raises(ConnectionResetError, match="queue of this process was deleted"):
        await protocol.closed


async def test_a_connection_that_is_closed_before_it_is_open_fails() -> None:
    protocol = connected_protocol(mended_carehare.Protocol)
    protocol.connection_lost(None)
    with pytest.raises(ConnectionResetError, match="before it was open"):
        await protocol.open


async def test_a_push_that_has_arrived_is_delivered_although_the_connection_has_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody has told the driver yet. Then uvloop raises at a write."""
    protocol = connected_protocol(mended_carehare.Protocol)
    protocol.accept_frame(spec.Connection.Start(mechanisms="PLAIN"), 0)
    tune = spec.Connection.Tune(channel_max=10, frame_max=131072, heartbeat=60)
    protocol.accept_frame(tune, 0)
    protocol.accept_frame(spec.Connection.OpenOk(), 0)
    connection, transport = mended_carehare.Connection(URL), protocol._transport
    connection._protocol = protocol
    arrived = MultiQueue(capacity=10)

    def closed(data: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    async with connection.acking_consumer("queue") as consumer:
        before = transport.written
        for n in (1, 2):
            arrived.put_nowait(
                ChannelRecipient("channel"), {"n": n}, time=0.0, ack=partial(consumer.ack, n)
            )
        assert await arrived.get("channel") == {"n": 1}
        assert transport.written != before, "it is acknowledged while the connection is open"
        transport.abort()
        monkeypatch.setattr(transport, "write", closed)
        assert await arrived.get("channel") == {"n": 2}


async def test_carehare_sends_through_the_protocol_that_we_gave_it() -> None:
    connection = mended_carehare.Connection(URL)
    sent: list[str] = []

    class Fake:
        """Takes calls."""

        closing = False

        def publish(self, *args: Any, **options: Any) -> asyncio.Future[None]:
            sent.append("publish")
            return asyncio.get_running_loop().create_future()

        def rpc(self, *args: Any, **options: Any) -> asyncio.Future[None]:
            sent.append("rpc")
            return asyncio.get_running_loop().create_future()

    connection._protocol = Fake()
    connection.publish(b"", exchange_name="x", routing_key="y")
    connection.queue_bind("queue", "x", routing_key="y")
    assert sent == ["publish", "rpc"], MOVED.format(
        package="carehare", version=version("carehare"), name="Connection._protocol"
    )


async def test_the_library_keeps_its_tasks_where_we_end_them() -> None:
    layer = ChannelLayer(URL)
    waiting = asyncio.ensure_future(layer.carehare_connection)
    for name in ("_expire_task", "_reconnect_forever_task"):
        assert isinstance(getattr(layer, name, None), asyncio.Task), MOVED.format(
            package="channels-rabbitmq", version=version("channels-rabbitmq"), name=name
        )
    waiting.cancel()
    await layer.close()


async def test_whatever_the_driver_raises_a_push_is_false(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ChannelLayer):
        """Is connected, and cannot send."""

        connected = True

        @property
        def carehare_connection(self) -> Any:
            """Like a connection whose socket uvloop has just closed."""
            done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            done.set_result(self)
            return done

        def publish(self, *args: Any, **options: Any) -> Any:
            """As uvloop does."""
            raise RuntimeError("unable to perform operation on <TCPTransport>")

    assert await Broken(URL).group_send("feed", {"type": "x"}) is False
    assert "pushes are dropped: unable to perform" in caplog.text


def test_no_logger_of_the_drivers_is_changed() -> None:
    for name in ("carehare", "carehare._consume_channel", "channels_rabbitmq"):
        assert not logging.getLogger(name).filters
