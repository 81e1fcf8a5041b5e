"""What the backend of chaos writes into its journal, and what the judge reads in it."""

from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from tests.chaos.backend import asked, journalled


@pytest.mark.parametrize(
    ("mode", "fine"),
    [("ok", True), ("500", False), ("html", False), ("reset", False), ("close", False)],
)
async def test_a_poll_is_fine_only_if_its_answer_was_right(
    mode: str, fine: bool, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    async with TestClient(TestServer(journalled(path))) as client:
        headers = {"Idempotency-Key": "job"}
        started = await client.post("/tasks", json={"seconds": 60}, headers=headers)
        task = (await started.json())["id"]
        await client.post("/_test/behave", json={"mode": mode, "on": "poll"})
        try:
            async with client.get(f"/tasks/{task}") as answer:
                await answer.read()
        except aiohttp.ClientError:
            assert mode in ("reset", "close")
    [look, *_] = asked(path)["job"].looks
    assert look.fine is fine


async def test_a_start_is_counted_whatever_its_answer_was(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with TestClient(TestServer(journalled(path))) as client:
        await client.post("/_test/behave", json={"mode": "html", "on": "start"})
        await client.post("/tasks", json={"seconds": 60}, headers={"Idempotency-Key": "job"})
    assert asked(path)["job"].posts == 1
