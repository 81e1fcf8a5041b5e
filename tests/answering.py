"""A backend on loopback that answers as a test says, and the HTTP backend that asks it."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from progrock.backends import BackendError, Status
from progrock.backends.http import HttpBackend
from tests import language
from tests.language import job
from tests.services import PATIENCE


class Asked:
    """A request as it came: the path is not decoded."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        self.method, self.path, self.headers = request.method, request.raw_path, request.headers
        self.body, self.at = body, time.monotonic()
        self.line = f"{self.method} {self.path}"


class Service:
    """A server that keeps what it was asked and answers as the test says."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.says: dict[str, Any] = {}  # by the beginning of the path
        self.url = ""

    @property
    def lines(self) -> list[str]:
        """The method and the path of each request."""
        return [each.line for each in self.asked]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Keep a request and answer it."""
        asked = Asked(request, await request.read())
        self.asked.append(asked)
        for start in sorted(self.says, key=len, reverse=True):
            if asked.path.startswith(start):
                said = self.says[start]
                said = said(asked) if callable(said) else said
                said = await said if asyncio.iscoroutine(said) else said
                return said if isinstance(said, web.StreamResponse) else web.json_response(said)
        return web.json_response({"detail": "no such thing"}, status=404)


@asynccontextmanager
async def service(context: ssl.SSLContext | None = None, **says: Any) -> AsyncIterator[Service]:
    """A server on loopback."""
    made = Service()
    runner = web.ServerRunner(web.Server(made.answer, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        made.url = f"http{'s' if context else ''}://127.0.0.1:{port}"
        yield made
    finally:
        await runner.cleanup()


@asynccontextmanager
async def backend(
    to: Service | str, environ: Mapping[str, str] | None = None, **lines: str | None
) -> AsyncIterator[HttpBackend]:
    """A backend whose url is that of the server."""
    url = to if isinstance(to, str) else f"{to.url}/v1"
    defaults = {"timeout": f"{PATIENCE / 2}"}
    made = language.built(environ, **{"url": f'"{url}"', **defaults, **lines})
    assert isinstance(made, HttpBackend)
    try:
        yield made
    finally:
        await made.aclose()


async def look(made: HttpBackend, handle: str = "h1") -> Status:
    """A look at one job, which says how it stands."""
    found = await looked(made, handle)
    assert isinstance(found, Status), found
    return found


async def looked(made: HttpBackend, handle: str = "h1") -> Status | BackendError:
    """A look at one job, or how it failed."""
    return (await made.poll([job(handle)]))["j1"]


def response(
    status: int = 200, body: Any = b"", kind: str = "application/json", **headers: str
) -> web.Response:
    """An answer; underscores in names of headers stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.Response(status=status, body=raw, content_type=kind, headers=named)
