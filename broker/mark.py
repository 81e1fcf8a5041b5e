"""Marks the names of a prefix as one installation's, so that a second one is told.

The mark is an exchange that nobody uses. RabbitMQ compares its alternate exchange, which bears the
id, at each declaration. The alternate exchange exists as well, so a user who may declare nothing
can still find it. A third exchange tells the first installation that there was another one.
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
    """Mark these names as ours where nobody has, if this user may `declare`.

    Returns a sentence for operators where somebody else has, and "" where they are ours. Raises
    BrokerUnavailable.
    """
    if not names.installation():
        return ""
    async with translated("cannot ask whose the names in RabbitMQ are"):
        ours = await (_declared if declare else _found)(connection, names)
    return "" if ours else others(names)


def others(names: Names, whose: str = "") -> str:
    """The sentence where another installation, of the id `whose`, has the same names."""
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
    except ChannelAccessRefused:  # this user may declare other things, as of an older release
        return await _found(connection, names)
    await channel.close()
    return True


async def _found(connection: AbstractConnection, names: Names) -> bool:
    """Whether our own mark is there, or none at all, as far as this user may know."""
    return await _exists(connection, names.own_mark) or not await _exists(connection, names.mark)


async def _exists(connection: AbstractConnection, name: str) -> bool:
    """Publish a message, which nobody gets: to ask for an exchange needs more rights on 4.3."""
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
