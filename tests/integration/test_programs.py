"""Programs without a browser that use a whole ProgRock over HTTP, with a token."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urljoin

import aiohttp
import pytest
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import ContentDecodePolicy, HeadersPolicy, RequestIdPolicy
from azure.core.polling import LROPoller
from azure.core.polling.base_polling import LROBasePolling
from azure.core.rest import HttpRequest

from tests import bearer
from tests.services import PATIENCE, Stack
from tests.visitor import browse


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack for all of this."""
    with stack(workers=1, env={"PROGROCK_AUDIENCES": "tests.bearer.audiences"}) as up:
        yield up


@asynccontextmanager
async def program() -> AsyncIterator[aiohttp.ClientSession]:
    """A program with a token."""
    headers = {"Authorization": bearer.TOKEN}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield session


async def ended(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Look until a job has ended, as the server's Retry-After says."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with session.get(url) as answer:
                assert answer.status == 200
                job: dict[str, Any] = await answer.json()
                if job["complete"]:
                    return job
                await asyncio.sleep(float(answer.headers["Retry-After"]))


async def test_a_program_starts_a_job_watches_it_and_gets_its_result(running: Stack) -> None:
    async with program() as session, browse(running, session) as watching:
        await watching.snapshot()
        async with session.post(f"{running.url}/jobs", json={"params": {"seconds": 1}}) as answer:
            assert answer.status == 202
            url = answer.headers["Location"]
        job = await ended(session, url)
        assert job["state"] == "succeeded"
        assert (await watching.ended(job["job"]))["result"] == job["result"], "both doors agree"
        async with session.get(f"{url}/result?download") as answer:
            assert await answer.json() == job["result"]
        async with session.post(f"{url}/again", json={"request": "anew"}) as answer:
            anew = await answer.json()
        assert (await watching.ended(anew["job"]))["request"] == "anew"
        pages, next_ = [], "/jobs?limit=1"
        while next_:  # other tests have older jobs
            async with session.get(urljoin(running.url, next_)) as answer:
                page = await answer.json()
            pages.append([frame["job"] for frame in page["jobs"]])
            next_ = page["next"]
        assert pages[:2] == [[anew["job"]], [job["job"]]]


async def test_a_cancel_over_http_reaches_the_backend(running: Stack) -> None:
    async with program() as session, browse(running, session) as watching:
        job = await watching.start(seconds=600)
        await watching.until(lambda f: f.get("job") == job["job"] and f["state"] == "running")
        async with session.delete(f"{running.url}/jobs/{job['job']}") as answer:
            assert (answer.status, (await answer.json())["cancelling"]) == (202, True)
        assert (await watching.ended(job["job"]))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("outcome", "status"), [("succeed", "Succeeded"), ("fail", "Failed"), ("cancel", "Canceled")]
)
def test_azures_own_poller_watches_a_job(running: Stack, outcome: str, status: str) -> None:
    """As docs/http.md shows it: azure-core knows nothing of ProgRock."""
    policies = [
        HeadersPolicy({"Authorization": bearer.TOKEN}),
        RequestIdPolicy(),
        ContentDecodePolicy(),
    ]
    with PipelineClient(f"{running.url}/", policies=policies) as client:
        seconds = 600 if outcome == "cancel" else 1
        params = {"seconds": seconds} | ({"outcome": "fail"} if outcome == "fail" else {})
        asked = HttpRequest("POST", client.format_url("jobs"), json={"params": params})
        started: Any = client.send_request(asked, _return_pipeline_response=True)
        assert started.http_response.status_code == 202
        job = started.context["deserialized_data"]["job"]
        poller = LROPoller(
            client,
            started,
            lambda response: response.context["deserialized_data"],
            LROBasePolling(timeout=1),
        )
        assert poller.status() == "InProgress"
        if outcome == "cancel":
            client.send_request(HttpRequest("DELETE", client.format_url(f"jobs/{job}")))
        if outcome == "succeed":
            last = poller.result(PATIENCE)
            assert (last["job"], last["state"]) == (job, "succeeded")
            assert last["result"]
        else:
            with pytest.raises(HttpResponseError):
                poller.result(PATIENCE)
        assert poller.status() == status
