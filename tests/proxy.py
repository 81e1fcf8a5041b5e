"""A proxy between a browser and the web server, which does what bad proxies do.

It can refuse WebSockets, refuse streams of events or hold them back, and pass nothing on at all.
It runs in a thread of its own, so tests of either kind can use it.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

REFUSED = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes requests on to `url`. Its own address is `url` with the port `port`.

    `websockets`: "pass" or "refuse". `events`: "pass", "refuse", or "hold", which keeps an answer
    back until all of it has come, so no frame of an open stream arrives. Both may be changed at any
    time; connections that are open stay as they are. `requests` has the first line of each request.
    """

    def __init__(
        self,
        url: str,
        *,
        websockets: Literal["pass", "refuse"] = "pass",
        events: Literal["pass", "refuse", "hold"] = "pass",
    ) -> None:
        self.websockets, self.events = websockets, events
        self.requests: list[str] = []
        self.port = 0
        self._to = urlsplit(url)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        """Where this proxy answers."""
        return self._to._replace(netloc=f"127.0.0.1:{self.port}").geturl()

    # What tests may call from their own thread

    def stall(self) -> None:
        """Pass nothing on and close nothing, like a network that drops packets."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def flow(self) -> None:
        """Pass everything on again."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def cut(self) -> None:
        """Reset every connection."""
        self._loop.call_soon_threadsafe(self._cut)

    # What runs in the proxy's thread

    def run(self, ready: threading.Event) -> None:
        """Serve until `stop`."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**20)
        )
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._cut()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0.01))
            self._loop.close()

    def stop(self) -> None:
        """End all connections, and then the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._request(reader, writer)
        self._writers.discard(writer)
        writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await self._flows.wait()
        first, _, headers = head.partition(b"\r\n")
        self.requests.append(first.decode())
        upgrade = b"\r\nupgrade: websocket\r\n" in b"\r\n" + headers.lower()
        events = first.split()[1].partition(b"?")[0].endswith(b"/events")
        if (upgrade and self.websockets == "refuse") or (events and self.events == "refuse"):
            writer.write(REFUSED)
            await writer.drain()
            return
        to_reader, to_writer = await asyncio.open_connection(self._to.hostname, self._to.port)
        self._writers.add(to_writer)
        try:
            if not upgrade:  # one request for each connection, so that this proxy sees each
                lines = [each for each in headers.split(b"\r\n") if each]
                kept = [each for each in lines if not each.lower().startswith(b"connection:")]
                head = b"\r\n".join([first, *kept, b"Connection: close", b"", b""])
            to_writer.write(head)
            hold = events and self.events == "hold"
            there = asyncio.create_task(self._pass(reader, to_writer))
            back = asyncio.create_task(self._pass(to_reader, writer, hold=hold))
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            there.cancel()
            back.cancel()
        finally:
            self._writers.discard(to_writer)
            to_writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, hold: bool = False
    ) -> None:
        held = b""
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                if hold:
                    held += data
                else:
                    writer.write(data)
                    await writer.drain()
            writer.write(held)
            await writer.drain()


@contextmanager
def proxy(
    url: str,
    *,
    websockets: Literal["pass", "refuse"] = "pass",
    events: Literal["pass", "refuse", "hold"] = "pass",
) -> Iterator[Proxy]:
    """A running Proxy before a web server."""
    made, ready = Proxy(url, websockets=websockets, events=events), threading.Event()
    thread = threading.Thread(target=made.run, args=[ready], name="proxy", daemon=True)
    thread.start()
    ready.wait()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
