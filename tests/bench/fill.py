"""Makes jobs for the bench in the environment of a stack: rows in the ledger, tasks in RabbitMQ."""

import argparse
import asyncio
import os
import random
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import django

from tests.bench.tables import MOVING, STILL, news_below

COLUMNS = (
    "id, audience, backend, bucket, params, handle, state, message, error, version, turn, due_at, "
    "due_slot, cancel_requested, attempts, crashes, sweeps, deadline_at, created_at, changed_at"
)


def main() -> None:
    """Make the jobs, and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("jobs", type=int)
    parser.add_argument("--backend", default="noop")
    parser.add_argument("--params", default=STILL, help="of each job, as JSON")
    parser.add_argument(
        "--moving",
        type=float,
        default=0,
        help="which part of the jobs has other params, with a progress that moves at the demo"
        " backend; from 0 to 1",
    )
    parser.add_argument("--audiences", type=int, default=1000)
    parser.add_argument("--audience", default="bench:{}", help="its name; {} is its number")
    parser.add_argument(
        "--starts",
        type=float,
        default=0,
        help="make so many queued jobs a second, one by one; 0: running jobs in bulk",
    )
    parser.add_argument(
        "--queued",
        action="store_true",
        help="make queued jobs in bulk, which the backend is still to start",
    )
    parser.add_argument(
        "--at", type=float, default=0, help="let all be due at this time (seconds since the epoch)"
    )
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    begun = time.time()
    asyncio.run(fill(options))
    print(f"{options.jobs} jobs in {time.time() - begun:.1f} s")


async def fill(options: argparse.Namespace) -> None:
    """Insert the rows of some jobs, then publish their tasks, until all are made."""
    from asgiref.sync import sync_to_async

    from progrock import conf
    from progrock.broker.publisher import Publisher
    from progrock.broker.tasks import MAX_TASKS, Task

    backend, moving = conf.backends()[options.backend], news_below(options.moving)
    # Such as the leases of jobs that have run for a while: they end at any time. A checkout that
    # `pair` runs may know of no leases. Jobs that are all due at one time have none.
    lease = 0.0 if options.at else getattr(backend, "lease", 0.0)
    jobs = [str(uuid.uuid4()) for _ in range(options.jobs)]
    publisher = Publisher(conf.amqp_url(), "bench", gather=0.0)
    publisher.start()
    while not publisher.connected:  # The first publish would wait no longer than two seconds.
        await asyncio.sleep(0.05)
    shards: dict[int, list[int]] = defaultdict(list)
    for n, job in enumerate(jobs):
        shards[int(job[-4:], 16) % backend.shards].append(n)
    if options.starts:
        gap, begun = 1 / options.starts, time.time()
        state, dues = "queued", [begun + 3600.0] * len(jobs)
    else:
        state, dues = "queued" if options.queued else "running", [0.0] * len(jobs)
    parts = [
        (shard, each[i : i + MAX_TASKS])
        for shard, each in shards.items()
        for i in range(0, len(each), MAX_TASKS)
    ]
    random.shuffle(parts)
    chunks: list[tuple[int, list[int]]] = [
        (0, list(range(i, min(i + 500, len(jobs))))) for i in range(0, len(jobs), 500)
    ]
    for shard, part in chunks if options.starts else parts:
        due = options.at or time.time() + backend.interval * random.uniform(0.2, 1.2)
        if not options.starts:
            for n in part:
                dues[n] = due + random.uniform(0.0, lease)
        rows = []
        for n in part:
            audience = options.audience.format(n % options.audiences)
            params = MOVING if jobs[n] < moving else options.params
            rows.append(row(jobs[n], audience, options.backend, state, dues[n], params))
        await sync_to_async(insert)(rows)
        if not options.starts:
            tasks = [Task(jobs[n], 1, due) for n in part]
            await publisher.publish(
                options.backend, shard, tasks, delay=max(0.0, due - time.time())
            )
    if options.starts:
        begun = time.time()
        async with asyncio.TaskGroup() as group:
            for n, job in enumerate(jobs):
                await asyncio.sleep(max(0.0, begun + n * gap - time.time()))
                task = Task(job, 1, time.time())
                shard = int(job[-4:], 16) % backend.shards
                group.create_task(publisher.publish(options.backend, shard, [task], delay=0.0))
    await publisher.close()


def row(
    job: str, audience: str, backend: str, state: str, due: float, params: str = STILL
) -> tuple[Any, ...]:
    """The columns of one job's row."""
    now = datetime.now(UTC)
    when = datetime.fromtimestamp(due, UTC)
    deadline = datetime.fromtimestamp(due + 100_000, UTC)
    handle = job if state == "running" else ""
    ready = (job, audience, backend, int(job[-4:], 16), params, handle, state, "", "", 1, 1)
    return (*ready, when, int(due // 5), False, 0, 0, 0, deadline, now, now)


def insert(rows: list[tuple[Any, ...]]) -> None:
    """Insert some hundred rows in one transaction, so that workers can write in between."""
    from django.db import connection, transaction

    sqlite = connection.vendor == "sqlite"
    if sqlite:  # As Django's own fields would write it.
        rows = [tuple(_plain(n, value) for n, value in enumerate(each)) for each in rows]
    marks = ", ".join(["%s"] * len(rows[0]))
    with transaction.atomic(), connection.cursor() as cursor:
        if sqlite:
            cursor.executemany(f"INSERT INTO progrock_job ({COLUMNS}) VALUES ({marks})", rows)
        else:
            with cursor.copy(f"COPY progrock_job ({COLUMNS}) FROM STDIN") as copy:
                for each in rows:
                    copy.write_row(each)


def _plain(n: int, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return str(value).replace("-", "") if n == 0 else value


if __name__ == "__main__":
    main()
