"""A job of each kind on real servers: from a browser's socket to the server and back."""

import asyncio
from typing import Any

from tests.servers.programs import Server
from tests.services import PATIENCE, Stack
from tests.visitor import Frame, Visitor, browse


async def started(visitor: Visitor, server: Server, kind: str) -> str:
    """Start a job that goes as its kind says; returns its id."""
    frame = await visitor.start(server.recipe, **{server.choice: kind})
    return str(frame["job"])


async def result(visitor: Visitor, frame: Frame) -> Any:
    """The result of a job. A large one is fetched from where its last frame says that it is."""
    if "result_url" not in frame:
        return frame["result"]
    async with visitor.session.get(visitor.stack.url + frame["result_url"]) as answer:
        answer.raise_for_status()
        return (await answer.json())["result"]


async def reaches(server: Server, handle: str, state: str) -> None:
    """Wait until the server itself says that a job is in this state."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(server.state, handle) != state:
            await asyncio.sleep(0.2)


async def test_a_job_succeeds(server: Server, running: Stack) -> None:
    async with browse(running) as visitor:
        last = await visitor.ended(await started(visitor, server, "fine"))
        assert last["state"] == "succeeded", last
        assert await result(visitor, last) == server.fine


async def test_a_job_fails_with_its_reason(server: Server, running: Stack) -> None:
    async with browse(running) as visitor:
        last = await visitor.ended(await started(visitor, server, "broken"))
    assert last["state"] == "failed", last
    assert server.broken in last["error"]


async def test_a_job_is_cancelled_here_and_there(server: Server, running: Stack) -> None:
    async with browse(running) as visitor:
        job_id = await started(visitor, server, "slow")
        await visitor.until(lambda f: f.get("job") == job_id and f["state"] == "running")
        handle = await asyncio.to_thread(running.handle, job_id)
        await reaches(server, handle, server.at_work)
        await visitor.send({"action": "cancel", "job": job_id})
        last = await visitor.ended(job_id)
    assert last["state"] == "cancelled", last
    await reaches(server, handle, server.stopped)


async def test_a_result_of_100_kb_arrives_whole(server: Server, running: Stack) -> None:
    async with browse(running) as visitor:
        last = await visitor.ended(await started(visitor, server, "large"))
        assert last["state"] == "succeeded", last
        assert "result_url" in last
        assert await result(visitor, last) == server.large


async def test_jobs_of_all_kinds_do_not_meet(server: Server, running: Stack) -> None:
    kinds = ["fine", "broken", "large"] * 2
    async with browse(running) as visitor:
        jobs = {await started(visitor, server, kind): kind for kind in kinds}
        ended = await visitor.ends(set(jobs))
        for job_id, kind in jobs.items():
            last = ended[job_id]
            if kind == "broken":
                assert server.broken in last["error"]
            else:
                assert await result(visitor, last) == getattr(server, kind)
