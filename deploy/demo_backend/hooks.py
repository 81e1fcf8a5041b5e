"""The demo backend's hooks for tests: make it misbehave, set values, count requests.

POST /_test/behave    {"mode": "503", "on": "poll", "task": id, "count": 2, "retry_after": "3",
                      "delay": 0.1}: a rule for requests to come; all but `mode` may be left out
DELETE /_test/behave  forget all rules
POST /_test/tasks/id  {"percent": 42, "status": "running", "stage": "…"}: from now on the task
                      answers with this in place of its own values
GET /_test/tasks/id   {"polls": 3, "overlaps": 0, "cancels": 0, "times": [when, epoch seconds]}
GET /_test/stats      {"tasks": 2, "starts": 3, "polls": 40, "requests": 41, "under_way": 0,
                      "most_under_way": 8}: all but the last two count from the program's start

A mode is an HTTP status, a key of BODIES, or one of proxy, hang, reset, garbage, close, huge, bomb,
redirect, text (right, but as text/plain), ok (right, with the Retry-After and the delay) and late
(right, but the delay comes after what was asked is done).
"""

import asyncio
import functools
import gzip
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from deploy.demo_backend.app import TASKS, answer

KINDS = {"POST": "start", "GET": "poll", "DELETE": "cancel"}
#: Bodies by mode: each comes with 200 and as JSON, and is wrong in another way.
BODIES = {
    "html": b"<html>It works!</html>",
    "nan": b'{"status": "running", "percent": NaN, "stage": "not a number"}',
    "infinity": b'{"status": "running", "percent": Infinity}',
    "state": b'{"status": "paused"}',
    "stateless": b'{"percent": 10}',
    "list": b"[1, 2]",
    "empty": b"",
    "handleless": b'{"id": null}',
    "dots": b'{"id": ".."}',
}
#: What is written to the connection, by mode, before it is closed.
CUT_SHORT = {
    "reset": b"",
    "garbage": b"good day\r\n\r\n",
    "close": (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        b'{"status": "ru'
    ),
}


@dataclass
class Seen:
    """What was asked about one task."""

    polls: int = 0
    overlaps: int = 0
    cancels: int = 0
    under_way: int = 0
    times: list[float] = field(default_factory=list)


@dataclass
class Hooks:
    """The rules of misbehaviour, and counts of what was asked."""

    rules: list[dict[str, Any]] = field(default_factory=list)
    seen: dict[str, Seen] = field(default_factory=lambda: defaultdict(Seen))
    starts: int = 0
    polls: int = 0
    requests: int = 0
    under_way: int = 0
    most_under_way: int = 0

    def rule(self, kind: str, ids: list[str]) -> dict[str, Any] | None:
        """The first rule for such a request. Each use lowers the rule's `count` by one."""
        for rule in self.rules:
            if (
                rule.get("on") in (None, kind)
                and (not rule.get("task") or rule["task"] in ids)
                and rule["count"] != 0
            ):
                rule["count"] -= 1
                return rule
        return None


HOOKS = web.AppKey("hooks", Hooks)
#: Whether a rule answers this request wrongly. Only requests to which a rule applies have it.
WRONG = web.RequestKey("wrong", bool)


@web.middleware
async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts the request, and answers it by a rule if there is one for it."""
    if request.path.startswith("/_test/"):
        return await handler(request)
    hooks, kind = request.app[HOOKS], KINDS.get(request.method, "")
    ids = (
        [request.match_info["id"]]
        if "id" in request.match_info
        else request.query.get("ids", "").split(",")
    )
    seen = [hooks.seen[i] for i in ids if i in request.app[TASKS].by_id]
    hooks.requests += 1
    hooks.under_way += 1
    hooks.most_under_way = max(hooks.most_under_way, hooks.under_way)
    hooks.starts += kind == "start"
    for task in seen:
        task.cancels += kind == "cancel"
        if kind == "poll":
            hooks.polls += 1
            task.polls += 1
            task.overlaps += task.under_way > 0
            task.under_way += 1
            task.times.append(time.time())
            del task.times[:-1000]
    try:
        rule = hooks.rule(kind, ids)
        return await misbehave(request, handler, rule) if rule else await handler(request)
    finally:
        hooks.under_way -= 1
        for task in seen if kind == "poll" else ():
            task.under_way -= 1


async def misbehave(
    request: web.Request, handler: Handler, rule: dict[str, Any]
) -> web.StreamResponse:
    """Answers as the rule's mode says (see the top of this file)."""
    mode = str(rule["mode"])
    request[WRONG] = mode != "ok"  # even if its status is 200
    headers = {"Retry-After": rule["retry_after"]} if rule.get("retry_after") else {}
    if mode == "late":
        done = await handler(request)
        await asyncio.sleep(rule["delay"])
        return done
    await asyncio.sleep(rule.get("delay", 0.0))
    if mode.isdigit():
        return answer(f"told to answer {mode}", int(mode), **headers)
    if mode == "proxy":
        page = "<!DOCTYPE html><title>404</title><p>no healthy upstream"
        return web.Response(status=404, text=page, content_type="text/html", headers=headers)
    if mode == "hang":
        await asyncio.sleep(3600)
    if mode in CUT_SHORT:
        if request.transport is None:
            raise ConnectionResetError
        request.transport.write(CUT_SHORT[mode])
        request.transport.close()
        return web.Response()
    if mode == "huge":
        response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
        await response.prepare(request)
        for _ in range(1600):
            await response.write(b" " * 65536)
        return response
    if mode == "bomb":
        return web.Response(
            body=bomb(), content_type="application/json", headers={"Content-Encoding": "gzip"}
        )
    if mode in BODIES:
        return web.Response(body=BODIES[mode], content_type="application/json", headers=headers)
    if mode == "redirect":
        return web.Response(status=302, headers={"Location": str(request.url), **headers})
    response = await handler(request)  # "ok" and "text"
    response.headers.update(headers | ({"Content-Type": "text/plain"} if mode == "text" else {}))
    return response


@functools.cache
def bomb() -> bytes:
    """A small body that unpacks to 64 MB of JSON."""
    return gzip.compress(b" " * 64_000_000 + b"{}")


async def set_rule(request: web.Request) -> web.Response:
    """POST /_test/behave."""
    rule = {"count": -1, **orjson.loads(await request.read())}
    request.app[HOOKS].rules.append(rule)
    return answer(rule)


async def forget_rules(request: web.Request) -> web.Response:
    """DELETE /_test/behave."""
    request.app[HOOKS].rules.clear()
    return answer({})


async def force(request: web.Request) -> web.Response:
    """POST /_test/tasks/{id}."""
    task = request.app[TASKS].by_id[request.match_info["id"]]
    task.forced |= orjson.loads(await request.read())
    return answer(task.answer() | {"at": time.time()})


async def seen(request: web.Request) -> web.Response:
    """GET /_test/tasks/{id}."""
    return answer(request.app[HOOKS].seen[request.match_info["id"]])


async def stats(request: web.Request) -> web.Response:
    """GET /_test/stats."""
    hooks, tasks = request.app[HOOKS], request.app[TASKS]
    names = ("starts", "polls", "requests", "under_way", "most_under_way")
    return answer({"tasks": tasks.made} | {name: getattr(hooks, name) for name in names})


def with_hooks(app: web.Application) -> web.Application:
    """The same program with the hooks in it."""
    app[HOOKS] = Hooks()
    app.middlewares.append(watch)
    app.add_routes([web.post("/_test/behave", set_rule), web.delete("/_test/behave", forget_rules)])
    app.add_routes([web.post("/_test/tasks/{id}", force), web.get("/_test/tasks/{id}", seen)])
    app.add_routes([web.get("/_test/stats", stats)])
    return app
