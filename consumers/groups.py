"""Joins the groups of the channel layer in which changes reach this web process."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)

#: Seconds that a join waits for a connection to RabbitMQ.
JOIN = 2.0


class Groups:
    """The groups that this process has joined.

    The layer joins them again by itself after it has connected again.
    """

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._channel: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._joins: dict[str, asyncio.Task[None]] = {}

    async def open_channel(self) -> str:
        """Make the channel of this process that joins the groups. Returns its name."""
        channel: str = await self._layer.new_channel()
        self._channel.set_result(channel)
        return channel

    def joined(self, groups: Iterable[str]) -> bool:
        """Whether this process is in all of these groups."""
        joins = [self._joins.get(group) for group in groups]
        return all(join is not None and join.done() for join in joins)

    async def join(self, groups: Iterable[str]) -> None:
        """Join groups. If a join is under way already, wait for that one.

        Returns without an error when a group could not be joined in time. It is then not joined.
        """
        names = list(groups)
        for group in names:
            if group not in self._joins:
                self._joins[group] = asyncio.create_task(self._join(group))
        await asyncio.gather(*(asyncio.shield(self._joins[group]) for group in names))

    async def _join(self, group: str) -> None:
        try:
            async with asyncio.timeout(JOIN):
                await self._layer.group_add(group, await asyncio.shield(self._channel))
        except Exception as error:
            del self._joins[group]
            if not isinstance(error, TimeoutError):
                logger.exception(
                    "a group of the channel layer could not be joined, group=%s", group
                )
