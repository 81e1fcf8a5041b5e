"""Sends to RabbitMQ what follows a start or a cancel in a web process. No socket waits for it.

Tasks are published at once. Those that RabbitMQ does not take are kept and tried again each second.
If this process ends before that, a worker's sweep finds their jobs.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from progrock import dispatch
from progrock.broker.errors import BrokerError
from progrock.broker.publisher import Publisher
from progrock.dispatch import Message, Outbound

logger = logging.getLogger(__name__)

#: Seconds between two tries.
AGAIN = 1.0
#: So many messages are kept. Beyond that the sweep alone brings the jobs back.
MOST_UNPUBLISHED = 1000


class Outgoing:
    """Publishes and pushes in background tasks; `run` publishes again what could not leave."""

    def __init__(self, publisher: Publisher, layer: Any) -> None:
        self.publisher = publisher
        self.layer = layer
        self._unpublished: dict[tuple[str, ...], Message] = {}  # by the ids of its jobs
        self._running: set[asyncio.Task[None]] = set()

    def send(self, outbound: Outbound) -> None:
        """Publish tasks and push changes. Returns at once."""
        # Separately, because the tasks must leave even when the push hangs.
        for message in outbound.messages:
            self.later(self._publish(message))
        self.later(dispatch.push(self.layer, outbound.feeds))

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a background task, and log its failure."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, OSError | RuntimeError):  # these two: a socket has gone
            logger.error("a background task of the web process failed", exc_info=error)

    async def run(self) -> None:
        """Each second try again what could not be published."""
        while True:
            await asyncio.sleep(AGAIN)
            try:
                if self._unpublished and self.publisher.connected:
                    await self._publish_again()
            except Exception:  # the loop lives on: without it tasks would wait for a sweep
                logger.exception("tasks could not be published again")

    async def _publish_again(self) -> None:
        """Publish what is kept. A task published twice does no harm, for the second is stale."""
        messages = list(self._unpublished.values())
        self._unpublished.clear()
        await asyncio.gather(*map(self._publish, messages))

    async def _publish(self, message: Message) -> None:
        try:
            await dispatch.publish(self.publisher, [message])
        except BrokerError as error:
            if not self._unpublished:
                logger.warning(
                    "jobs are kept in the ledger while their tasks cannot be published: %s", error
                )
            if len(self._unpublished) < MOST_UNPUBLISHED:
                self._unpublished[tuple(task.job_id for task in message.tasks)] = message
