"""The outbox: what a socket has yet to send is the newest frame of each job."""

import asyncio

import pytest

from progrock.consumers.sockets import Outbox
from tests.services import PATIENCE


class Socket:
    """Takes frames while `writable`. Else its sender waits, as on a full transport."""

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
    async with asyncio.timeout(PATIENCE):
        while len(socket.frames) < count:
            await asyncio.sleep(0)
    return socket.frames


async def test_a_slow_socket_holds_up_no_other_and_gets_the_newest_of_each_job() -> None:
    (slow, slow_box), (quick, quick_box) = await opened(), await opened()
    slow.writable.clear()
    for n in range(1, 4):
        for outbox in (slow_box, quick_box):
            outbox.offer("a", f"a{n}")
            outbox.offer("b", f"b{n}")
        assert (await frames_of(quick, 2 * n + 1))[-2:] == [f"a{n}", f"b{n}"]
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
    assert await frames_of(socket, 2) == ["snapshot", "a1"]


async def test_a_new_snapshot_replaces_what_waits_and_later_frames_come_after_it() -> None:
    socket, outbox = await opened()
    socket.writable.clear()
    outbox.offer("a", "a1")
    await asyncio.sleep(0)  # this one is on its way
    outbox.offer("a", "a2")
    outbox.offer("b", "b1")
    outbox.restart("anew")
    outbox.offer("b", "b2")
    socket.writable.set()
    assert await frames_of(socket, 4) == ["first", "a1", "anew", "b2"]
    closed = Outbox(socket.send)
    closed.restart("never")
    await closed.open("its own")
    assert await frames_of(socket, 5) == ["first", "a1", "anew", "b2", "its own"]


async def test_one_frame_at_a_time_is_on_its_way_to_a_slow_socket() -> None:
    socket, outbox = await opened()
    under_way = most = 0

    async def send(text: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        await socket.send(text)
        under_way -= 1

    outbox = Outbox(send)
    await outbox.open("snapshot")
    for n in range(1, 6):
        outbox.offer("a", f"a{n}")
        await asyncio.sleep(0)
    assert (await frames_of(socket, 3))[-1] != "snapshot"
    async with asyncio.timeout(PATIENCE):
        while socket.frames[-1] != "a5":
            await asyncio.sleep(0)
    assert most == 1


@pytest.mark.parametrize("error", [ConnectionResetError(), RuntimeError("after websocket.close")])
async def test_a_socket_that_has_gone_takes_nothing_more_and_nobody_else_hears_of_it(
    error: Exception,
) -> None:
    socket, outbox = await opened()
    socket.gone = error
    tasks = asyncio.all_tasks()
    outbox.offer("a", "a1")
    (sender,) = asyncio.all_tasks() - tasks
    await sender
    socket.gone = None
    outbox.offer("a", "a2")
    assert not asyncio.all_tasks() - tasks
    assert socket.frames == ["first"]


async def test_a_closed_outbox_gives_up_the_frame_that_waits() -> None:
    socket, outbox = await opened()
    socket.writable.clear()
    tasks = asyncio.all_tasks()
    outbox.offer("a", "a1")
    (sender,) = asyncio.all_tasks() - tasks
    await asyncio.sleep(0)  # now it waits
    outbox.close()
    socket.writable.set()
    await asyncio.wait([sender])
    outbox.offer("a", "a2")
    assert sender.cancelled()
    assert socket.frames == ["first"]
