"""Stands in for RabbitMQ in tests, where `AMQP_URL` is "memory://": what is sent goes nowhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from progrock.broker.address import MEMORY
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task


class Nowhere(Publisher):
    """A publisher that takes everything and sends nothing."""

    def __init__(self) -> None:
        super().__init__(MEMORY, "nowhere")

    @property
    def connected(self) -> bool:
        """True, so that nobody waits for a connection."""
        return True

    def start(self) -> None:
        """Do nothing, because there is nothing to connect to."""

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float, spread: float = 0.0
    ) -> None:
        """Drop the tasks."""

    async def dead_letter(self, body: bytes, reason: str, headers: Mapping[str, Any]) -> None:
        """Drop the message."""
