"""Marks the names of a prefix as one installation's, so that a second installation learns of it.

The mark is an exchange through which nothing is sent. The name of its alternate exchange ends with
the installation's id, so RabbitMQ refuses to declare the mark with another id. The alternate
exchange exists as well, so that a user without the right to declare can ask whether it is there. A
third exchange says that a second installation was here.
"""

from aio_pika import Message
from aio_pika.abc import AbstractConnection
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from progrock.broker.connection import translated
from progrock.broker.names import Names

ALTERNATE = "alternate-exchange"


async def claim(connection: AbstractConnection, names: Names, *, declare: bool) -> str:
    """Mark these names as ours if nobody has marked them, and if this user may `declare`.

    Returns a sentence for operators if another installation has marked them, and "" if they are
    ours. Raises BrokerUnavailable.
    """
    if not names.installation():
        return ""
    async with translated("cannot ask whose the names in RabbitMQ are"):
        ours = await (_declared if declare else _found)(connection, names)
    return "" if ours else conflict(names)


def conflict(names: Names, whose: str = "") -> str:
    """The sentence for operators: another installation, whose id is `whose`, has the same names."""
    return (
        f"another installation{f' {whose!r}' if whose else ''}, with another database than ours"
        f" ({names.installation()!r}), has the prefix {names.prefix!r} in this virtual host of"
        " RabbitMQ as well. Each takes the other's tasks out of the queues, so polls are late. Give"
        " each a virtual host (AMQP_URL) or a PROGROCK_PREFIX of its own. If the other one is gone,"
        " `manage.py topology --prune --yes` makes the names ours"
    )


async def _declared(connection: AbstractConnection, names: Names) -> bool:
    channel = await connection.channel()
    try:
        await channel.declare_exchange(
            names.mark, "fanout", durable=True, arguments={ALTERNATE: names.own_mark}
        )
        await channel.declare_exchange(names.own_mark, "fanout", durable=True)
    except ChannelPreconditionFailed:
        channel = await connection.channel()
        await channel.declare_exchange(names.other_mark, "fanout", durable=True)
        await channel.close()
        return False
    except ChannelAccessRefused:  # this user has the rights of an older release, without the mark
        return await _found(connection, names)
    await channel.close()
    return True


async def _found(connection: AbstractConnection, names: Names) -> bool:
    """Whether our own mark is there, or no mark at all, as far as this user may know."""
    return await _exists(connection, names.own_mark) or not await _exists(connection, names.mark)


async def _exists(connection: AbstractConnection, name: str) -> bool:
    """Whether an exchange exists.

    Publishes a message, which nobody gets, because asking needs more rights on RabbitMQ 4.3.
    """
    channel = await connection.channel(publisher_confirms=True)
    exchange = await channel.get_exchange(name, ensure=False)
    try:
        await exchange.publish(Message(b""), "", mandatory=False)
    except (ChannelNotFoundEntity, ChannelAccessRefused):  # refused with rights of an older release
        return False
    await channel.close()
    return True


async def take_over(connection: AbstractConnection, names: Names, marks: list[str]) -> None:
    """Remove these marks of others, and mark the names as ours. Raises BrokerUnavailable."""
    async with translated("cannot mark the names in RabbitMQ as ours"):
        channel = await connection.channel()
        for name in marks:
            await channel.exchange_delete(name)
        await channel.close()
    await claim(connection, names, declare=True)
