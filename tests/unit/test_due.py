"""When tasks are given to the worker: never early, and together if they belong together."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import pytest

from progrock.broker.due import DueTasks
from progrock.broker.errors import PublishFailed
from progrock.broker.lanes import TOGETHER
from progrock.broker.names import NAMES
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task
from tests.services import PATIENCE

QUEUE = NAMES.poll_queue("render", 0)


class Outside:
    """Stands for the publisher, and notes what is acked and what shall be delivered again."""

    def __init__(self) -> None:
        self.published: list[tuple[list[Task], float]] = []
        self.acked: list[int] = []
        self.restarts: list[str] = []
        self.failure: Exception | None = None

    async def publish(
        self, backend: str, shard: int, tasks: Sequence[Task], *, delay: float
    ) -> None:
        assert (backend, shard) == ("render", 0)
        if self.failure:
            raise self.failure
        self.published.append((list(tasks), delay))


@dataclass(kw_only=True)
class Delivered:
    """A delivery, as `Delivery` is; `tag` is its number."""

    queue: str
    backend: str
    shard: int
    tasks: list[Task]
    deliveries: int
    outside: Outside
    tag: int

    async def ack(self) -> None:
        self.outside.acked.append(self.tag)

    def redeliver(self, reason: str) -> None:
        self.outside.restarts.append(reason)


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def due(outside: Outside) -> DueTasks:
    return DueTasks(cast(Publisher, outside))


def delivery(
    outside: Outside, *dues: float, tag: int = 1, deliveries: int = 0, again: bool = False
) -> Any:
    return Delivered(
        queue=QUEUE,
        backend="render",
        shard=0,
        tasks=[Task(str(uuid4()), 1, due, again) for due in dues],
        deliveries=deliveries,
        outside=outside,
        tag=tag,
    )


async def until(true: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0)


async def test_take_gives_all_that_is_due_up_to_the_cap_and_at_least_one_message(
    due: DueTasks, outside: Outside
) -> None:
    for _ in range(5):
        due.add(delivery(outside, *[time.time()] * 60))
    assert [len(part.tasks) for part in await due.take(QUEUE)] == [60, 60, 60]
    assert [len(part.tasks) for part in await due.take(QUEUE, cap=10)] == [60]
    assert [len(part.tasks) for part in await due.take(QUEUE, cap=10)] == [60]


async def test_a_task_is_waited_for_until_it_is_due(due: DueTasks, outside: Outside) -> None:
    when = time.time() + 0.05
    due.add(delivery(outside, when))
    [part] = await asyncio.wait_for(due.take(QUEUE), PATIENCE)
    assert time.time() >= when
    assert [task.due for task in part.tasks] == [when]
    assert not outside.published


async def test_tasks_that_are_due_almost_at_once_are_given_together_when_the_last_is_due(
    due: DueTasks, outside: Outside
) -> None:
    first = time.time() + 0.03
    dues = [first, first + TOGETHER / 2, first + 0.04]
    due.add(delivery(outside, *dues))
    [part] = await asyncio.wait_for(due.take(QUEUE), PATIENCE)
    assert time.time() >= dues[1]
    assert [task.due for task in part.tasks] == dues[:2]
    [last] = await asyncio.wait_for(due.take(QUEUE), PATIENCE)
    assert time.time() >= dues[2]
    await part.ack()
    assert outside.acked == [], "a message is acked when all its parts are"
    await last.ack()
    assert outside.acked == [1]


async def test_early_tasks_go_on_to_the_next_lane_and_the_message_is_acked_after_that(
    due: DueTasks, outside: Outside
) -> None:
    now = time.time()
    due.add(delivery(outside, now + 1.5, now + 1.6, now + 60.5))
    await until(lambda: outside.acked)
    assert sorted(len(tasks) for tasks, _ in outside.published) == [1, 2]
    assert max(delay for _, delay in outside.published) == pytest.approx(60.5, abs=0.5)
    assert not outside.restarts


@pytest.mark.parametrize(
    ("deliveries", "again", "marked"),
    [(0, False, False), (1, False, True), (3, False, True), (0, True, True), (1, True, True)],
)
async def test_what_is_sent_on_from_a_message_that_came_before_is_marked(
    due: DueTasks, outside: Outside, deliveries: int, again: bool, marked: bool
) -> None:
    """It may have been sent on before, and then there are two. A mark is never taken off."""
    now = time.time()
    due.add(delivery(outside, now, now + 1.5, now + 60.5, deliveries=deliveries, again=again))
    await until(lambda: len(outside.published) == 2)
    assert {task.again for tasks, _ in outside.published for task in tasks} == {marked}
    [part] = await due.take(QUEUE)
    assert {task.again for task in part.tasks} == {again}, "what is due now is not sent on"
    assert part.deliveries == deliveries


async def test_a_message_whose_early_tasks_cannot_go_on_is_delivered_again(
    due: DueTasks, outside: Outside
) -> None:
    outside.failure = PublishFailed("no such lane")
    due.add(delivery(outside, time.time() + 1.5))
    await until(lambda: outside.restarts)
    assert outside.restarts == ["no such lane"]
    assert not outside.acked
