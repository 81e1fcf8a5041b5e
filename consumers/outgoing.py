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
RETRY = 1.0
#: So many messages are kept. Beyond that the sweep alone brings the jobs back.
MOST_UNPUBLISHED = 1000


class Outgoing:
    """Publishes and pushes in background tasks; `run` publishes again what could not leave."""

    def __init__(self, publisher: Publisher, layer: Any) -> None:
        self.publisher = publisher
        self.layer = layer
        self._unpublished: dict[tuple[str, ...], Message] = {}  # by the ids of its jobs
        self._failing = False  # whether it was logged that tasks cannot be published
        self._running: set[asyncio.Task[None]] = set()

    def send(self, outbound: Outbound) -> None:
        """Publish tasks and push changes. Returns at once."""
        # In tasks of their own, because the messages must leave even if the push hangs.
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
        if not isinstance(error, OSError | RuntimeError):  # a closed socket raises one of these
            logger.error("a background task of the web process failed", exc_info=error)

    async def run(self) -> None:
        """Each second try again what could not be published."""
        while True:
            await asyncio.sleep(RETRY)
            try:
                if self._unpublished and self.publisher.connected:
                    await self._publish_again()
            except Exception:  # the loop must go on, else tasks wait for a sweep
                logger.exception("tasks could not be published again, and are tried once more")

    async def _publish_again(self) -> None:
        """Publish what is kept. A task that is published twice does no harm."""
        messages = list(self._unpublished.values())
        self._unpublished.clear()
        await asyncio.gather(*map(self._publish, messages))
        if not self._unpublished:
            self._failing = False
            logger.info("tasks can be published again")

    async def _publish(self, message: Message) -> None:
        try:
            await dispatch.publish(self.publisher, [message])
        except BrokerError as error:
            if not self._failing:
                logger.warning(
                    "jobs are kept in the ledger while their tasks cannot be published: %s", error
                )
            self._failing = True
            if len(self._unpublished) < MOST_UNPUBLISHED:
                self._unpublished[tuple(task.job_id for task in message.tasks)] = message
