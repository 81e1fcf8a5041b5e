"""A Celery task whose argument `kind` says how its job goes. It runs in the servers' venv."""

import os
import time

from celery import Celery, Task

app = Celery("lab", broker=os.environ["LAB_BROKER"], backend=os.environ["LAB_RESULTS"])
app.conf.task_track_started = True
app.conf.worker_prefetch_multiplier = 1


@app.task(name="lab.add", bind=True)
def add(self: Task, kind: str) -> str:
    """Do what `kind` says."""
    if kind == "broken":
        raise ValueError("these numbers do not add up")
    if kind == "slow":
        self.update_state(state="PROGRESS", meta={"percent": 30})
        time.sleep(600)
    return "x" * (100_000 if kind == "large" else 10)
