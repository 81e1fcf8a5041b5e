"""Plays a cassette: an HTTP server that answers as one real API would, and checks its requests.

A test says at which step the job is. `README.md` says what a cassette holds.
"""

import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

Cassette = dict[str, Any]

_KEYS = {
    "api",
    "auth",
    "exchanges",
    "notes",
    "params",
    "repeat",
    "scenarios",
    "shape",
    "source",
}
_EXCHANGE = {"answer", "answers", "moves", "otherwise", "request"}
_REQUEST = {
    "content_type",
    "form",
    "headers",
    "json",
    "method",
    "multipart",
    "path",
    "query",
    "query_optional",
}
_ANSWER = {"base64", "headers", "json", "status", "text"}
_SCENARIO = {"cancel_at", "expect", "params", "steps"}
_PAGE = "<html><body><h1>404 Not Found</h1></body></html>"


def load(path: Path | str) -> Cassette:
    """A cassette from its JSON file. Raises ValueError where a key is none of the README's."""
    cassette: Cassette = json.loads(Path(path).read_text(encoding="utf-8"))
    _known(f"{path}", cassette, _KEYS)
    steps: set[str] = set()
    for name, exchange in cassette["exchanges"].items():
        _known(f"{path}: {name}", exchange, _EXCHANGE)
        _known(f"{path}: {name}.request", exchange["request"], _REQUEST)
        answers = exchange.get("answers", {})
        for answer in [exchange.get("answer"), exchange.get("otherwise"), *answers.values()]:
            _known(f"{path}: {name}.answer", answer or {}, _ANSWER)
        steps |= answers.keys()
    for name, scenario in cassette["scenarios"].items():
        _known(f"{path}: scenario {name}", scenario, _SCENARIO)
        if missing := set(scenario["steps"]) - steps:
            raise ValueError(f"{path}: scenario {name}: no answers for {missing}")
    return cassette


def _known(where: str, table: Mapping[str, Any], keys: set[str]) -> None:
    if unknown := table.keys() - keys:
        raise ValueError(f"{where}: unknown keys {unknown}")


def fill(value: Any, names: Mapping[str, Any]) -> Any:
    """The value with `${name}` and `${name.part}` in its texts filled in.

    A text that is nothing but one of them becomes what that stands for, with its type.
    """
    if isinstance(value, dict):
        return {fill(key, names): fill(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, names) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := re.fullmatch(r"\$\{([\w.]+)\}", value):
        return _found(whole[1], names)
    return re.sub(r"\$\{([\w.]+)\}", lambda match: str(_found(match[1], names)), value)


def _found(path: str, names: Mapping[str, Any]) -> Any:
    found: Any = names
    for part in path.split("."):
        found = found[part]
    return found


class Mock:
    """One cassette being played, as an asynchronous context manager.

    `origin` is the server's address. `step` is the present step and may be set. `asked` has the
    names of the exchanges that were asked for, in their order. `problems` is what a real server
    would have minded.
    """

    def __init__(self, cassette: Cassette) -> None:
        self.cassette = cassette
        self.origin = ""
        self.step = ""
        self.asked: list[str] = []
        self.problems: list[str] = []
        self.names: dict[str, Any] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "Mock":
        app = web.Application(client_max_size=1 << 22)
        app.router.add_route("*", "/{tail:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.origin = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def scenario(self, name: str, job_id: str) -> dict[str, Any]:
        """Begin a scenario of the cassette for the job of this id, and give it filled in."""
        scenario = self.cassette["scenarios"][name]
        self.step, self.asked, self.problems = scenario["steps"][0], [], []
        params = scenario.get("params", self.cassette.get("params", {}))
        self.names = {"origin": self.origin, "params": params, "job": job_id}
        filled: dict[str, Any] = fill(scenario | {"params": params}, self.names)
        return filled

    async def _serve(self, request: web.Request) -> web.Response:
        body = await request.read()
        path = request.raw_path.partition("?")[0]
        matching = [
            (name, exchange)
            for name, exchange in self.cassette["exchanges"].items()
            if exchange["request"].get("method", "GET") == request.method
            and fill(exchange["request"]["path"], self.names) == path
        ]
        minded: list[str] = []
        for name, exchange in matching:
            wanted = fill(exchange["request"], self.names)
            minded = [f"{name}: {each}" for each in _minded(wanted, request, body)]
            if not minded:
                return self._answer(name, exchange)
        self.problems += minded or [f"unexpected {request.method} {request.raw_path}"]
        if not matching:
            return web.Response(status=404, text=_PAGE, content_type="text/html")
        return web.json_response({"error": {"message": "; ".join(minded)}}, status=400)

    def _answer(self, name: str, exchange: dict[str, Any]) -> web.Response:
        self.asked.append(name)
        now = exchange.get("answers", {}).get(self.step)
        answer = fill(now or exchange.get("answer") or exchange.get("otherwise"), self.names)
        if answer is None:
            self.problems.append(f"{name} asked at the step {self.step}")
            return web.json_response({"error": {"message": "not now"}}, status=409)
        self.step = exchange.get("moves", {}).get(self.step, self.step)
        headers = {key: str(value) for key, value in answer.get("headers", {}).items()}
        if "json" in answer:
            body, kind = json.dumps(answer["json"]).encode(), "application/json"
        elif "base64" in answer:
            body, kind = base64.b64decode(answer["base64"]), "application/octet-stream"
        else:
            body, kind = answer.get("text", "").encode(), "text/plain"
        if body:
            headers.setdefault("Content-Type", kind)
        return web.Response(status=answer.get("status", 200), headers=headers, body=body)


def _minded(wanted: dict[str, Any], request: web.Request, body: bytes) -> list[str]:
    """What a strict server would mind of this request."""
    minded = []
    query = {key: str(value) for key, value in wanted.get("query", {}).items()}
    asked = _pairs(request.raw_path.partition("?")[2])
    optional = {key: str(value) for key, value in wanted.get("query_optional", {}).items()}
    asked = {key: value for key, value in asked.items() if optional.get(key) != value}
    if query != asked:
        minded.append(f"query {asked}, wanted {query}")
    for key, value in wanted.get("headers", {}).items():
        found = request.headers.get(key)
        if found is None or value not in ("*", found):
            minded.append(f"header {key}: {found!r}, wanted {value!r}")
    kind = request.headers.get("Content-Type", "").partition(";")[0]
    if kind != (right := _content_type(wanted, kind)):
        minded.append(f"Content-Type {kind!r}, wanted {right!r}")
    text = body.decode("utf-8", "replace")
    if "json" in wanted and _json(text) != wanted["json"]:
        minded.append(f"body {text}, wanted {json.dumps(wanted['json'])}")
    if "form" in wanted:
        form = {key: str(value) for key, value in wanted["form"].items()}
        if _pairs(text) != form:
            minded.append(f"form {_pairs(text)}, wanted {form}")
    return minded


def _content_type(wanted: Mapping[str, Any], otherwise: str) -> str:
    if "form" in wanted:
        return "application/x-www-form-urlencoded"
    if "multipart" in wanted:
        return "multipart/form-data"
    kind = "application/json" if "json" in wanted else otherwise
    return str(wanted.get("content_type", kind))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _pairs(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))
