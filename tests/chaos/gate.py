"""A gate between ProgRock and RabbitMQ or PostgreSQL, which can cut or stall all connections.

It passes bytes on to a node that is up, and shows them to a reader.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from tests.chaos.wire import Wire

Address = tuple[str, int]


class Gate:
    """One port for all nodes of a cluster, like a load balancer in front of them.

    `nodes` may be changed, like a name that moves: open connections stay where they are. `wire`
    reads along what passes.
    """

    def __init__(self, nodes: Sequence[Address], wire: Wire | None = None) -> None:
        self.nodes, self._wire = list(nodes), wire
        self.port = 0
        self._turn = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> Self:
        """Listen on a free port of loopback."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    @property
    def connections(self) -> int:
        """How many connections pass through the gate now."""
        return len(self._writers) // 2

    def cut(self) -> int:
        """Reset every connection; returns how many there were."""
        for writer in self._writers:
            writer.transport.abort()
        return self.connections

    def stall(self) -> None:
        """Pass nothing on and close nothing, like a network that drops packets."""
        self._flows.clear()

    def fall_silent(self) -> None:
        """Reset every connection, and accept new ones without a word."""
        self.stall()
        self.cut()

    def flow(self) -> None:
        """Pass everything on again."""
        self._flows.set()

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        self.flow()
        if self._server:
            self._server.close()
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other: asyncio.StreamWriter | None = None
        passing: list[asyncio.Task[None]] = []
        try:
            node_reader, other = await self._open()
            self._writers |= {writer, other}
            passing += [
                asyncio.create_task(self._pass(reader, other)),
                asyncio.create_task(self._pass(node_reader, writer)),
            ]
            await asyncio.wait(passing, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # No node is up, so the caller's connection closes at once.
        finally:
            for task in passing:
                task.cancel()  # the other direction may wait for a flow that nobody wants any more
            for each in (writer, other):
                if each is not None:
                    self._writers.discard(each)
                    each.transport.abort()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self._turn += 1
        for n in range(len(self.nodes)):
            host, port = self.nodes[(self._turn + n) % len(self.nodes)]
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(2):
                    return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read = self._wire.reader() if self._wire else None
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flows.wait()
                if read:
                    read(data)
                writer.write(data)
                await writer.drain()
