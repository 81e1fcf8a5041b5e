"""The named cards of chaos can be chosen, and what a client may forget when the database did."""

import asyncio
import time
from pathlib import Path

import aiohttp
import pytest

from tests.chaos.cards import NAMES, names_in
from tests.chaos.clients import Client, Frame, Rewound, Visitor, Wish
from tests.chaos.gate import Gate
from tests.chaos.receivers import told
from tests.services import PATIENCE


def test_cards_are_chosen_by_name() -> None:
    assert names_in("") == set()
    assert names_in("storm,clock") == {"storm", "clock"}
    with pytest.raises(ValueError, match=f"no such card: strom; there are {', '.join(NAMES)}"):
        names_in("strom")


def frame(job_id: str, version: int) -> Frame:
    return {
        "job": job_id,
        "version": version,
        "request": "",
        "cancelling": False,
        "complete": False,
    }


@pytest.mark.parametrize("rewound", [True, False])
async def test_a_screen_goes_back_only_with_the_database(rewound: bool) -> None:
    now = time.time()
    visitor = Visitor(aiohttp.DummyCookieJar())
    wish = Wish(
        request="r", backend="quick", seconds=1, outcome="succeed", cancel_after=None, job_id="gone"
    )
    visitor.wishes["r"] = wish
    client = Client(1, visitor, [], [Rewound(now - 5, now - 1)] if rewound else [])
    client.view = {"back": frame("back", 5), "gone": frame("gone", 2)}
    await client.take({"type": "snapshot", "jobs": [frame("back", 3)]})
    assert client.went_back == ([] if rewound else ["back", "gone"])
    assert wish.job_id == (None if rewound else "gone")
    assert client.view == {"back": frame("back", 3)}


def test_an_end_that_was_told_is_read_with_its_state(tmp_path: Path) -> None:
    path = tmp_path / "signals"
    assert list(told(path)) == []
    path.write_text('{"job":"a","state":"failed"}\n{"job":"a","state":"succeeded"}\n')
    assert list(told(path)) == [("a", "failed"), ("a", "succeeded")]


async def test_a_connection_that_ends_in_a_stalled_gate_leaves_nothing_behind() -> None:
    """The one side has sent something that waits, and the other one closes."""

    async def send_and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"waits")
        await writer.drain()
        await closes.wait()
        writer.transport.abort()

    closes = asyncio.Event()
    node = await asyncio.start_server(send_and_close, "127.0.0.1", 0)
    gate = await Gate([node.sockets[0].getsockname()]).start()
    try:
        before = asyncio.all_tasks()
        gate.stall()
        _, writer = await asyncio.open_connection("127.0.0.1", gate.port)
        async with asyncio.timeout(PATIENCE):
            while not gate.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            writer.transport.abort()
            closes.set()
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
    finally:
        await gate.close()
        node.close()
