"""Some of the recipes through the whole product: a browser's socket, RabbitMQ, a worker, the API.

`test_apis.py` plays all of them against the backend and the decisions alone.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tests.apis import mock
from tests.integration.test_apis import CASSETTES, RECIPES, environment
from tests.services import PATIENCE, Stack
from tests.visitor import Frame, Visitor, browse

#: The scenarios by their APIs, no two of the same shape.
PLAYED = {
    "flower": "cancel",
    "galaxy": "success",
    "jenkins": "success",
    "ogc_api_processes": "success",
    "openai_batches": "success",
    "replicate": "cancel",
    "snowflake": "failure",
}


def table(name: str) -> str:
    """The recipe of an API, open to browsers, and with short intervals."""
    text = re.sub(r"^interval = .*$", "interval = 0.2", RECIPES[name].read_text(), flags=re.M)
    return text.replace(f"[{name}]\n", f"[{name}]\nbrowser = true\n", 1)


async def test_apis_of_all_shapes_reach_the_browser(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    backends = tmp_path / "backends.toml"
    backends.write_text("\n\n".join(map(table, PLAYED)))
    async with AsyncExitStack() as all_of_them:
        mocks = {
            name: await all_of_them.enter_async_context(mock.Mock(mock.load(CASSETTES[name])))
            for name in PLAYED
        }
        variables: dict[str, str] = {}
        for name, server in mocks.items():
            variables |= environment(name, server.origin)
        up = await asyncio.to_thread(stack, workers=0, backends=backends, env=variables)
        async with browse(up) as visitor:
            played = {}
            for name, server in mocks.items():
                params = server.cassette["scenarios"][PLAYED[name]].get("params")
                if params is None:
                    params = server.cassette["params"]
                job = (await visitor.start(name, **params))["job"]
                played[job] = server.scenario(PLAYED[name], job), server
            await asyncio.to_thread(up.start_worker)
            steps = [
                asyncio.create_task(step_by_step(visitor, job, *each))
                for job, each in played.items()
            ]
            ends = await visitor.ends(set(played))
            await asyncio.gather(*steps)
    for job, (scenario, server) in played.items():
        came_to_its_end(ends[job], scenario["expect"])
        assert not server.problems


async def step_by_step(
    visitor: Visitor, job: str, scenario: dict[str, Any], server: mock.Mock
) -> None:
    """Go on to the next step of a scenario when the API has been looked at."""
    async with asyncio.timeout(PATIENCE):
        while "start" not in server.asked:
            await asyncio.sleep(0.02)
        for step in scenario["steps"]:
            server.step, before = step, len(server.asked)
            if step == scenario.get("cancel_at"):
                await visitor.send({"action": "cancel", "job": job})
            while len(server.asked) == before:
                await asyncio.sleep(0.02)


def came_to_its_end(frame: Frame, expect: dict[str, Any]) -> None:
    """The last frame of a job is what the cassette expects."""
    assert frame["state"] == expect["states"][-1], frame
    if "result" in expect:
        assert frame["result"] == expect["result"]
    assert expect.get("error", "") in (frame.get("error") or "")
