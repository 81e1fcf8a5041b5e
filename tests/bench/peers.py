"""The peers: Celery tasks that poll, and schedule themselves again in a second.

`BENCH_PEER` names one of the ways that Celery's docs offer:

- eta: the worker holds the countdown, on a classic queue;
- native: delayed delivery, on quorum queues;
- requests: like eta, with one GET a job by requests.

All have durable queues, persistent messages, publisher confirms, late acks, and store no results.
"""

import argparse
import os
import random
import time
from pathlib import Path
from typing import Any

import requests
from celery import Celery

from tests.bench.worker import RECORD

KIND = os.environ.get("BENCH_PEER", "eta")
INTERVAL = 1.0

app = Celery("peers", broker=os.environ.get("AMQP_URL", ""))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    task_default_queue="peer",
    task_default_exchange_type="topic",  # Native delayed delivery needs it.
    task_default_queue_type="quorum" if KIND == "native" else "classic",
    worker_detect_quorum_queues=True,
    broker_native_delayed_delivery_queue_type="quorum",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    # https://docs.celeryq.dev/en/stable/userguide/optimizing.html: short tasks should have a larger
    # prefetch than the default of 4.
    worker_prefetch_multiplier=64,
)
_session = requests.Session()
_session.trust_env = False
_records: dict[int, Any] = {}


def note(due: float) -> None:
    """Write how late a task is into the record of this process."""
    now = time.time()
    pid = os.getpid()
    if pid not in _records:
        path = Path(os.environ["BENCH_RECORDS"]) / f"{KIND}-{pid}.record"
        _records[pid] = [path.open("ab", buffering=1 << 20), now]
    file, flushed = _records[pid]
    file.write(RECORD.pack(now, now - due, now - due, 1))
    if now - flushed > 0.25:
        file.flush()
        _records[pid][1] = now


# Celery has no types.
@app.task(name="look", acks_late=True)  # type: ignore[untyped-decorator, unused-ignore, misc]
def look(due: float, handle: str = "") -> None:
    """One poll cycle: poll the job, and schedule the next cycle in a second."""
    note(due)
    if handle:
        _session.get(f"{os.environ['DEMO_BACKEND_URL']}/tasks/{handle}", timeout=5).json()
    look.apply_async((time.time() + INTERVAL, handle), countdown=INTERVAL)


def main() -> None:
    """Begin as many chains of cycles as asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int)
    jobs = parser.parse_args().jobs
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(jobs):
            handle = ""
            if KIND == "requests":
                url = f"{os.environ['DEMO_BACKEND_URL']}/tasks"
                handle = _session.post(url, json={"seconds": 86400}, timeout=5).json()["id"]
            # Native delayed delivery takes no less than a second.
            countdown = random.uniform(INTERVAL, 2 * INTERVAL)
            first = (time.time() + countdown, handle)
            look.apply_async(first, countdown=countdown, producer=producer)


if __name__ == "__main__":
    main()
