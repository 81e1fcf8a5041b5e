"""Opens named connections to RabbitMQ and keeps them: on any loss it starts over, with backoff."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlencode

import aio_pika
from aio_pika.abc import AbstractConnection
from aio_pika.exceptions import (
    CONNECTION_EXCEPTIONS,
    AuthenticationError,
    ProbableAuthenticationError,
)

from progrock.broker.address import read
from progrock.broker.errors import BrokerError, BrokerUnavailable
from progrock.broker.names import NAMES, Names

logger = logging.getLogger(__name__)

# All of these are in seconds.
CONNECT_TIMEOUT = 10.0
CLOSE_TIMEOUT = 3.0
HEARTBEAT = 20
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0  # between attempts; each pause is twice the one before
STEADY = 10.0  # after a connection that lasted so long, begin with the first pause again


@asynccontextmanager
async def translated(doing: str) -> AsyncIterator[None]:
    """Turn what aio-pika raises when a connection or channel is lost into BrokerUnavailable."""
    try:
        yield
    except BrokerError:
        raise
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerUnavailable(f"{doing}: {words(error)}") from error
    except asyncio.CancelledError as error:
        # When aiormq's reader task ends, waiting calls get its exception, which may be a
        # CancelledError although nobody cancelled us.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: the connection was lost") from error
    except Exception as error:
        if type(error) is not Exception:  # aiormq raises a bare one when it knows no reason
            raise
        raise BrokerUnavailable(f"{doing}: the connection was lost") from error


def words(error: BaseException) -> str:
    """An error of a driver in a few words."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, AuthenticationError | ProbableAuthenticationError):
        return "the login was refused"
    for part in error.args:  # aiormq hands on RabbitMQ's frame, such as for a wrong virtual host
        if text := getattr(part, "reply_text", None):
            return str(text)
    return str(error) or type(error).__name__


def _is_below_error(record: logging.LogRecord) -> bool:
    """Drop aiormq's errors: a traceback for each failed attempt and each lost connection.

    They reach us as exceptions as well, and we log one line for an outage. Its warnings stay, such
    as that a connection is blocked.
    """
    return record.levelno < logging.ERROR


def _is_not_of_a_call(record: logging.LogRecord) -> bool:
    """Drop aiormq's warning for each call that we gave up, because we log that once ourselves."""
    return "because RPC call" not in str(record.msg)


def _calm_aiormq() -> None:
    """Add the two filters. Adding them again does nothing.

    The first connection does it, because an import must not change the host's loggers.
    """
    logging.getLogger("aiormq.connection").addFilter(_is_below_error)
    logging.getLogger("aiormq.channel").addFilter(_is_not_of_a_call)


class _Connection(aio_pika.Connection):
    def __del__(self) -> None:
        """Do nothing, because we close what we open.

        aio-pika's own would make a coroutine that nobody awaits.
        """


async def connect(url: str, role: str, names: Names = NAMES) -> AbstractConnection:
    """Open a connection that bears the name of `role`. Raises BrokerUnavailable.

    It is no robust connection, because aio-pika's issues #231, #536 and #632 are open.
    """
    _calm_aiormq()
    address = read(url)
    query = urlencode({**address.options, "name": names.label(role), "heartbeat": HEARTBEAT})
    async with (
        translated(f"cannot connect to RabbitMQ at {address.place}"),
        asyncio.timeout(CONNECT_TIMEOUT),
    ):
        return await aio_pika.connect(f"{address.url}?{query}", connection_class=_Connection)


@asynccontextmanager
async def best_effort(seconds: float) -> AsyncIterator[None]:
    """Ignore a lost connection, and give up after `seconds`."""
    with suppress(BrokerUnavailable):
        async with translated("best effort"), asyncio.timeout(seconds):
            yield


async def shut(connection: AbstractConnection) -> None:
    """Close a connection, which may be lost already, within `CLOSE_TIMEOUT`."""
    async with best_effort(CLOSE_TIMEOUT):
        await connection.close()


async def keep(
    url: str,
    role: str,
    run: Callable[[AbstractConnection, Callable[[], None]], Awaitable[None]],
    names: Names = NAMES,
) -> None:
    """Connect and run `run(connection, up)`. Start over after each loss, as `persist` does."""

    async def session(up: Callable[[], None]) -> None:
        connection = await connect(url, role, names)
        try:
            await run(connection, up)
        finally:
            await shut(connection)

    await persist(url, role, session)


async def persist(
    url: str, role: str, session: Callable[[Callable[[], None]], Awaitable[None]]
) -> None:
    """Run `session(up)`, which connects. Run it again when it raises BrokerUnavailable.

    The pauses between two runs grow. The session calls `up()` once it is ready. When it returns,
    this returns as well. Each change of state is one line in the log, where `role` and the place in
    `url` name the connection.
    """
    loop = asyncio.get_running_loop()
    pause, down, since = FIRST_PAUSE, False, 0.0

    def up() -> None:
        nonlocal down, since
        down, since = False, loop.time()
        logger.info("%s: connected to RabbitMQ at %s", role, read(url).place)

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
