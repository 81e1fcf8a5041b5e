"""Holds many WebSockets in one process, and measures how late changes come.

It is cheap, because frames of a server are not masked: searching the bytes is enough.
"""

import argparse
import asyncio
import base64
import json
import os
import re
import time
from collections.abc import Mapping
from statistics import median, quantiles
from typing import Any
from urllib.parse import parse_qs, urlsplit

STAMP = re.compile(rb'"message":"(\d+\.\d+)"')


def audiences(scope: Mapping[str, Any]) -> list[str]:
    """For PROGROCK_AUDIENCES: the session's own audiences, and those that the address names."""
    from progrock.audiences import audiences as own

    named = parse_qs(scope["query_string"].decode()).get("audience", [])
    return [*named, *own(scope)]


class Socket(asyncio.Protocol):
    """One WebSocket; adds how late the stamps in its frames come (seconds) to `late`."""

    def __init__(self, host: str, path: str, late: list[float]) -> None:
        self.host, self.path, self.late = host, path, late
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.rest = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {self.path} HTTP/1.1", f"Host: {self.host}"]
        lines += ["Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        lines += [*self.headers(), "", ""]
        self.transport.write("\r\n".join(lines).encode())

    def headers(self) -> list[str]:
        """More lines of the request."""
        return []

    def data_received(self, data: bytes) -> None:
        """Wait for the snapshot, then find the stamps."""
        if not self.open.done():
            if b'"type":"snapshot"' in data:
                self.open.set_result(None)
            return
        now, data = time.time(), self.rest + data
        end = 0
        for found in STAMP.finditer(data):
            self.late.append(now - float(found[1]))
            end = found.end()
        self.rest = data[max(end, len(data) - 40) :]

    def send(self, text: str) -> None:
        """Send a text frame. Its mask is zero, which changes nothing."""
        data = text.encode()
        assert len(data) < 126
        self.transport.write(bytes([0x81, 0x80 | len(data), 0, 0, 0, 0]) + data)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail if the snapshot has not come yet."""
        if not self.open.done():
            self.open.set_exception(error or ConnectionResetError("the socket was closed"))


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Open all sockets, wait for a line on stdin, then measure."""
    parts = urlsplit(options.url)
    host, port = parts.hostname or "", parts.port or 80
    late: list[float] = []
    sockets: list[Socket] = []
    slots = asyncio.Semaphore(20)

    async def connect(n: int) -> None:
        named = f"?audience=bench:{n // options.each}" if options.each else ""
        async with slots:
            _, socket = await asyncio.get_running_loop().create_connection(
                lambda: Socket(f"{host}:{port}", f"{parts.path}{named}", late), host, port
            )
            async with asyncio.timeout(30):
                await socket.open
        sockets.append(socket)

    begun = time.time()
    await asyncio.gather(*map(connect, range(options.sockets)))
    print(json.dumps({"open": len(sockets), "seconds": time.time() - begun}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, input)
    late.clear()
    await asyncio.sleep(options.seconds)
    found = list(late)
    cuts = quantiles(found, n=100) if len(found) > 1 else [9.9] * 99
    for socket in sockets:
        socket.transport.abort()
    middle = median(found) if found else 9.9
    return {"frames": len(found) / options.seconds, "median": middle, "p99": cuts[98]}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--sockets", type=int, required=True)
    parser.add_argument(
        "--each", type=int, default=0, help="sockets of one audience; 0: a session of its own each"
    )
    parser.add_argument("--seconds", type=float, default=10)
    import uvloop

    print(json.dumps(uvloop.run(run(parser.parse_args()))), flush=True)


if __name__ == "__main__":
    main()
