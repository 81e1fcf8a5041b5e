"""Gives the worker each task when it is due, and never before.

Early tasks are republished into their next lane. A rest that is shorter than the shortest lane is
waited for here.

Tasks of a message that was delivered before may have been sent on already. If they are sent on
once more, there are two of each, so the second gets `again=True`.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from progrock.broker.consumer import Delivery
from progrock.broker.errors import BrokerError
from progrock.broker.lanes import SHORTEST, TOGETHER, Lane, lane_for
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import MAX_TASKS, Task


@dataclass(slots=True)
class Due:
    """Tasks of one delivery that are due now. The delivery is acked when all its parts are."""

    tasks: list[Task]
    delivery: Delivery
    _open: list[int]  # one number, shared by all parts: how many are not acked yet

    @property
    def deliveries(self) -> int:
        """How often the message was delivered before."""
        return self.delivery.deliveries

    async def ack(self) -> None:
        """Say that these tasks are handled."""
        self._open[0] -= 1
        if self._open[0] == 0:
            await self.delivery.ack()


class DueTasks:
    """Stands between a Subscriber, which calls `add`, and the worker, which calls `take`.

    `clock` gives the time (epoch seconds) by which tasks are due.
    """

    def __init__(self, publisher: Publisher, *, clock: Callable[[], float] = time.time) -> None:
        self._publisher, self._clock = publisher, clock
        self._due: dict[str, deque[Due]] = defaultdict(deque)
        self._arrival: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._sending: set[asyncio.Task[None]] = set()

    def add(self, delivery: Delivery) -> None:
        """Cut a delivery into parts by when its tasks are due, and send the early ones on."""
        now = self._clock()
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
            self._wait(Due(tasks, delivery, still_open))
        if early:
            sending = asyncio.create_task(self._send_on(Due(early, delivery, still_open)))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)

    async def take(self, queue: str, cap: int = MAX_TASKS) -> list[Due]:
        """Wait until tasks of a queue are due; return all that are due, up to `cap` tasks in sum.

        The first part is returned even if it is larger than `cap`.
        """
        due = self._due[queue]
        while not due:
            self._arrival[queue].clear()
            await self._arrival[queue].wait()
        taken = [due.popleft()]
        room = cap - len(taken[0].tasks)
        while due and (room := room - len(due[0].tasks)) >= 0:
            taken.append(due.popleft())
        return taken

    def _wait(self, part: Due) -> None:
        left = part.tasks[-1].due - self._clock()
        if left > 0:
            asyncio.get_running_loop().call_later(left, self._wait, part)
        else:
            queue = part.delivery.queue
            self._due[queue].append(part)
            self._arrival[queue].set()

    async def _send_on(self, part: Due) -> None:
        backend, shard, early = part.delivery.backend, part.delivery.shard, part.tasks
        if part.deliveries:
            early = [task._replace(again=True) for task in early]
        try:
            async with asyncio.TaskGroup() as group:
                for delay, tasks in _by_lane(early, self._clock()):
                    group.create_task(self._publisher.publish(backend, shard, tasks, delay=delay))
        except* BrokerError as errors:
            part.delivery.redeliver(str(errors.exceptions[0]))
        else:
            await part.ack()


def _by_lane(tasks: Iterable[Task], now: float) -> Iterable[tuple[float, list[Task]]]:
    """The tasks by the next lane of each, with the shortest delay of each group."""
    groups: dict[Lane | None, list[Task]] = defaultdict(list)
    for task in tasks:
        groups[lane_for(task.due - now)].append(task)
    return [(min(task.due for task in group) - now, group) for group in groups.values()]
