"""The wire: every message and every wrong input.

Against a real web process with workers, RabbitMQ and the demo backend.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from progrock import doors
from progrock.errors import Refused
from tests.services import PATIENCE, Stack
from tests.visitor import browse


def authorize(scope: dict[str, Any], backend: str, params: dict[str, Any]) -> dict[str, Any]:
    """What the stack of these tests has as PROGROCK_AUTHORIZE."""
    if params.get("wish") == "forbidden":
        raise Refused("over_quota", f"Nobody renders that, {scope['user']} of {backend}.")
    if params.get("wish") == "mistake":
        return {}["nothing"]  # type: ignore[no-any-return, call-overload]
    return params


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """One stack for the tests that leave it as it was."""
    env = {"PROGROCK_MAX_ACTIVE_JOBS": "5", "PROGROCK_AUTHORIZE": f"{__name__}.authorize"}
    with stack(workers=2, env=env) as up:
        yield up


async def test_the_first_frame_is_a_snapshot_with_the_backends(running: Stack) -> None:
    async with browse(running) as browser:
        first = await browser.until(lambda _: True)
    assert first["type"] == "snapshot"
    assert first["jobs"] == []
    assert first["backends"][0] == {
        "name": "render",
        "title": "Film",
        "start": True,
        "progress": True,
        "cancel": True,
        "label": "{params.film}",
        "params": first["backends"][0]["params"],
    }
    assert "film" in first["backends"][0]["params"]["properties"]


async def test_a_job_is_watched_from_start_to_result(running: Stack) -> None:
    async with browse(running) as browser:
        queued = await browser.start("render", seconds=6)
        assert (queued["state"], queued["complete"], queued["version"]) == ("queued", False, 1)
        last = await browser.ended(queued["job"])
    frames = [f for f in browser.frames if f.get("job") == queued["job"]]
    versions = [f["version"] for f in frames]
    assert versions == sorted(set(versions)), "versions only grow"
    assert {"queued", "running", "succeeded"} <= {f["state"] for f in frames}
    shown = [f["progress"] for f in frames if f["state"] == "running" and f["progress"]]
    assert shown, "progress moved while the job ran"
    assert all(0 <= progress <= 100 for progress in shown)
    assert (last["progress"], last["state"]) == (100, "succeeded")
    assert last["result"]
    assert last["ended"]
    expected = {
        "type",
        "job",
        "request",
        "backend",
        "label",
        "version",
        "state",
        "progress",
        "complete",
        "message",
    }
    assert last.keys() == expected | {"cancelling", "created", "ended", "result"}


async def test_a_client_of_2017_that_knows_start_progress_and_complete_is_served(
    running: Stack,
) -> None:
    async with browse(running) as browser:
        await browser.send('{"action": "start", "params": {"seconds": 1}}')
        await browser.until(lambda f: f.get("complete"))
        assert any("progress" in f for f in browser.frames)


async def test_a_backend_that_cannot_tell_its_progress_shows_none(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("transcribe", seconds=6)
        await browser.ended(job["job"])
    assert {f["progress"] for f in browser.frames if f.get("state") == "running"} == {None}


async def test_a_failing_job_ends_with_its_error(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=1, outcome="fail")
        last = await browser.ended(job["job"])
    assert last["state"] == "failed"
    assert last["error"]
    assert "result" not in last


async def test_a_ping_is_answered_with_a_beat_at_once(running: Stack) -> None:
    async with browse(running) as browser:
        await browser.send({"action": "ping"})
        await browser.until(lambda f: f == {"type": "beat"}, seconds=5)


async def test_the_same_request_twice_is_one_job(running: Stack) -> None:
    async with browse(running) as browser:
        await browser.send({"action": "start", "request": "same", "params": {"seconds": 1}})
        first = await browser.until(lambda f: f.get("request") == "same")
        await browser.send({"action": "start", "request": "same", "params": {"seconds": 1}})
        second = await browser.until(lambda f: f.get("request") == "same")
        await browser.ended(first["job"])
    assert first["job"] == second["job"]


async def test_a_cancelled_job_ends_as_cancelled(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=60)
        await browser.until(lambda f: f.get("state") == "running")
        await browser.send({"action": "cancel", "job": job["job"]})
        last = await browser.ended(job["job"])
        assert last["state"] == "cancelled"
        assert any(f.get("cancelling") for f in browser.frames)
        await browser.send({"action": "cancel", "job": job["job"]})
        again = await browser.until(lambda f: f.get("job") == job["job"])
        assert again["version"] == last["version"], (
            "there is nothing to cancel any more, and nothing changed"
        )
        async with browser.session.get(f"{running.url}/jobs/{job['job']}") as answer:
            milestones = (await answer.json())["milestones"]
        assert [each["what"] for each in milestones] == [
            "queued", "started", "cancel_asked", "cancelled"
        ]  # fmt: skip
        assert (milestones[0]["at"], milestones[-1]["at"]) == (last["created"], last["ended"])
        assert not [f for f in browser.frames if "milestones" in f]


async def test_a_job_runs_again_with_the_params_that_it_had(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=1, outcome="fail")
        await browser.ended(job["job"])
        await browser.send({"action": "again", "job": job["job"], "request": "anew"})
        anew = await browser.until(lambda f: f.get("request") == "anew")
        assert anew["job"] != job["job"]
        async with browser.session.get(f"{running.url}/jobs/{job['job']}") as answer:
            last = (await answer.json())["milestones"][-1]
        assert (last["what"], last["text"]) == ("again", anew["job"])
        assert (await browser.ended(anew["job"]))["state"] == "failed"
        await browser.send({"action": "again", "job": str(uuid.uuid4()), "request": "none"})
        error = await browser.error()
        assert (error["code"], error["request"]) == ("unknown_job", "none")


async def test_the_projects_own_function_refuses_a_start_and_its_mistake_is_not_told(
    running: Stack,
) -> None:
    async with browse(running) as browser:
        for wish, code, words in (
            ("forbidden", "over_quota", "Nobody renders that, AnonymousUser of render."),
            ("mistake", "misconfigured", doors.CANNOT_TELL),
        ):
            refused = await browser.start(wish=wish)
            assert (refused["type"], refused["code"], refused["message"]) == ("error", code, words)
        job = await browser.start(seconds=1)
        await browser.ended(job["job"])
    assert "the function of PROGROCK_AUTHORIZE failed" in running.logs("web")


async def test_a_reconnect_shows_what_went_on_meanwhile(running: Stack) -> None:
    async with browse(running) as browser:
        job = await browser.start("render", seconds=2)
        await browser.socket.close()
        async with browse(running, browser.session) as again:
            snapshot = await again.until(lambda f: f["type"] == "snapshot")
            assert [f["job"] for f in snapshot["jobs"]] == [job["job"]]
            if not snapshot["jobs"][0]["complete"]:
                await again.ended(job["job"])
        async with browse(running, browser.session) as later:
            snapshot = await later.until(lambda f: f["type"] == "snapshot")
            assert snapshot["jobs"][0]["complete"]
            assert snapshot["jobs"][0]["result"]


async def test_two_sockets_of_a_visitor_see_the_same_and_another_visitor_nothing(
    running: Stack,
) -> None:
    async with browse(running) as one, browse(running) as stranger:
        await one.until(lambda f: f["type"] == "snapshot")
        await stranger.until(lambda f: f["type"] == "snapshot")
        async with browse(running, one.session) as two:
            await two.until(lambda f: f["type"] == "snapshot")
            job = await one.start("render", seconds=1)
            assert (await two.ended(job["job"]))["state"] == "succeeded"
        await stranger.send({"action": "cancel", "job": job["job"]})
        error = await stranger.error()
        assert error["code"] == "unknown_job"
        assert [f for f in stranger.frames if f["type"] == "job"] == []
        async with stranger.session.get(f"{running.url}/jobs/{job['job']}") as answer:
            assert answer.status == 404
        async with one.session.get(f"{running.url}/jobs/{job['job']}") as answer:
            assert (await answer.json())["state"] == "succeeded"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hello", "bad_json"),
        ("[1, 2]", "bad_json"),
        ("{", "bad_json"),
        ("NaN", "bad_json"),
        ({"action": "explode"}, "unknown_action"),
        ({}, "unknown_action"),
        ({"action": ["start"]}, "unknown_action"),
        ({"action": "start", "backend": "nope"}, "unknown_backend"),
        ({"action": "start", "backend": "http://evil.example/"}, "unknown_backend"),
        ({"action": "start", "backend": {"a": 1}}, "unknown_backend"),
        ({"action": "start", "params": [1]}, "bad_params"),
        ({"action": "start", "params": "x"}, "bad_params"),
        ({"action": "start", "request": 7}, "bad_request"),
        ({"action": "cancel"}, "unknown_job"),
        ({"action": "cancel", "job": 7}, "unknown_job"),
        ({"action": "cancel", "job": str(uuid.uuid4())}, "unknown_job"),
        ({"action": "start", "params": {"x": "y" * 70_000}}, "too_large"),
    ],
)
async def test_wrong_input_gets_a_code_and_a_sentence_and_changes_nothing(
    running: Stack, message: object, code: str
) -> None:
    async with browse(running) as browser:
        await browser.send(message)
        error = await browser.error()
        assert error["code"] == code
        assert len(error["message"]) > 10
        job = await browser.start("render", seconds=1)
        assert job["state"] == "queued", "the socket stays open, and works"
        await browser.ended(job["job"])


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (r'{"half": "ok \ud83c"}', "not JSON"),
        ('{"wide": 18446744073709551616}', "more than 64 bits"),
        ('{"wide": [-9223372036854775809]}', "more than 64 bits"),
        ('{"no": NaN}', "not JSON"),
    ],
)
async def test_a_start_that_is_not_quite_json_is_refused_by_its_request(
    running: Stack, params: str, told: str
) -> None:
    async with browse(running) as browser:
        await browser.send(f'{{"action": "start", "params": {params}, "request": "mine"}}')
        error = await browser.error()
        assert (error["code"], error["request"]) == ("bad_json", "mine")
        assert told in error["message"]


async def test_the_widest_whole_numbers_reach_the_backend_as_they_are(running: Stack) -> None:
    wide = {"most": 2**64 - 1, "least": -(2**63), "text": str(2**64)}
    async with browse(running) as browser:
        job = await browser.start("render", seconds=0.2, **wide)
        await browser.ended(job["job"])
    imports = "from progrock.models import Job"
    show = f"print(Job.objects.get(pk='{job['job']}').params)"
    assert str({"seconds": 0.2, **wide}) in running.shell(f"{imports}; {show}")


async def test_a_binary_frame_is_refused_and_the_socket_stays(running: Stack) -> None:
    async with browse(running) as browser:
        await browser.socket.send_bytes(b'{"action": "start"}')
        assert (await browser.error())["code"] == "bad_frame"


async def test_a_frame_above_the_servers_limit_closes_the_socket_with_1009(running: Stack) -> None:
    async with browse(running) as browser:
        await browser.until(lambda f: f["type"] == "snapshot")
        with suppress(ConnectionError):  # it may close while this is still on its way
            await browser.send("x" * 1_100_000)
        async with asyncio.timeout(PATIENCE):
            while (await browser.socket.receive()).type == aiohttp.WSMsgType.TEXT:
                pass
        assert browser.socket.close_code == 1009


async def test_a_flood_of_starts_is_stopped_at_the_limit(running: Stack) -> None:
    async with browse(running) as browser:
        for _ in range(8):
            await browser.send({"action": "start", "params": {"seconds": 60}})
        errors = [await browser.error() for _ in range(3)]
        assert {error["code"] for error in errors} == {"too_many_jobs"}
        jobs = {f["job"] for f in browser.frames if f["type"] == "job"}
        assert len(jobs) == 5
        for job in jobs:
            await browser.send({"action": "cancel", "job": job})
        left = set(jobs)
        while left:
            left.discard((await browser.until(lambda f: f.get("complete")))["job"])


async def test_a_page_of_another_site_is_refused(running: Stack) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError):
        async with browse(running, Origin="https://evil.example"):
            pass


async def test_a_visitor_without_a_login_is_told_and_closed_with_4401(
    stack: Callable[..., Stack],
) -> None:
    with stack(workers=0, env={"PROGROCK_ANONYMOUS": "0"}) as up:
        async with browse(up) as browser:
            assert (await browser.error())["code"] == "login_required"
            assert (await browser.socket.receive()).type == aiohttp.WSMsgType.CLOSE
            assert browser.socket.close_code == 4401


async def test_health_is_told(stack: Callable[..., Stack]) -> None:
    async def health() -> dict[str, str]:
        async with session.get(f"{up.url}/healthz") as answer:
            assert answer.status == 200
            found: dict[str, str] = await answer.json()
            return found

    with stack(workers=0) as up:
        async with aiohttp.ClientSession() as session:
            unused = "not in use: no socket was opened yet"
            assert await health() == {"database": "ok", "rabbitmq": unused}
            async with browse(up) as browser:
                await browser.snapshot()
                async with asyncio.timeout(PATIENCE):
                    while await health() != {"database": "ok", "rabbitmq": "ok"}:
                        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ('{"action": DEEP}', "unknown_action"),
        ('{"action": "start", "backend": DEEP}', "unknown_backend"),
        ('{"action": "start", "params": {"x": DEEP}}', "bad_params"),
        ('{"action": "start", "request": DEEP}', "bad_request"),
        ('{"action": "cancel", "job": DEEP}', "unknown_job"),
        ("DEEP", "bad_json"),
    ],
)
async def test_a_deeply_nested_frame_is_answered_and_the_socket_lives(
    running: Stack, frame: str, code: str
) -> None:
    async with browse(running) as browser:
        for depth in (240, 300, 990):
            await browser.send(frame.replace("DEEP", "[" * depth + "]" * depth))
            if depth == 240 and code == "bad_params":
                await browser.until(lambda f: f["type"] == "job")
            else:
                assert (await browser.error())["code"] == code
        await browser.send({"action": "dance"})
        assert (await browser.error())["code"] == "unknown_action"
