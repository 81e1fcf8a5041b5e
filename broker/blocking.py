"""The synchronous edge, for Django's synchronous side: connect, publish, confirm, close (8 ms), by pika."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pika
from channels_rabbitmq.util import GroupRecipient, serialize_message
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    AMQPChannelError,
    AMQPError,
    AMQPHeartbeatTimeout,
    NackError,
    UnroutableError,
)

from progrock.broker.connection import label, place, tls_of
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.tasks import MAX_TASKS, Task, encode, properties
from progrock.broker.topology import GROUPS, route

TIMEOUT = 4.0  # seconds to connect in, and again for all the rest


def publish_tasks(
    url: str, backend: str, shard: int, tasks: Sequence[Task], *, delay: float = 0.0
) -> None:
    """Sends tasks of one shard on their way, all with the same decided delay (seconds); returns when confirmed.

    Raises BrokerUnavailable, or PublishFailed when RabbitMQ returned or refused a message.
    """
    with _channel(url) as channel:
        _publish(channel, backend, shard, tasks, delay)


def group_send(url: str, group: str, message: Mapping[str, Any]) -> None:
    """Sends a message to a Channels group as the channel layer would; a group without members is fine.

    Raises BrokerUnavailable, or PublishFailed when a receiver's queue is full.
    """
    with _channel(url) as channel:
        _send(channel, group, message)


def send(
    url: str,
    batches: Iterable[tuple[str, int, Sequence[Task], float]],
    events: Iterable[tuple[str, Mapping[str, Any]]],
) -> None:
    """Sends both over one connection, the tasks first.

    A batch is (backend, shard, tasks, delay in seconds), an event is (group, message).
    Raises what `publish_tasks` and `group_send` raise.
    """
    with _channel(url) as channel:
        for batch in batches:
            _publish(channel, *batch)
        for event in events:
            _send(channel, *event)


def _publish(
    channel: BlockingChannel, backend: str, shard: int, tasks: Sequence[Task], delay: float
) -> None:
    for start in range(0, len(tasks), MAX_TASKS):
        some, now = tasks[start : start + MAX_TASKS], time.time()
        exchange, key, expiration = route(
            backend, shard, delay, min(task.due for task in some) - now
        )
        about = properties(some, now)
        if expiration is not None:
            about["expiration"] = str(int(expiration * 1000))
        channel.basic_publish(
            exchange, key, encode(some), pika.BasicProperties(**about), mandatory=True
        )


def _send(channel: BlockingChannel, group: str, message: Mapping[str, Any]) -> None:
    channel.basic_publish(GROUPS, group, serialize_message(GroupRecipient(group), dict(message)))


@contextmanager
def _channel(url: str) -> Iterator[BlockingChannel]:
    where = f"RabbitMQ at {place(url)}"
    parts = urlsplit(url)
    parameters = pika.URLParameters(
        parts._replace(query="").geturl()
    )  # pika stops at keys that it does not know
    if context := tls_of(url):
        parameters.ssl_options = pika.SSLOptions(context, parts.hostname)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = (
        TIMEOUT
    )
    parameters.connection_attempts = 1
    parameters.client_properties = {"connection_name": label("publish")}
    try:
        connection = pika.BlockingConnection(parameters)
    except (AMQPError, OSError) as error:
        raise BrokerUnavailable(
            f"cannot connect to {where}: {error or type(error).__name__}"
        ) from error
    # pika (1.4) waits without an end for an answer while heartbeats come, and has no public timer that ends this
    line = connection._impl
    line._adapter_call_later(
        TIMEOUT, lambda: line._terminate_stream(AMQPHeartbeatTimeout("no answer in time"))
    )
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
        raise BrokerUnavailable(f"lost {where}: {error or type(error).__name__}") from error
    finally:
        if connection.is_open:
            with suppress(AMQPError, OSError):  # what was confirmed stays confirmed
                connection.close()
