"""progrock.js by itself, on somebody else's page: the socket. The test plays the server."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.pages import part
from tests.browser.played import JOB, START, WAKE, Server, comes_back, element, frame, hears
from tests.services import PATIENCE


async def test_a_start_resolves_with_the_first_frame_of_its_request(
    client: Page, server: Server
) -> None:
    await client.evaluate(START, {"backend": "render", "params": {"seconds": 3}})
    message = await server.message()
    assert message == {
        "action": "start",
        "backend": "render",
        "params": {"seconds": 3},
        "request": message["request"],
    }
    assert re.fullmatch("[0-9a-f]{32}", message["request"])
    server.send(frame(job="another", request="other"))
    server.send(frame(request=message["request"]))
    await expect(client).to_have_title(f"started {JOB}")


async def test_a_start_rejects_with_the_servers_code(client: Page, server: Server) -> None:
    await client.evaluate(START, {})
    request = (await server.message())["request"]
    server.send(
        {"type": "error", "code": "too_many_jobs", "message": "Too many.", "request": request}
    )
    await expect(client).to_have_title("ProgressError too_many_jobs")
    server.send(
        {"type": "error", "code": "unknown_job", "message": "No such job.", "request": None}
    )
    assert [error["code"] for error in await hears(client, "error")] == ["unknown_job"]


async def test_params_that_no_frame_can_hold_are_refused_here(client: Page) -> None:
    await client.evaluate(START, {"params": {"text": "x" * 70_000}})
    await expect(client).to_have_title("ProgressError too_large")


async def test_an_unanswered_start_is_sent_again_with_the_same_request(
    client: Page, server: Server
) -> None:
    await client.evaluate(START, {"request": "mine"})
    first = await server.message()
    await server.socket.close(code=1012)
    await comes_back(client, server)
    await server.connected()
    assert await server.message() == first
    await server.socket.close(code=1006 + 5)
    await comes_back(client, server)
    await server.connected(frame(request="mine"))
    await expect(client).to_have_title(f"started {JOB}")
    assert server.messages.empty()


async def test_a_cancel_while_offline_is_sent_once_the_connection_is_back(
    client: Page, server: Server
) -> None:
    server.send(frame())
    await hears(client, "job")
    await server.socket.close(code=1012)
    await hears(client, "state", 2)
    await client.evaluate("id => socket.cancel(id)", JOB)
    await comes_back(client, server)
    await server.connected(frame())
    assert await server.message() == {"action": "cancel", "job": JOB}


async def test_older_versions_are_dropped(client: Page, server: Server) -> None:
    for version in (5, 4, 5, 6):
        server.send(frame(version))
    server.send({"type": "status", "live": True, "message": ""})
    await hears(client, "status")
    assert [job["version"] for job in await hears(client, "job")] == [5, 6]


async def test_frames_of_a_kind_unknown_here_do_no_harm(client: Page, server: Server) -> None:
    server.send({"type": "from the future"})
    server.send({"type": "beat"})
    server.send(frame())
    assert len(await hears(client, "job")) == 1


async def test_delays_are_told_and_their_end_too(client: Page, server: Server) -> None:
    server.send({"type": "status", "live": False, "message": "Updates are delayed."})
    server.send({"type": "status", "live": True, "message": ""})
    states = [(detail["state"], detail["message"]) for detail in await hears(client, "state", 3)]
    assert states == [("live", ""), ("delayed", "Updates are delayed."), ("live", "")]


async def test_a_connection_without_beats_is_given_up(client: Page, server: Server) -> None:
    await client.clock.run_for(35_000)
    server.send({"type": "beat"})
    server.send({"type": "status", "live": True, "message": ""})
    await hears(client, "status")
    await client.clock.run_for(35_000)
    assert await client.evaluate("socket.state") == "live"
    await client.clock.run_for(7_000)
    assert await client.evaluate("socket.state") == "offline"
    await comes_back(client, server)
    await server.connected()
    assert (await hears(client, "state", 3))[-1]["state"] == "live"


async def test_a_refused_login_is_told_and_ends_the_trying(client: Page, server: Server) -> None:
    server.send(frame())
    await hears(client, "job")
    await server.socket.close(code=1012)
    await comes_back(client, server)
    refused = await asyncio.wait_for(server.sockets.get(), PATIENCE)
    await client.evaluate(START, {})
    refused.send(
        json.dumps(
            {"type": "error", "code": "login_required", "message": "Sign in.", "request": None}
        )
    )
    await refused.close(code=4401)
    assert (await hears(client, "state", 3))[-1] == {
        "state": "refused",
        "message": "Sign in.",
        "before": "offline",
    }
    await expect(client).to_have_title("ProgressError login_required")
    assert await client.evaluate("socket.jobs.size") == 0, (
        "the page still knows jobs that the visitor may no longer see"
    )
    await client.clock.run_for(120_000)
    assert server.sockets.empty()


async def test_a_closed_socket_stays_closed(client: Page, server: Server) -> None:
    await client.evaluate("socket.close()")
    await client.evaluate(START, {})
    await expect(client).to_have_title("ProgressError closed")
    await client.clock.run_for(120_000)
    assert server.sockets.empty()


async def test_attempts_grow_rarer(client: Page, server: Server) -> None:
    await server.socket.close(code=1012)
    for _ in range(8):
        await comes_back(client, server)
        await (await asyncio.wait_for(server.sockets.get(), PATIENCE)).close(code=1013)
        await hears(client, "state", 2)
    await client.clock.run_for(2_000)
    assert server.sockets.empty()
    await client.clock.run_for(
        6_500
    )  # and never so rare that a page is stale 10 s after a recovery
    await server.connected()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ('{ params: { text: "ok 🎉".slice(0, 4) } }', "bad_params"),
        ('{ params: { ["🎉".slice(1)]: 1 } }', "bad_params"),
        ("{ params: { n: 1n } }", "bad_params"),
        ('{ request: "🎉".slice(0, 1) }', "bad_request"),
        ('{ request: "x".repeat(101) }', "bad_request"),
        ("{ request: 5 }", "bad_request"),
        ('{ request: "" }', "bad_request"),
    ],
)
async def test_a_start_that_no_server_can_read_is_rejected(
    client: Page, options: str, code: str
) -> None:
    await client.evaluate(f"() => ({START})({options})")
    await expect(client).to_have_title(f"ProgressError {code}")


async def test_whole_emoji_and_text_that_looks_like_half_of_one_are_sent(
    client: Page, server: Server
) -> None:
    params = {"text": "ok 🎉", "path": "C:\\ud83d"}
    await client.evaluate(START, {"params": params, "request": "🎉" * 60})
    assert (await server.message())["params"] == params


async def test_an_error_without_a_request_settles_the_start_that_waits(
    client: Page, server: Server
) -> None:
    await client.evaluate(START, {})
    await server.message()
    server.send({"type": "error", "code": "unknown_job", "message": "Gone.", "request": None})
    server.send({"type": "error", "code": "bad_json", "message": "No JSON.", "request": None})
    await expect(client).to_have_title("ProgressError bad_json")
    assert [error["code"] for error in await hears(client, "error")] == ["unknown_job"]


async def test_of_several_starts_the_one_that_the_server_cannot_read_is_found(
    client: Page, server: Server
) -> None:
    await client.evaluate(
        """() => { window.ends = {};
          for (const request of ["a", "b", "c"]) socket.start({ request }).then(
            () => { ends[request] = "started"; }, ({ code }) => { ends[request] = code; }); }"""
    )
    assert [(await server.message())["request"] for _ in "abc"] == ["a", "b", "c"]
    server.send({"type": "error", "code": "bad_json", "message": "No JSON.", "request": None})
    await server.connected()
    assert (await server.message())["request"] == "a"
    assert server.messages.empty()
    server.send(frame(job="A", request="a"))
    assert (await server.message())["request"] == "b"
    server.send({"type": "error", "code": "bad_json", "message": "No JSON.", "request": None})
    assert (await server.message())["request"] == "c"
    server.send(frame(job="C", request="c"))
    await client.wait_for_function("Object.keys(ends).length === 3")
    assert await client.evaluate("ends") == {"a": "started", "b": "bad_json", "c": "started"}


async def test_a_start_whose_outcome_is_unknown_is_asked_for_again(
    client: Page, server: Server
) -> None:
    await client.evaluate(START, {})
    first = await server.message()
    error = {"type": "error", "code": "outcome_unknown", "message": "It may yet start."}
    server.send({**error, "request": first["request"]})
    server.send({"type": "status", "live": True, "message": ""})
    await hears(client, "status")
    assert server.messages.empty()
    await client.clock.run_for(2_100)
    assert await server.message() == first
    server.send(frame(request=first["request"]))
    await expect(client).to_have_title(f"started {JOB}")


async def test_a_cancel_whose_outcome_is_unknown_rejects_no_start(
    client: Page, server: Server
) -> None:
    await client.evaluate(START, {})
    first = await server.message()
    server.send({"type": "error", "code": "outcome_unknown", "message": "Who knows?"})
    server.send(frame(request=first["request"]))
    await expect(client).to_have_title(f"started {JOB}")
    assert [error["code"] for error in await hears(client, "error")] == ["outcome_unknown"]


BACK = pytest.mark.parametrize("event", ["online", "visibilitychange", "pageshow"])


@BACK
async def test_a_connection_that_died_without_a_word_is_noticed_when_somebody_is_back(
    client: Page, server: Server, event: str
) -> None:
    await client.evaluate(WAKE, event)
    assert await server.message() == {"action": "ping"}
    await client.clock.run_for(5_100)
    assert await client.evaluate("socket.state") == "offline"
    await client.clock.run_for(1_000)
    await server.connected()
    assert (await hears(client, "state", 3))[-1]["state"] == "live"


@BACK
@pytest.mark.parametrize(
    "answer",
    [
        {"type": "beat"},
        {"type": "error", "code": "unknown_action", "message": "No ping here.", "request": None},
    ],
)
async def test_a_connection_that_answers_is_kept(
    client: Page, server: Server, event: str, answer: dict[str, Any]
) -> None:
    await client.evaluate(WAKE, event)
    assert await server.message() == {"action": "ping"}
    server.send(answer)
    server.send({"type": "status", "live": True, "message": ""})
    await hears(client, "status")
    await client.clock.run_for(20_000)
    assert await client.evaluate("socket.state") == "live"
    assert not await client.evaluate('heard.some(([type]) => type === "error")')
    assert server.sockets.empty()


async def test_a_visitor_who_signs_in_without_a_page_load_is_connected_again(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await page.evaluate(
        """async () => {
          const { ProgressSocket } = await import("/static/progrock/progrock.js");
          window.socket = ProgressSocket.shared();
          socket.addEventListener(
            "refused", ({ detail }) => { document.title = detail.code; }); }"""
    )
    refused = await asyncio.wait_for(server.sockets.get(), PATIENCE)
    error = {"type": "error", "code": "login_required", "message": "Sign in.", "request": None}
    refused.send(json.dumps(error))
    await refused.close(code=4401)
    await expect(page).to_have_title("login_required")
    await page.evaluate("socket.reconnect()")
    await page.evaluate(START, {})
    await server.connected(frame())
    assert (await server.message())["action"] == "start"
    await expect(part(element(page), "state")).to_have_text("Running")


async def test_shared_after_close_is_a_new_socket(client: Page, server: Server) -> None:
    await client.evaluate(
        """async () => {
          const { ProgressSocket } = await import("/static/progrock/progrock.js");
          ProgressSocket.shared().close();
          window.socket = ProgressSocket.shared(); }"""
    )
    await asyncio.wait_for(server.sockets.get(), PATIENCE)
    await server.connected()
    await client.wait_for_function('socket.state === "live"')


async def test_a_text_has_the_plural_forms_of_the_pages_language(client: Page) -> None:
    said = await client.evaluate(
        """async () => {
          const { sentence, texts } = await import("/static/progrock/progrock.js");
          document.documentElement.lang = "pl";
          texts.jobs = { one: "{count} zadanie", few: "{count} zadania", other: "{count} zadań" };
          return [1, 3, 5, 22].map((count) => sentence("jobs", { count })); }"""
    )
    assert said == ["1 zadanie", "3 zadania", "5 zadań", "22 zadania"]


async def test_a_job_runs_again(client: Page, server: Server) -> None:
    await client.evaluate(
        "job => { socket.again(job).then(({ job }) => { document.title = job; }); }", JOB
    )
    message = await server.message()
    assert message == {"action": "again", "job": JOB, "request": message["request"]}
    server.send(frame(job="another", request=message["request"]))
    await expect(client).to_have_title("another")


async def test_a_start_without_an_answer_is_sent_again_until_the_page_gives_it_up(
    client: Page, server: Server
) -> None:
    await client.evaluate(
        """() => { window.gives_up = new AbortController();
          socket.start({ request: "mine", signal: gives_up.signal }).catch(
            ({ code }) => { document.title = code; }); }"""
    )
    first = await server.message()
    await client.clock.run_for(18_000)
    assert await server.message() == first
    await client.evaluate("gives_up.abort()")
    await expect(client).to_have_title("aborted")
    await client.clock.run_for(18_000)
    assert server.messages.empty()
