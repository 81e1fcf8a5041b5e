"""A host's own models point at jobs: when old jobs are deleted, their `on_delete` decides."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import Stack

MODELS = """
from django.db import models

class Note(models.Model):
    job = models.ForeignKey("progrock.Job", models.SET_NULL, null=True)

class Line(models.Model):
    job = models.ForeignKey("progrock.Job", models.CASCADE)

class Guard(models.Model):
    job = models.ForeignKey("progrock.Job", models.PROTECT)
"""
SCRIPT = """
import json, logging
from datetime import UTC, datetime, timedelta
from progrock import start
from progrock.consumers.retention import Retention
from progrock.models import Job
from shop.models import Guard, Line, Note
jobs = [start("render", {}, audience="user:1") for _ in range(4)]
then = datetime.now(UTC) - timedelta(days=99)
Job.objects.update(state="failed", ended_at=then, changed_at=then)
for model, job in zip((Note, Line, Guard), jobs):
    model.objects.create(job=job)
Retention().delete_old()
left = [jobs.index(job) for job in Job.objects.all()]
print("FOUND", json.dumps([left, Note.objects.get().job_id, Line.objects.count()]))
"""


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_projects_own_foreign_keys_do_what_their_on_delete_says(
    stack: Callable[..., Stack], tmp_path: Path, database: str
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "__init__.py").touch()
    (shop / "models.py").write_text(MODELS)
    (tmp_path / "of_a_host.py").write_text(
        "from config.settings import *\nINSTALLED_APPS = [*INSTALLED_APPS, 'shop']\n"
    )
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    env = {
        "DJANGO_SETTINGS_MODULE": "of_a_host",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with stack(workers=0, web=False, database=database, env=env) as up:
        up.manage("migrate", "--run-syncdb", "--verbosity", "0")
        done = up.manage("shell", "--verbosity", "0", "-c", SCRIPT)
    found = json.loads(done.stdout.partition("FOUND ")[2])
    assert found == [[2], None, 0], "one is kept, one note points nowhere, one line is gone"
    assert "jobs that ended long ago are kept: 1" in done.stderr
    assert "because of ProtectedError: " in done.stderr
