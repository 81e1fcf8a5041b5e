"""Ten thousand waiting jobs: they are some dozens of messages, and take no memory of a worker."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from progrock.broker.tasks import MAX_TASKS
from tests.services import Stack

#: So many messages the jobs are where all messages are full.
FULL = 10_000 // MAX_TASKS
START = """
import time, uuid, datetime
from progrock.broker import blocking
blocking.TIMEOUT = 120.0  # It waits for all confirms, one after another.
from progrock.broker.tasks import Task, shard_of
from progrock import conf
from progrock.models import Job
now = datetime.datetime.now(datetime.UTC)
ids = [uuid.uuid4() for _ in range(10_000)]
Job.objects.bulk_create(
    Job(
        id=i, bucket=int(str(i)[-4:], 16), audience="user:1", backend="patient", state="running",
        handle=str(i), due_at=now, deadline_at=now + datetime.timedelta(days=1),
    )
    for i in ids
)
for shard in range(2):
    mine = [Task(str(i), 1, now.timestamp()) for i in ids if shard_of(str(i), 2) == shard]
    blocking.send(conf.amqp_url(), [("patient", shard, mine, 0.0)], [])
"""


def test_ten_thousand_waiting_jobs_are_some_dozens_of_messages_and_no_memory(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    backends = tmp_path / "backends.toml"
    backends.write_text(
        '[patient]\nclass = "tests.patient.Patient"\nbrowser = true\nshards = 2\ndeadline = 86400\n'
    )
    with stack(workers=1, web=False, backends=backends) as up:
        process = up.workers()[0]
        worker = psutil.Process(process.pid)
        until = time.monotonic() + 60
        # After this it has imported all that it needs.
        while process.output().count("connected to RabbitMQ") < 2:
            assert time.monotonic() < until, up.logs()
            time.sleep(0.1)
        before = worker.memory_info().rss
        up.shell(START)
        lane = f"{up.vhost}/progrock.delay.11-10min"
        until = time.monotonic() + 120
        waiting: dict[str, int] = {}  # The management API leaves out what it has not counted yet.
        while not (
            waiting.get("message_bytes", 0) >= 10_000 * 90
            and FULL <= waiting.get("messages", 0) <= 2 * FULL
        ):
            assert time.monotonic() < until, f"{waiting} wait\n{up.logs()}"
            time.sleep(0.5)
            waiting = up.broker.api("GET", f"queues/{lane}")
        assert worker.memory_info().rss - before < 40_000_000
        assert "render" not in up.manage("status").stdout
