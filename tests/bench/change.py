"""How long until a change at the backend is on the page: real backend, worker, RabbitMQ, web process and socket.

python -m tests.bench.change [--changes 60]: prints the median and the 90th percentile beyond the poll interval's own part.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from deploy.demo.rabbitmq_node import Node, free_port
from tests.services import Broker, DemoBackend, Stack, http
from tests.visitor import browse

INTERVAL = 1.0


async def measure(stack: Stack, backend: DemoBackend, changes: int) -> list[float]:
    """Seconds from each change at the backend to the frame that shows it."""
    found = []
    async with browse(stack) as visitor:
        job = (await visitor.start("render", seconds=3600))["job"]
        await visitor.until(lambda f: f.get("state") == "running" and f["progress"] is not None)
        code = f"from progrock.models import Job; print(Job.objects.get(pk='{job}').handle)"
        handle = stack.manage("shell", "--verbosity", "0", "-c", code).stdout.split()[-1]
        for n in range(changes):
            await asyncio.sleep(random.uniform(0.2, 1.2))
            stage = f"change {n}"
            began = time.monotonic()
            await asyncio.to_thread(
                http, "POST", f"{backend.url}/_test/tasks/{handle}", {"stage": stage}
            )
            await visitor.until(lambda f, stage=stage: f.get("message") == stage)
            found.append(time.monotonic() - began)
    return found


def main() -> None:
    """Start everything, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=60)
    changes = parser.parse_args().changes
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder) / "rabbitmq", amqp_port=free_port(), management_port=free_port())
        backend = DemoBackend(Path(folder))
        try:
            node.start()
            backend.start()
            broker = Broker(node.amqp_url, node.management_url, node)
            with Stack(Path(folder) / "stack", broker, backend_url=backend.url) as stack:
                stack.manage("migrate", "--verbosity", "0")
                stack.manage("topology", "--declare")
                stack.start_worker()
                stack.start_web()
                found = asyncio.run(measure(stack, backend, changes))
        finally:
            backend.stop()
            node.kill()
    cuts = statistics.quantiles(found, n=10)
    print(
        f"a change at the backend is on the page after {statistics.median(found) * 1e3:.0f} ms (median),"
    )
    print(
        f"{cuts[8] * 1e3:.0f} ms (90th percentile); the poll interval is {INTERVAL * 1e3:.0f} ms; changes={len(found)}"
    )


if __name__ == "__main__":
    main()
