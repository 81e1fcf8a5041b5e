"""How long it takes until a change at the backend is on the page.

    python -m tests.bench.change --changes 60

All is real: backend, worker, RabbitMQ, web process, socket. It prints the median and the 90th
percentile; the poll interval is part of both.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

from tests.services import DemoBackend, Stack, http, private_broker
from tests.visitor import browse

INTERVAL = 1.0


async def measure(stack: Stack, backend: DemoBackend, changes: int) -> list[float]:
    """Seconds from each change at the backend to the frame that shows it."""
    found = []
    async with browse(stack) as visitor:
        job_id = (await visitor.start("render", seconds=3600))["job"]
        await visitor.until(lambda f: f.get("state") == "running" and f["progress"] is not None)
        task = f"{backend.url}/_test/tasks/{stack.handle(job_id)}"
        for n in range(changes):
            await asyncio.sleep(random.uniform(0.2, 1.2))
            stage = f"change {n}"
            began = time.monotonic()
            await asyncio.to_thread(http, "POST", task, {"stage": stage})
            await visitor.until(lambda f, stage=stage: f.get("message") == stage)
            found.append(time.monotonic() - began)
    return found


def main() -> None:
    """Start all processes, measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--changes", type=int, default=60)
    changes = parser.parse_args().changes
    with (
        tempfile.TemporaryDirectory() as folder,
        private_broker(Path(folder) / "rabbitmq") as broker,
    ):
        backend = DemoBackend(Path(folder))
        try:
            backend.start()
            with Stack(Path(folder) / "stack", broker, backend_url=backend.url) as stack:
                stack.prepare()
                stack.start_worker()
                stack.start_web()
                found = asyncio.run(measure(stack, backend, changes))
        finally:
            backend.stop()
    cuts = statistics.quantiles(found, n=10)
    middle, late = statistics.median(found) * 1e3, cuts[8] * 1e3
    print(f"a change at the backend is on the page after {middle:.0f} ms (median),")
    print(f"{late:.0f} ms (90th percentile), of {len(found)} changes;")
    print(f"the poll interval is {INTERVAL * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
