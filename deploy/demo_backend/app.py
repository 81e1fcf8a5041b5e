"""The demo backend's four requests: start a task, look at one, look at many, cancel one."""

import time
from typing import Any

import orjson
from aiohttp import web

from deploy.demo_backend.tasks import Tasks

TASKS = web.AppKey("tasks", Tasks)


def answer(body: Any, status: int = 200, **headers: str) -> web.Response:
    """A JSON answer. A body that is a text is an error's message."""
    body = {"error": {"message": body}} if isinstance(body, str) else body
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", headers=headers
    )


async def start(request: web.Request) -> web.Response:
    """POST /tasks: 201 and the task, or 200 where the Idempotency-Key has started it before."""
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
    """GET /tasks?ids=a,b: the tasks of these ids; unknown ids are left out."""
    by_id = request.app[TASKS].by_id
    found = (by_id.get(i) for i in request.query.get("ids", "").split(","))
    return answer({"tasks": [task.answer() for task in found if task]})


async def cancel(request: web.Request) -> web.Response:
    """DELETE /tasks/{id}: 204, or 409 where the task has ended already."""
    task = request.app[TASKS].by_id.get(request.match_info["id"])
    if task is None:
        return answer("No such task", 404)
    if task.status() in ("done", "failed"):
        return answer("The task has ended already", 409)
    task.cancelled = task.cancelled or time.monotonic()
    return web.Response(status=204)


def application() -> web.Application:
    """The program, without hooks for tests (see hooks.py)."""
    app = web.Application()
    app[TASKS] = Tasks()
    app.add_routes([web.post("/tasks", start), web.get("/tasks", look_at_many)])
    app.add_routes([web.get("/tasks/{id}", look), web.delete("/tasks/{id}", cancel)])
    return app
