"""Opens named connections to RabbitMQ and keeps them: connect, run, on any loss start over with backoff."""

import asyncio
import logging
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, quote, unquote, urlsplit

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AMQPError,
    AuthenticationError,
    ProbableAuthenticationError,
)

from progrock.broker.errors import BrokerError, BrokerUnavailable

logger = logging.getLogger(__name__)
# aiormq logs each failed attempt and each closed connection as an error with a traceback. They reach us as exceptions
# as well, and an outage is one line; its warnings (such as a blocked connection) stay.
logging.getLogger("aiormq.connection").addFilter(lambda record: record.levelno < logging.ERROR)
# It warns of each call that we gave up, which we tell in our own words, and once.
logging.getLogger("aiormq.channel").addFilter(
    lambda record: "because RPC call" not in str(record.msg)
)


def _is_ours_to_hear(record: logging.LogRecord) -> bool:
    """Not of a future that aiormq alone could await: the confirm of a message whose connection went while it was written (6.9.4)."""
    error = record.exc_info[1] if record.exc_info else None
    return not (
        isinstance(error, AMQPError)
        and record.getMessage().startswith("Future exception was never retrieved")
    )


logging.getLogger("asyncio").addFilter(_is_ours_to_hear)

CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0
HEARTBEAT = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0  # between attempts, doubling
STEADY = 10.0  # a connection that lasted this long makes the next attempt start from the first pause again


def label(role: str) -> str:
    """The name a connection or consumer bears in the management UI: `progrock <role> @host:pid`."""
    return f"progrock {role} @{socket.gethostname()}:{os.getpid()}"


def place(url: str) -> str:
    """`host:port` of an AMQP URL, fit for messages: no credentials. Raises BrokerUnavailable when it is no AMQP URL."""
    parts = urlsplit(url)
    with suppress(ValueError):  # a port that is no number
        if parts.scheme in ("amqp", "amqps"):
            return f"{parts.hostname or 'localhost'}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
    raise BrokerUnavailable(
        "the address of RabbitMQ is wrong: wanted amqp://user:password@host:port/vhost, or amqps://"
    )


def vhost_of(url: str) -> str:
    """The virtual host that an AMQP URL names; `/` when it names none."""
    return unquote(urlsplit(url).path[1:]) or "/"


def tls_of(url: str) -> ssl.SSLContext | None:
    """The TLS context of an `amqps://` URL, for drivers that do not read its query as aio-pika does; None for `amqp://`.

    The query's keys are aiormq's: cafile, capath, certfile, keyfile, no_verify_ssl.
    """
    parts = urlsplit(url)
    if parts.scheme != "amqps":
        return None
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    context = ssl.create_default_context(cafile=query.get("cafile"), capath=query.get("capath"))
    if certificate := query.get("certfile"):
        context.load_cert_chain(certificate, query.get("keyfile"))
    if query.get("no_verify_ssl", "0") != "0":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def translated(doing: str) -> AsyncIterator[None]:
    """Turns whatever aio-pika raises when a connection or channel goes into BrokerUnavailable."""
    try:
        yield
    except BrokerError:
        raise
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerUnavailable(f"{doing}: {words(error)}") from error
    except asyncio.CancelledError as error:
        # aiormq rejects what waits with the error that ended its reader, and that can be a CancelledError of its own.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: the connection was lost") from error
    except Exception as error:
        if (
            type(error) is not Exception
        ):  # aiormq rejects with a bare Exception where it knows no reason
            raise
        raise BrokerUnavailable(f"{doing}: the connection was lost") from error


def words(error: BaseException) -> str:
    """An error of a driver in a few words."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return "the login was refused"
    return str(error) or type(error).__name__


class _Connection(aio_pika.Connection):
    def __del__(self) -> None:
        """Nothing: what is opened here is closed here, and aio-pika's own would make a coroutine that nobody awaits."""


async def connect(url: str, role: str) -> AbstractConnection:
    """A plain connection (no robust one: aio-pika #231, #536 and #632 are open) under the name of `role`. Raises BrokerUnavailable."""
    query = f"{'&' if '?' in url else '?'}name={quote(label(role))}&heartbeat={HEARTBEAT}"
    async with (
        translated(f"cannot connect to RabbitMQ at {place(url)}"),
        asyncio.timeout(CONNECT_TIMEOUT),
    ):
        return await aio_pika.connect(url + query, connection_class=_Connection)


@asynccontextmanager
async def tried(seconds: float) -> AsyncIterator[None]:
    """What may fail with the connection, or take longer than `seconds`: either is fine."""
    with suppress(BrokerUnavailable):
        async with translated("tried"), asyncio.timeout(seconds):
            yield


async def shut(connection: AbstractConnection) -> None:
    """Closes a connection, at most waiting for `CLOSE_TIMEOUT`; one that is gone already is fine."""
    async with tried(CLOSE_TIMEOUT):
        await connection.close()


async def keep(
    url: str, role: str, run: Callable[[AbstractConnection, Callable[[], None]], Awaitable[None]]
) -> None:
    """Connects and runs `run(connection, up)`, over and over, as `persist` does."""

    async def session(up: Callable[[], None]) -> None:
        connection = await connect(url, role)
        try:
            await run(connection, up)
        finally:
            await shut(connection)

    await persist(url, role, session)


async def persist(
    url: str, role: str, session: Callable[[Callable[[], None]], Awaitable[None]]
) -> None:
    """Runs `session(up)`, which connects; starts over with backoff whenever that raises BrokerUnavailable.

    It calls `up()` once it is ready, and returns to end it all. One log line per change of state.
    """
    loop = asyncio.get_running_loop()
    pause, down, since = FIRST_PAUSE, False, 0.0

    def up() -> None:
        nonlocal down, since
        down, since = False, loop.time()
        logger.info("%s: connected to RabbitMQ at %s", role, place(url))

    while True:
        since = loop.time()
        try:
            return await session(up)
        except BrokerUnavailable as error:
            if not down:
                logger.warning("%s: %s; starting over until it works", role, error)
            down = True
        if loop.time() - since > STEADY:
            pause = FIRST_PAUSE
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, LONGEST_PAUSE)
