"""Joins the feeds of a web process on the channel layer, and reads what arrives on them.

A feed is a group of the channel layer in which the changes of some audiences travel. All sockets of
the process share one channel.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from progrock import conf, installation
from progrock.audiences import feed_of
from progrock.consumers.database import AWAY, database
from progrock.sessions import SESSIONS

logger = logging.getLogger(__name__)

#: Seconds that a socket waits until its feeds are joined.
JOIN = 2.0


class Feeds:
    """The channel of this process, and the groups of `layer` that it is a member of.

    `handlers` has a function for each type of message.
    """

    def __init__(
        self, layer: Any, handlers: Mapping[str, Callable[[dict[str, Any]], Awaitable[None]]]
    ) -> None:
        self.layer, self._handlers = layer, handlers
        self._channel: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._groups: dict[str, asyncio.Task[None]] = {}
        self._epoch = 0
        self._ignores = False  # whether it was logged that another installation's pushes arrive

    # Other layers, such as the one in memory for tests, lack `connected`, `stalled` and `epoch`.

    @property
    def connected(self) -> bool:
        """Whether the layer has a connection to RabbitMQ."""
        return bool(getattr(self.layer, "connected", True))

    @property
    def live(self) -> bool:
        """Whether pushes come through: there is a connection, and RabbitMQ confirms pushes."""
        return self.connected and not getattr(self.layer, "stalled", False)

    async def run(self) -> None:
        """Hand each message that arrives to its handler."""
        channel = await self.layer.new_channel()
        self._channel.set_result(channel)
        await self._join(SESSIONS)
        while True:
            try:
                message = await self.layer.receive(channel)
            except Exception:  # the loop must go on, else no socket gets a change
                logger.exception("the channel layer could not be read, and is tried again")
                await asyncio.sleep(1)
                continue
            try:
                if reason := conf.names().why_not_ours(message):
                    self._ignore(reason)
                else:
                    await self._handlers[message["type"]](message)
            except Exception:  # the loop must go on, whatever another release sends
                logger.exception("a message on the feed could not be handled: %.200r", message)

    def joined(self, audiences: Iterable[str]) -> bool:
        """Whether changes for these audiences arrive here."""
        groups = (self._groups.get(feed_of(name)) for name in audiences)
        return all(task is not None and task.done() for task in groups)

    async def join(self, audiences: Iterable[str]) -> None:
        """Join the feeds of these audiences. While RabbitMQ is away, `rejoin` does it later."""
        if self.live:
            await self._join(*{feed_of(name) for name in audiences})

    async def rejoin(self, audiences: Iterable[str]) -> bool:
        """Join missing groups. Returns whether the layer has connected anew since the last call.

        What was pushed between two connections is lost.
        """
        if not self.connected:
            return False
        epoch = getattr(self.layer, "epoch", self._epoch)
        await self._join(*{*map(feed_of, audiences), SESSIONS})
        anew, self._epoch = epoch != self._epoch, epoch
        return anew

    async def _join(self, *groups: str) -> None:
        """Join groups. If a join is under way already, wait for that one.

        The layer joins them again by itself after it has connected again.
        """
        for group in groups:
            if group not in self._groups:
                self._groups[group] = asyncio.create_task(self._bind(group))
        await asyncio.gather(*(asyncio.shield(self._groups[group]) for group in groups))

    async def _bind(self, group: str) -> None:
        """Join a group. Wait some time for a connection, and then leave it to `rejoin`."""
        try:
            async with asyncio.timeout(JOIN):
                await self.layer.group_add(group, await asyncio.shield(self._channel))
        except Exception as error:
            del self._groups[group]
            if not isinstance(error, TimeoutError):
                logger.exception(
                    "a group of the channel layer could not be joined, group=%s", group
                )

    # Other installations

    async def read_installation(self) -> None:
        """Read the id of this installation, by which pushes of other installations are known."""
        while True:
            try:
                await database(installation.read)
            except AWAY:
                await asyncio.sleep(1)
            else:
                return

    def _ignore(self, reason: str) -> None:
        if not self._ignores:
            logger.error(
                "pushes on the channel layer are ignored: %s; give each installation a virtual"
                " host or a PROGROCK_PREFIX of its own",
                reason,
            )
        self._ignores = True
