"""Projects in other time zones, on both databases: each time is the moment that it was.

Each runs in processes of their own, because Django reads these settings once.
"""

import asyncio
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.services import PATIENCE, Stack
from tests.visitor import browse

ZONES = {
    "naive in the west": "USE_TZ = False\nTIME_ZONE = 'America/New_York'",
    "naive in the east": "USE_TZ = False\nTIME_ZONE = 'Asia/Kolkata'",
    "a database in the west": "DATABASES['default']['TIME_ZONE'] = 'America/New_York'",
    "a database in the east": "TIME_ZONE = DATABASES['default']['TIME_ZONE'] = 'Asia/Kolkata'",
}
SCRIPT = """
import json, time
from datetime import UTC, datetime, timedelta
from django.utils import timezone
from progrock import attention, clock, ledger, start, wire
from progrock.lifecycle import Decision
from progrock.models import Job

def seconds(moment):
    return (moment if timezone.is_aware(moment) else timezone.make_aware(moment)).timestamp()

now = time.time()
job = start("once", {}, audience="user:1")
gone = start("once", {}, audience="user:2")
Job.objects.filter(pk=gone.pk).update(backend="gone")
again, row = Job.objects.get(pk=job.pk), ledger.load([str(job.pk)])[str(job.pk)]
frame = wire.job_frame(row)
found = {
    "due_at": seconds(job.due_at) - now,
    "due_at read": seconds(again.due_at) - now,
    "due_at in SQL": row.due_at - now,
    "created_at": seconds(again.created_at) - now,
    "changed_at": seconds(again.changed_at) - now,
    "deadline_at": seconds(again.deadline_at) - now - 3600,
    "deadline_at in SQL": row.deadline_at - now - 3600,
    "the frame": datetime.fromisoformat(frame["created"]).timestamp() - now,
    "filtered": Job.objects.filter(created_at__gte=clock.as_datetime(now - 60)).count() - 2,
    "filtered away": Job.objects.filter(created_at__gte=clock.as_datetime(now + 60)).count(),
    "ended": len(ledger.end_orphans(["once"], before=now + 75)),
    "swept": len(ledger.sweep("once", 0, 1, before=now, grace=10, now=now)),
    "late": ledger.late(["user:1"], ["once"], 10),
    "repaired": len(ledger.changed_since(["user:1"], 60)) - 1,
    "owed": len(ledger.claim_owed([], 1)),
    "old": len(ledger.old(0.01)),
}
ledger.sweep("once", 0, 1, before=now + 60, grace=10, now=now + 30)
found["swept due"] = ledger.load([str(job.pk)])[str(job.pk)].due_at - now - 30
waits = start("once", {}, audience="user:3")
row = ledger.load([str(waits.pk)])[str(waits.pk)]
for _ in range(2):  # the first one begins to count
    look = Decision(state="running", handle="h", progress=None, delay=7200.0, soon=60.0, free=60.0)
    ledger.commit([(row, look)], now)
found["unwatched"] = int(ledger.load([row.id], attention=True)[row.id].watched)
found["unwatched due"] = ledger.load([row.id])[row.id].due_at - now - 7200
[hastened] = attention.watch(["user:3"])
found["watched"] = ledger.load([row.id], attention=True)[row.id].watched - 1
found["watched due"] = hastened.row.due_at - now - 60
cancelled = ledger.request_cancel(str(job.pk), now)
found["ended at"] = datetime.fromisoformat(wire.job_frame(cancelled)["ended"]).timestamp() - now
from django.contrib.auth import get_user_model
from django.test import Client
client = Client(headers={"host": "localhost"})
client.force_login(get_user_model().objects.create_superuser("admin", password="only-for-tests"))
for page in ("", f"{job.pk}/change/", "?created_at__year=2026"):
    found[f"admin {page}"] = client.get(f"/admin/progrock/job/{page}").status_code - 200
found["behind the last"] = len(ledger.old(-1, ledger.old(-1)[-1]))
claimed = ledger.claim_owed([], -1)
found["owed after the end"] = len(claimed) - 1
naive = [type(each).__name__ for each in (again.due_at,) if timezone.is_naive(each)]
print("FOUND", json.dumps([found, bool(naive)]))
"""
TABLE = """
[once]
url = "${DEMO_BACKEND_URL}"
start = { path = "/tasks", headers = { Idempotency-Key = "{job}" } }
browser = true
poll = { path = "/tasks/{handle}" }
cancel = { path = "/tasks/{handle}" }
handle = "id"
state = "status"
states = { running = ["running"], succeeded = ["done"], cancelled = ["cancelled"] }
shards = 1
interval = 60.0
unwatched = 7200.0
"""


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
@pytest.mark.parametrize("zone", ZONES)
async def test_each_time_is_the_moment_that_it_was(
    stack: Callable[..., Stack], tmp_path: Path, zone: str, database: str
) -> None:
    (tmp_path / "zoned.py").write_text(f"from config.settings import *\n{ZONES[zone]}\n")
    backends = tmp_path / "backends.toml"
    backends.write_text(TABLE)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    env = {
        "DJANGO_SETTINGS_MODULE": "zoned",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with stack(workers=0, database=database, backends=backends, env=env) as up:
        text = await asyncio.to_thread(up.shell, SCRIPT)
        found, naive = json.loads(text.partition("FOUND ")[2])
        assert {name: off for name, off in found.items() if abs(off) > PATIENCE} == {}
        exact = ("filtered", "filtered away", "ended", "swept", "late", "repaired", "owed", "old")
        exact += ("unwatched", "watched")
        assert {
            name: found[name] for name in (*exact, "owed after the end", "behind the last")
        } == (dict.fromkeys((*exact, "owed after the end", "behind the last"), 0))
        assert naive is ("USE_TZ" in ZONES[zone])
        up.start_worker()
        async with browse(up) as visitor:
            job_id = (await visitor.start("once", seconds=600))["job"]
            running = await visitor.until(lambda f: f.get("state") == "running")
            await visitor.send({"action": "cancel", "job": job_id})
            ended = await visitor.ended(job_id, 30)  # a minute before the next poll
            assert ended["state"] == "cancelled"
            for text in (running["created"], ended["ended"]):
                told = datetime.fromisoformat(text)
                assert abs((datetime.now(UTC) - told).total_seconds()) < PATIENCE
        assert "Traceback" not in up.logs()
