"""The demo backend for chaos: it writes all requests and tasks into a journal file.

So it knows its tasks again after it was killed, and the judge knows what it was asked.
"""

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiohttp import web
from aiohttp.typedefs import Handler

from deploy.demo_backend.app import TASKS, application
from deploy.demo_backend.hooks import WRONG, with_hooks
from deploy.demo_backend.tasks import Task, Tasks


class Kept(Tasks):
    """Tasks that a new process finds again in the journal.

    Their times stay right, because all processes of a machine share CLOCK_MONOTONIC.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        for line in read(path):
            if "task" in line:
                task = Task(**line["task"])
                self.by_id[task.id] = self.by_key[line["key"]] = task
            elif line.get("cancelled"):
                self.by_id[line["ids"][0]].cancelled = line["cancelled"]
        self._out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, line: dict[str, Any]) -> None:
        """Write a line without a buffer, so that it outlives a kill."""
        os.write(self._out, orjson.dumps(line) + b"\n")

    def start(self, params: Any, key: str | None) -> Task:
        known = key in self.by_key
        task = super().start(params, key)
        if not known:
            kept = {
                name: getattr(task, name) for name in ("id", "seconds", "outcome", "steps", "began")
            }
            self.write({"task": kept, "key": key, "at": time.time()})
        return task


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of the journal, without one that a kill has cut off."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError:
            continue


@dataclass(slots=True)
class Look:
    """One poll of one job, from the request's arrival to the answer (epoch seconds)."""

    began: float
    ended: float
    fine: bool


@dataclass(slots=True)
class Asked:
    """What the backend was asked about one job: starts, tasks made for it, and polls."""

    posts: int = 0
    tasks: int = 0
    looks: list[Look] = field(default_factory=list)


def asked(path: Path) -> dict[str, Asked]:
    """The journal by job id, which was the Idempotency-Key of the start."""
    jobs: dict[str, Asked] = {}
    job_of: dict[str, str] = {}
    for line in read(path):
        if "task" in line:
            job = jobs.setdefault(line["key"], Asked())
            job.tasks += 1
            job_of[line["task"]["id"]] = line["key"]
        elif line["method"] == "POST":
            jobs.setdefault(line["key"], Asked()).posts += line["status"] not in (0, 429)
        elif line["method"] == "GET":
            for task in line["ids"]:
                if task in job_of:
                    fine = line["status"] == 200 and not line.get("wrong")
                    look = Look(line["at"], line["done"], fine)
                    jobs[job_of[task]].looks.append(look)
    for job in jobs.values():
        job.looks.sort(key=lambda look: look.began)
    return jobs


@web.middleware
async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write each request and the status of its answer into the journal; 0 means no answer.

    `wrong`: the answer was spoilt on purpose, and its status says nothing.
    """
    if request.path.startswith("/_test/"):
        return await handler(request)
    tasks, at, status = request.app[TASKS], time.time(), 0
    assert isinstance(tasks, Kept)
    one = request.match_info.get("id")
    ids = [one] if one else request.query.get("ids", "").split(",")
    key = request.headers.get("Idempotency-Key")
    line: dict[str, Any] = {"method": request.method, "ids": ids, "at": at, "key": key}
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        if request.method == "DELETE" and status == 204:
            line["cancelled"] = tasks.by_id[ids[0]].cancelled
        wrong = {"wrong": True} if request.get(WRONG) else {}
        tasks.write(line | wrong | {"done": time.time(), "status": status})


def journalled(path: Path) -> web.Application:
    """The backend, which writes its journal into this file."""
    app = with_hooks(application())
    app[TASKS] = Kept(path)
    app.middlewares.insert(0, note)
    return app


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.backend", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    web.run_app(
        journalled(options.journal),
        host="127.0.0.1",
        port=options.port,
        access_log=None,
        shutdown_timeout=1.0,
        handler_cancellation=True,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
