"""Gives tasks when they are due and never before: what is early goes on to the next lane, or is slept out below the shortest."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from progrock.broker.errors import BrokerError
from progrock.broker.lanes import SHORTEST, TOGETHER, Lane, lane_for
from progrock.broker.publisher import Publisher
from progrock.broker.subscriber import Delivery, Subscriber
from progrock.broker.tasks import MAX_TASKS, Task


@dataclass(slots=True)
class Due:
    """Tasks of one delivery that are due now. The delivery is acked when all its parts are."""

    tasks: list[Task]
    delivery: Delivery
    _open: list[int]

    @property
    def deliveries(self) -> int:
        """How often the message was delivered before."""
        return self.delivery.deliveries

    async def ack(self) -> None:
        """Handled."""
        self._open[0] -= 1
        if self._open[0] == 0:
            await self.delivery.ack()


class Holding:
    """Stands between a Subscriber and whoever works on its tasks; `hold` runs for each queue, `take` gives what is due."""

    def __init__(self, subscriber: Subscriber, publisher: Publisher) -> None:
        self._subscriber, self._publisher = subscriber, publisher
        self._due: dict[str, deque[Due]] = defaultdict(deque)
        self._arrival: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._sending: set[asyncio.Task[None]] = set()

    async def hold(self, queue: str) -> None:
        """Take deliveries of a queue until the subscriber stops taking."""
        while deliveries := await self._subscriber.take(queue):
            for delivery in deliveries:
                self._sort(queue, delivery)

    async def take(self, queue: str, cap: int = MAX_TASKS) -> list[Due]:
        """Waits until something is due, then gives all that is, up to `cap` tasks in sum (one part at least)."""
        due = self._due[queue]
        while not due:
            self._arrival[queue].clear()
            await self._arrival[queue].wait()
        taken = [due.popleft()]
        room = cap - len(taken[0].tasks)
        while due and (room := room - len(due[0].tasks)) >= 0:
            taken.append(due.popleft())
        return taken

    def _sort(self, queue: str, delivery: Delivery) -> None:
        """Cut a delivery into parts by when its tasks are due."""
        now = time.time()
        early = [task for task in delivery.tasks if task.due - now >= SHORTEST]
        parts: list[list[Task]] = []
        for task in sorted(
            (task for task in delivery.tasks if task.due - now < SHORTEST),
            key=lambda task: task.due,
        ):
            if parts and task.due - max(parts[-1][0].due, now) < TOGETHER:
                parts[-1].append(task)
            else:
                parts.append([task])
        still_open = [len(parts) + bool(early)]
        for tasks in parts:
            self._wait(queue, Due(tasks, delivery, still_open))
        if early:
            sending = asyncio.create_task(self._send_on(Due(early, delivery, still_open)))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    def _wait(self, queue: str, part: Due) -> None:
        left = part.tasks[-1].due - time.time()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._wait, queue, part)
        else:
            self._due[queue].append(part)
            self._arrival[queue].set()

    async def _send_on(self, part: Due) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for delay, tasks in _by_lane(part.tasks):
                    group.create_task(
                        self._publisher.publish(
                            part.delivery.backend, part.delivery.shard, tasks, delay=delay
                        )
                    )
        except* BrokerError as errors:
            self._subscriber.restart(str(errors.exceptions[0]))
        else:
            await part.ack()


def _by_lane(tasks: Iterable[Task]) -> Iterable[tuple[float, list[Task]]]:
    """The tasks by the next lane of each, with the shortest delay of each group."""
    now = time.time()
    groups: dict[Lane | None, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[lane_for(task.due - now)].append(task)
    return [(min(task.due for task in group) - now, group) for group in groups.values()]
