"""Publishes from Django's synchronous side, by pika: connect, publish, confirm, close (8 ms)."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pika
from channels_rabbitmq.util import GroupRecipient, serialize_message
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPChannelError, AMQPError, NackError, UnroutableError

from progrock.broker import mended_pika
from progrock.broker.address import read, tls_of
from progrock.broker.connection import words
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.names import NAMES, Names
from progrock.broker.tasks import MAX_TASKS, Task, encode, properties
from progrock.broker.topology import route

TIMEOUT = 4.0  # seconds to connect, and again to do all the rest


def group_send(url: str, group: str, message: Mapping[str, Any], names: Names = NAMES) -> None:
    """Send a message to a Channels group as the channel layer would; the group may be empty.

    Raises BrokerUnavailable, or PublishFailed if a receiver's queue is full.
    """
    with _channel(url, names) as channel:
        _push(channel, names, group, message)


def send(
    url: str,
    batches: Iterable[tuple[str, int, Sequence[Task], float]],
    events: Iterable[tuple[str, Mapping[str, Any]]],
    names: Names = NAMES,
    *,
    clock: Callable[[], float] = time.time,
) -> None:
    """Publish tasks and push changes over one connection, the tasks first; wait for confirms.

    A batch is (backend, shard, tasks, delay in seconds), an event is (group, message). `clock`
    gives the time (epoch seconds) by which tasks are due.
    Raises BrokerUnavailable, or PublishFailed if RabbitMQ returned or refused a message.
    """
    with _channel(url, names) as channel:
        for batch in batches:
            _publish(channel, names, *batch, clock)
        for event in events:
            _push(channel, names, *event)


def _publish(
    channel: BlockingChannel,
    names: Names,
    backend: str,
    shard: int,
    tasks: Sequence[Task],
    delay: float,
    clock: Callable[[], float],
) -> None:
    for start in range(0, len(tasks), MAX_TASKS):
        some, now = tasks[start : start + MAX_TASKS], clock()
        exchange, key, expiration = route(
            names, backend, shard, delay, min(task.due for task in some) - now
        )
        about = properties(some, now, names.installation())
        if expiration is not None:
            about["expiration"] = str(int(expiration * 1000))
        channel.basic_publish(
            exchange, key, encode(some), pika.BasicProperties(**about), mandatory=True
        )


def _push(channel: BlockingChannel, names: Names, group: str, message: Mapping[str, Any]) -> None:
    body = serialize_message(GroupRecipient(group), dict(message))
    channel.basic_publish(names.groups, group, body)


@contextmanager
def _channel(url: str, names: Names) -> Iterator[BlockingChannel]:
    address = read(url)
    where = f"RabbitMQ at {address.place}"
    parameters = pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.user, address.password),
    )
    if context := tls_of(url):
        parameters.ssl_options = pika.SSLOptions(context, address.host)
    parameters.socket_timeout = parameters.stack_timeout = TIMEOUT
    parameters.blocked_connection_timeout = TIMEOUT
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": names.label("publish")}
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, AMQPConnectorException, OSError) as error:
        raise BrokerUnavailable(f"cannot connect to {where}: {_words(error)}") from error
    mended_pika.limit(connection, TIMEOUT)
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel
    except UnroutableError as error:
        raise PublishFailed(
            f"{where} has no queue for {error.messages[0].method.routing_key}"
        ) from error
    except (NackError, AMQPChannelError) as error:
        raise PublishFailed(f"{where} refused a message: {error}") from error
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(f"lost {where}: {_words(error)}") from error
    finally:
        if connection.is_open:
            with suppress(AMQPError, OSError):  # what was confirmed stays confirmed
                connection.close()


def _words(error: BaseException) -> str:
    """The reason of a failure. pika wraps that of a refused TCP connection in two other errors."""
    inner = getattr(error.args[0], "exception", None) if error.args else None
    return words(inner or error)
