"""The demo backend's tasks, and its four requests: start, look at one, look at many, cancel."""

import math
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

STAGES = (
    "Reading the scene",
    "Placing the lights",
    "Rendering, first half of the frames",
    "Rendering, second half of the frames",
    "Encoding the film",
    "Uploading the film",
)
KEEP_ENDED = 600.0
LONGEST = 86_400.0
MOST_TASKS = 200_000
STALLS_AT, FAILS_AT = 60, 80.0


@dataclass(kw_only=True)
class Task:
    """One pretended job: where it stands follows from the clock. Times are monotonic seconds."""

    id: str
    seconds: float
    outcome: str
    steps: int | None
    began: float = field(default_factory=time.monotonic)
    cancelled: float | None = None
    forced: dict[str, Any] = field(default_factory=dict)

    def percent(self) -> float:
        """0 to 100, in steps where they were asked for; a stalling task goes no further than 60, a failing one than 80."""
        done = min(1.0, ((self.cancelled or time.monotonic()) - self.began) / self.seconds)
        if self.steps:
            done = math.floor(done * self.steps) / self.steps
        if self.outcome == "stall":
            return min(done * 100, STALLS_AT)
        return done * (FAILS_AT if self.outcome == "fail" else 100)

    def status(self) -> str:
        """running, done, failed or cancelled."""
        if self.cancelled:
            return "cancelled"
        if self.outcome == "stall" or time.monotonic() < self.began + self.seconds:
            return "running"
        return "failed" if self.outcome == "fail" else "done"

    def ended(self) -> float | None:
        """When it ended, if it has. A stalled task counts as ended after a day."""
        if self.outcome == "stall":
            return self.cancelled or self.began + LONGEST
        return self.cancelled or self.began + self.seconds

    def answer(self) -> dict[str, Any]:
        """What a look at it answers."""
        status, percent = self.status(), self.percent()
        body: dict[str, Any] = {"id": self.id, "status": status, "percent": round(percent, 1)}
        body["stage"] = (
            STAGES[min(len(STAGES) - 1, int(percent / 100 * len(STAGES)))]
            if status == "running"
            else None
        )
        if status == "done":
            frames = round(self.seconds * 24)
            body["output"] = {
                "file": f"film-{self.id[:6]}.mp4",
                "frames": frames,
                "seconds": self.seconds,
            }
        if status == "failed":
            body["error"] = {"message": "The renderer ran out of memory while it encoded the film"}
        return body | self.forced


class Tasks:
    """All tasks by id, and by idempotency key; forgets what ended ten minutes ago."""

    def __init__(self) -> None:
        self.by_id: dict[str, Task] = {}
        self.by_key: dict[str, Task] = {}
        self._tidied = time.monotonic()

    def start(self, params: Any, key: str | None) -> Task:
        """A new task, or the one that this key started. Raises ValueError with a sentence, OverflowError when full."""
        if key and (known := self.by_key.get(key)):
            return known
        self._tidy()
        if len(self.by_id) >= MOST_TASKS:
            raise OverflowError
        task = Task(id=uuid.uuid4().hex, **_params(params))
        self.by_id[task.id] = task
        if key:
            self.by_key[key] = task
        return task

    def _tidy(self) -> None:
        now = time.monotonic()
        if now - self._tidied > KEEP_ENDED / 10:
            self._tidied = now
            self.by_id = {
                i: task
                for i, task in self.by_id.items()
                if now < (task.ended() or now) + KEEP_ENDED
            }
            self.by_key = {key: task for key, task in self.by_key.items() if task.id in self.by_id}


def _params(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise ValueError("The params must be an object")
    seconds, outcome, steps = (
        params.get("seconds", 10),
        params.get("outcome", "succeed"),
        params.get("steps"),
    )
    if type(seconds) not in (int, float) or not 0.05 <= seconds <= LONGEST:
        raise ValueError(f"seconds must be a number from 0.05 to {LONGEST:.0f}")
    if outcome not in ("succeed", "fail", "stall"):
        raise ValueError("outcome must be succeed, fail or stall")
    if steps is not None and (type(steps) is not int or not 1 <= steps <= 1000):
        raise ValueError("steps must be a whole number from 1 to 1000")
    return {"seconds": float(seconds), "outcome": outcome, "steps": steps}


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """A JSON answer; a text is an error's message."""
    body = {"error": {"message": body}} if isinstance(body, str) else body
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=headers
    )


TASKS = web.AppKey("tasks", Tasks)


async def start(request: web.Request) -> web.Response:
    """POST /tasks: 201, with the task; 200 where the Idempotency-Key has started it before."""
    tasks, key = request.app[TASKS], request.headers.get("Idempotency-Key")
    known = key in tasks.by_key
    try:
        task = tasks.start(orjson.loads(await request.read() or b"{}"), key)
    except orjson.JSONDecodeError:
        return answer("The body is not JSON", 400)
    except ValueError as error:
        return answer(str(error), 422)
    except OverflowError:
        return answer("Too many tasks", 503, **{"Retry-After": "10"})
    return answer(task.answer(), 200 if known else 201)


async def look(request: web.Request) -> web.Response:
    """GET /tasks/{id}."""
    task = request.app[TASKS].by_id.get(request.match_info["id"])
    return answer(task.answer()) if task else answer("No such task", 404)


async def look_at_many(request: web.Request) -> web.Response:
    """GET /tasks?ids=a,b: those that there are."""
    by_id = request.app[TASKS].by_id
    found = (by_id.get(i) for i in request.query.get("ids", "").split(","))
    return answer({"tasks": [task.answer() for task in found if task]})


async def cancel(request: web.Request) -> web.Response:
    """DELETE /tasks/{id}: 409 where it has ended already."""
    task = request.app[TASKS].by_id.get(request.match_info["id"])
    if task is None:
        return answer("No such task", 404)
    if task.status() in ("done", "failed"):
        return answer("The task has ended already", 409)
    task.cancelled = task.cancelled or time.monotonic()
    return web.Response(status=204)


def application(*, test: bool = False) -> web.Application:
    """The program; with `test` it can be told to misbehave."""
    app = web.Application()
    app[TASKS] = Tasks()
    app.add_routes([web.post("/tasks", start), web.get("/tasks", look_at_many)])
    app.add_routes([web.get("/tasks/{id}", look), web.delete("/tasks/{id}", cancel)])
    if test:
        from deploy.demo_backend.hooks import install

        install(app)
    return app
