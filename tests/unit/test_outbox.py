"""What a socket has yet to send: at once where it can, the newest where it waits, and nobody waits for another."""

import asyncio

import pytest

from consumers.hub import Outbox


class Socket:
    """Takes frames while `writable`; else its sender waits, as uvicorn's does for a full transport."""

    def __init__(self) -> None:
        self.writable = asyncio.Event()
        self.writable.set()
        self.frames: list[str] = []
        self.gone: Exception | None = None

    async def send(self, text: str) -> None:
        await self.writable.wait()
        if self.gone:
            raise self.gone
        self.frames.append(text)


async def opened() -> tuple[Socket, Outbox]:
    socket = Socket()
    outbox = Outbox(socket.send)
    await outbox.open("first")
    return socket, outbox


async def frames_of(socket: Socket, count: int) -> list[str]:
    async with asyncio.timeout(10):
        while len(socket.frames) < count:
            await asyncio.sleep(0)
    return socket.frames


async def test_a_socket_that_can_take_a_frame_gets_it_at_once_and_without_a_task() -> None:
    socket, outbox = await opened()
    tasks = asyncio.all_tasks()
    outbox.offer("a", "a1")
    assert socket.frames == ["first", "a1"]
    assert asyncio.all_tasks() == tasks


async def test_a_slow_socket_holds_up_no_other_and_gets_the_newest_of_each_job() -> None:
    (slow, slow_box), (quick, quick_box) = await opened(), await opened()
    slow.writable.clear()
    for n in range(1, 4):
        for outbox in (slow_box, quick_box):
            outbox.offer("a", f"a{n}")
            outbox.offer("b", f"b{n}")
    assert quick.frames == ["first", "a1", "b1", "a2", "b2", "a3", "b3"]
    slow.writable.set()
    assert await frames_of(slow, 4) == ["first", "a1", "b3", "a3"]
    slow_box.offer("a", "a4")
    assert (await frames_of(slow, 5))[4:] == ["a4"]


async def test_what_is_offered_before_the_snapshot_comes_after_it() -> None:
    socket = Socket()
    outbox = Outbox(socket.send)
    outbox.offer("a", "a1")
    assert socket.frames == []
    await outbox.open("snapshot")
    assert socket.frames == ["snapshot", "a1"]


async def test_one_frame_at_a_time_is_on_its_way_to_a_socket_that_was_slow_from_the_first() -> None:
    socket = Socket()

    async def send(text: str) -> None:
        await socket.send(text)
        if text == "snapshot":
            socket.writable.clear()

    outbox = Outbox(send)
    outbox.offer("a", "a1")
    opening = asyncio.create_task(outbox.open("snapshot"))
    await frames_of(socket, 1)
    for n in range(2, 6):
        outbox.offer("a", f"a{n}")
    socket.writable.set()
    await opening
    assert await frames_of(socket, 3) == ["snapshot", "a1", "a5"]


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("after websocket.close")])
async def test_a_socket_that_has_gone_takes_nothing_more_and_nobody_else_hears_of_it(error: Exception) -> None:
    socket, outbox = await opened()
    socket.gone = error
    outbox.offer("a", "a1")
    socket.gone = None
    outbox.offer("a", "a2")
    assert socket.frames == ["first"]


async def test_a_closed_outbox_gives_up_the_frame_that_waits() -> None:
    socket, outbox = await opened()
    socket.writable.clear()
    tasks = asyncio.all_tasks()
    outbox.offer("a", "a1")
    (sender,) = asyncio.all_tasks() - tasks
    outbox.close()
    socket.writable.set()
    await asyncio.wait([sender])
    outbox.offer("a", "a2")
    assert sender.cancelled()
    assert socket.frames == ["first"]
