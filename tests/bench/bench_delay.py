"""`make bench-delay`: how late tasks with mixed delays come on a real RabbitMQ.

It fails if one comes early.

Each task is published with a random delay and goes all its way as in a worker: from lane to lane,
and a rest that is shorter than the shortest lane is waited for. `AMQP_URL` names a RabbitMQ;
without it a private node is started.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

from deploy.demo.rabbitmq_node import Node, free_port
from progrock.broker import publisher, subscriber
from progrock.broker.due import DueTasks
from progrock.broker.tasks import Task, shard_of
from progrock.broker.topology import Topology, declare

BACKEND = "bench-delay"
BANDS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class _Counting(publisher.Publisher):
    """Counts the messages that it sends."""

    messages = 0

    async def _send(
        self, exchange: str, routing_key: str, body: bytes, about: dict[str, object]
    ) -> None:
        type(self).messages += 1
        await super()._send(exchange, routing_key, body, about)


async def measure(url: str, options: argparse.Namespace) -> list[tuple[float, float]]:
    """The delay and the lateness of each task, in seconds."""
    topology = Topology({BACKEND: options.shards})
    await declare(url, topology)
    sender, worker = _Counting(url, "bench"), _Counting(url, "bench worker")
    due = DueTasks(worker)
    consumer = subscriber.Subscriber(url, "bench", topology.poll_queues, worker, due.add)
    delays: dict[str, float] = {}
    came: list[tuple[float, float]] = []
    wanted = int(options.rate * options.seconds)
    all_here = asyncio.Event()

    async def serve(queue: str) -> None:
        while True:
            for part in await due.take(queue):
                now = time.time()
                came.extend((delays.pop(task.job_id, -1.0), now - task.due) for task in part.tasks)
                await part.ack()
            if len(came) >= wanted:
                all_here.set()

    running = [asyncio.create_task(consumer.run())]
    running += [asyncio.create_task(serve(queue)) for queue in topology.poll_queues]
    sender.start()
    worker.start()
    while not (consumer.connected and sender.connected and worker.connected):
        await asyncio.sleep(0.01)
    async with asyncio.TaskGroup() as group:
        start = time.time()
        for number in range(wanted):
            await asyncio.sleep(start + number / options.rate - time.time())
            delay = random.uniform(options.shortest, options.longest)
            task = Task(str(uuid4()), 1, time.time() + delay)
            delays[task.job_id] = delay
            shard = shard_of(task.job_id, options.shards)
            group.create_task(sender.publish(BACKEND, shard, [task], delay=delay))
    async with asyncio.timeout(options.longest + 30):
        await all_here.wait()
    await consumer.close()
    for task_ in running:
        task_.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await sender.close()
    await worker.close()
    return came


def report(came: list[tuple[float, float]], seconds: float) -> int:
    """Print the table; returns how many tasks came early."""
    print(f"{'delay (s)':>12} {'tasks':>7}", end=" ")
    print(f"{'median':>8} {'p99':>8} {'max':>8} {'early':>6}   (late, in ms)")

    def line(name: str, late: list[float]) -> None:
        if late:
            p99 = quantiles(late, n=100, method="inclusive")[-1] if len(late) > 1 else late[0]
            figures = (f"{1000 * value:8.2f}" for value in (median(late), p99, max(late)))
            early = sum(value < 0 for value in late)
            print(f"{name:>12} {len(late):7} {' '.join(figures)} {early:6}")

    for low, high in zip(BANDS, (*BANDS[1:], float("inf")), strict=True):
        line(f"{low:g}-{high:g}", [late for delay, late in came if low <= delay < high])
    line("all", [late for _, late in came])
    messages = _Counting.messages
    each = messages / len(came)
    print(f"{len(came)} tasks, {messages} messages: {each:.2f} messages a cycle", end=", ")
    print(f"{len(came) / seconds:.0f}/s")
    return sum(late < 0 for _, late in came)


def main() -> int:
    """Measure, print, and return 1 if a task came early."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=300, help="tasks a second (300)")
    parser.add_argument("--seconds", type=float, default=20, help="how long to publish (20)")
    parser.add_argument("--shortest", type=float, default=0.0, help="shortest delay (0)")
    parser.add_argument("--longest", type=float, default=5.0, help="longest delay (5)")
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()
    url = os.environ.get("AMQP_URL")
    if url:
        came = asyncio.run(measure(url, options))
    else:
        with (
            tempfile.TemporaryDirectory(prefix="progrock-bench-") as folder,
            Node(Path(folder), amqp_port=free_port(), management_port=free_port()) as node,
        ):
            came = asyncio.run(measure(node.amqp_url, options))
    return 1 if report(came, options.seconds) else 0


if __name__ == "__main__":
    sys.exit(main())
