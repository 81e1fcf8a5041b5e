"""Backends for tests of the language of backends.toml: tables in a few words, and answers."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from progrock.backends import JobView, Options, build, load
from progrock.backends.http.answers import Answer
from progrock.backends.http.reader import Reader
from progrock.backends.http.spec import HttpSpec
from progrock.backends.templates import Scope

LEAST: Mapping[str, str | None] = {
    "url": '"https://render.internal/v1"',
    "start": '{ path = "/tasks" }',
    "poll": '{ path = "/tasks/{handle}" }',
    "handle": '"id"',
    "state": '"status"',
    "states": '{ running = ["running"], succeeded = ["done"], failed = ["broken"] }',
}
#: What a variable of the environment has in these tests. No error, log or repr may show it.
SECRET = "hunter2"


def toml(**lines: str | None) -> str:
    """A table called `render`. Each argument is a key and its value as the file has it."""
    written = {**LEAST, **lines}
    rest = "\n".join(f"{key} = {text}" for key, text in written.items() if text is not None)
    return f"[render]\n{rest}\n"


def options(**lines: str | None) -> Options:
    """The options of such a table. Raises ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "backends.toml"
        path.write_text(toml(**lines), encoding="utf-8")
        return load(path)["render"]


def built(environ: Mapping[str, str] | None = None, **lines: str | None) -> Any:
    """The backend of such a table. Raises ConfigError."""
    return build(options(**lines), environ or {})


def spec(environ: Mapping[str, str] | None = None, **lines: str | None) -> HttpSpec:
    """What such a table says, with its variables filled in. Raises ConfigError."""
    found = built(environ, **lines).options.spec
    assert isinstance(found, HttpSpec)
    return found


class Notes(list[tuple[str, str, Any]]):
    """What a reader has noted: the key, what the file says there, and what was found."""

    def __call__(self, key: str, written: str, found: Any) -> None:
        self.append((key, written, found))


def reader(**lines: str | None) -> Reader:
    """A reader of such a table's answers."""
    return Reader(spec(**lines), Notes())


def job(handle: str = "h1", params: Any = None, *, id: str = "j1", again: bool = False) -> JobView:
    """A job as a backend sees it."""
    return JobView(id, handle, {} if params is None else params, again=again)


def scope(handle: str = "h1", params: Any = None, **more: Any) -> Scope:
    """What the holes of one job's request stand for."""
    return Scope(job(handle, params), **more)


def answer(
    body: Any = b"",
    status: int = 200,
    *,
    headers: Mapping[str, str] | None = None,
    wait: float | None = None,
) -> Answer:
    """An answer with JSON or bytes; None stands for a body that is too large."""
    raw = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    return Answer(status, headers or {}, raw, limit=1000, wait=wait)
