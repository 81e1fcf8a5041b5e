"""progrock.js by itself, on somebody else's page: the socket and the element.

The test plays the server.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import pytest
from django.template import Context, Template
from django.utils.html import json_script
from playwright.async_api import Locator, Page, Request, Route, WebSocketRoute, expect

from progrock.models import Job
from tests.browser.pages import part
from tests.services import PATIENCE

STATIC = Path(__file__).resolve().parents[2] / "site" / "progrock" / "static"
HOST = "http://host.test"
JOB = "3f2a0000-0000-4000-8000-000000000001"
IMPORT = """<!doctype html><html lang="en"><title>Somebody's page</title>
<link rel="icon" href="/static/progrock/favicon.svg">
<script type="module" src="/static/progrock/progrock.js"></script>
<main><h1>Somebody's page</h1>%s</main></html>"""
CONNECT = """async () => {
  const { ProgressSocket } = await import("/static/progrock/progrock.js");
  window.socket = new ProgressSocket(); window.heard = [];
  for (const type of ["job", "snapshot", "status", "error", "state"])
    socket.addEventListener(type, ({ detail }) => heard.push([type, detail]));
}"""
START = """options => {
  socket.start(options).then(
    job => document.title = "started " + job.job,
    error => document.title = error.name + " " + error.code); }"""


def frame(version: int = 1, **fields: Any) -> dict[str, Any]:
    """A job's frame as the server would send it."""
    state = fields.get("state", "running")
    complete = state not in ("queued", "starting", "running")
    created = "2026-01-02T03:04:05Z"
    base = {
        "type": "job",
        "job": JOB,
        "request": None,
        "backend": "render",
        "version": version,
        "state": state,
    }
    more = {
        "progress": None,
        "complete": complete,
        "message": "",
        "cancelling": False,
        "created": created,
        "ended": None,
    }
    return {**base, **more, **fields}


class Server:
    """The server's side of `/prog/`, played by the test."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[WebSocketRoute] = asyncio.Queue()
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.socket: WebSocketRoute

    def accept(self, socket: WebSocketRoute) -> None:
        """A browser has connected."""
        socket.on_message(lambda text: self.messages.put_nowait(json.loads(text)))
        self.sockets.put_nowait(socket)

    async def connected(self, *jobs: dict[str, Any], cancel: bool = True) -> Self:
        """Wait for the next connection and send it a snapshot."""
        self.socket = await asyncio.wait_for(self.sockets.get(), PATIENCE)
        backends = [{"name": "render", "progress": True, "cancel": cancel}]
        self.send({"type": "snapshot", "jobs": list(jobs), "backends": backends})
        return self

    def send(self, message: dict[str, Any]) -> None:
        """Send a frame."""
        self.socket.send(json.dumps(message))

    async def message(self) -> dict[str, Any]:
        """What the browser sends next."""
        return await asyncio.wait_for(self.messages.get(), PATIENCE)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def embed(
    new_page: Callable[..., Awaitable[Page]], server: Server
) -> Callable[..., Awaitable[Page]]:
    """A page at host.test with this body and a strict CSP; `job=` is what /jobs/<id> answers."""

    async def make(body: str = "", **answers: dict[str, Any]) -> Page:
        async def fulfil(route: Route) -> None:
            path = route.request.url.removeprefix(HOST)
            if path.startswith("/static/"):
                path = path.replace(".5d41402abc4b.js", ".js")  # a name with a hash
                await route.fulfill(path=STATIC / path.removeprefix("/static/"))
            elif path == "/":
                policy = {"Content-Security-Policy": "default-src 'self'"}
                await route.fulfill(body=IMPORT % body, content_type="text/html", headers=policy)
            elif path.startswith("/jobs/") and "job" in answers:
                await route.fulfill(json=answers["job"])
            else:
                await route.fulfill(status=404)

        page = await new_page()
        await page.route(f"{HOST}/**", fulfil)
        await page.route_web_socket(re.compile("/prog/"), server.accept)
        await page.clock.install()
        await page.goto(HOST)
        return page

    return make


@pytest.fixture
async def client(embed: Callable[..., Awaitable[Page]], server: Server) -> Page:
    """A page with a connected ProgressSocket in `socket`, and what it said in `heard`."""
    page = await embed()
    await page.evaluate(CONNECT)
    await server.connected()
    await hears(page, "snapshot")
    return page


async def comes_back(page: Page, server: Server) -> None:
    """Let the page's time pass until it tries to connect again, and no longer."""
    async with asyncio.timeout(PATIENCE):
        while server.sockets.empty():
            await page.clock.run_for(500)


async def hears(page: Page, type_: str, count: int = 1) -> list[Any]:
    """Wait until the socket has emitted so many events of a type; their details."""
    found = await page.evaluate(
        """async ([type, count]) => {
          const found = () => heard.filter(([each]) => each === type).map(([, detail]) => detail);
          const next = () => new Promise(
            done => socket.addEventListener(type, done, { once: true }));
          while (found().length < count) await next();
          return found(); }""",
        [type_, count],
    )
    assert isinstance(found, list)
    return found


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


WAKE = """type => (type === "visibilitychange" ? document : window).dispatchEvent(
  new PageTransitionEvent(type, { persisted: type === "pageshow" }))"""
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


# The element


def element(page: Page) -> Locator:
    return page.locator("job-progress")


async def test_an_element_shows_its_job_on_anybodys_page(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(
        f'<job-progress job="{JOB}"></job-progress><job-progress job="other"></job-progress>'
    )
    await server.connected(frame(progress=41.9, message="<b>half</b> way"), frame(job="other"))
    card = element(page).first
    await expect(part(card, "name")).to_have_text("render 3f2a")
    await expect(part(card, "percent")).to_have_text("41 %")
    await expect(part(card, "message")).to_have_text("<b>half</b> way")
    server.send(
        frame(
            2,
            state="succeeded",
            progress=100,
            result={"html": "<img src=x>"},
            ended="2026-01-02T04:14:05Z",
        )
    )
    await expect(part(card, "result")).to_contain_text("<img src=x>")
    await expect(part(card, "time")).to_contain_text("took 1 h 10 min")
    await expect(part(card, "cancel")).to_be_hidden()
    assert server.sockets.empty(), "two elements, one socket"


async def test_the_element_cancels_once(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}" label="Invoice export"></job-progress>')
    await server.connected(frame())
    await page.get_by_role("button", name="Cancel Invoice export").click()
    assert await server.message() == {"action": "cancel", "job": JOB}
    server.send(frame(2, cancelling=True))
    button = page.get_by_role("button", name="Cancelling Invoice export")
    await expect(button).to_have_attribute("aria-disabled", "true")
    await expect(button).to_be_focused()
    await button.dispatch_event("click")
    server.send(frame(3, state="cancelled"))
    await expect(element(page)).to_have_attribute("state", "cancelled")
    await expect(element(page)).to_be_focused()
    assert server.messages.empty()


async def test_a_backend_that_cannot_cancel_has_no_button(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(), cancel=False)
    await expect(part(element(page), "state")).to_have_text("Running")
    await expect(part(element(page), "cancel")).to_be_hidden()


async def test_a_large_result_is_a_link(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(state="succeeded", result=None, result_url=f"/jobs/{JOB}"))
    await expect(page.get_by_role("link", name="Open the whole result")).to_have_attribute(
        "href", f"/jobs/{JOB}"
    )


async def test_a_failed_job_that_never_knew_its_progress_has_no_bar(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(state="failed", error="No disk left"))
    await expect(part(element(page), "error")).to_have_text("No disk left")
    await expect(part(element(page), "progress")).to_be_hidden()


async def test_an_element_says_when_it_is_out_of_touch(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame())
    await expect(part(element(page), "state")).to_have_text("Running")
    await expect(page.get_by_role("status")).to_have_count(0)
    await server.socket.close(code=1012)
    await expect(part(element(page), "connection")).to_contain_text("The connection is lost")
    await comes_back(page, server)
    await server.connected(frame(2))
    await expect(part(element(page), "connection")).to_be_hidden()
    await page.clock.run_for(5_000)
    await expect(page.get_by_role("status")).to_have_text("Connected")


async def test_the_template_tag_shows_a_job_before_any_script_runs(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    job = Job(
        id=JOB,
        backend="render",
        state="running",
        progress=41.9,
        message="Half < way",
        audience="user:1",
    )
    page = await embed(
        Template("{% load progrock %}{% job_progress job %}{% job_progress job %}").render(
            Context({"job": job})
        )
    )
    scripts = page.locator("script:not([type='application/json'])")
    await expect(scripts).to_have_count(2)  # the page's own, and one for both tags
    card = element(page).first
    await expect(page.get_by_role("progressbar", name="render 3f2a")).to_have_count(2)
    await expect(part(card, "percent")).to_have_text("41 %")
    await expect(part(card, "message")).to_have_text("Half < way")
    bar = part(card, "progress")
    await bar.evaluate("bar => { bar.marked = true; }")
    await server.connected(frame(progress=50))
    await expect(part(card, "percent")).to_have_text("50 %")
    await expect(part(card, "progress")).to_have_count(1)
    assert await bar.evaluate("bar => bar.marked"), "the bar was built anew"
    order = [
        "name",
        "state",
        "cancel",
        "progress",
        "percent",
        "message",
        "error",
        "result",
        "connection",
        "time",
    ]
    assert (
        await card.locator("> *").evaluate_all("parts => parts.map(part => part.dataset.part)")
        == order
    )


async def test_a_job_too_old_for_the_snapshot_is_asked_for(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    tag = Template("{% load progrock %}{% job_progress job label='Invoice <1>' %}")
    page = await embed(
        tag.render(Context({"job": JOB})),
        job=frame(9, state="succeeded", progress=100, result="done"),
    )
    await server.connected()
    await expect(part(element(page), "name")).to_have_text("Invoice <1>")
    await expect(part(element(page), "result")).to_contain_text("done")


async def test_somebody_elses_job_is_not_available(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    tag = Template("{% load progrock %}{% job_progress job %}")
    page = await embed(tag.render(Context({"job": JOB})))
    await server.connected()
    await expect(part(element(page), "state")).to_have_text("Not available")
    await expect(part(element(page), "cancel")).to_be_hidden()


async def test_an_element_tells_the_page_of_each_change(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await page.evaluate(
        """document.addEventListener(
             'job', ({ detail }) => { document.title += ' ' + detail.version; })"""
    )
    await server.connected(frame())
    server.send(frame(2))
    server.send(frame(2))
    server.send(frame(3))
    await expect(page).to_have_title("Somebody's page 1 2 3")


async def test_each_attribute_is_a_property_that_reflects(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed()
    found = await page.evaluate(
        """async job => {
          await customElements.whenDefined("job-progress");
          const element = document.createElement("job-progress");
          const given = { job, label: "Invoice", src: "/other/prog/", href: "/x", state: "queued" };
          // As React 19 does: by property where the element has one.
          for (const [name, value] of Object.entries(given))
            if (name in element) element[name] = value; else throw new Error(name);
          element.href = undefined;
          document.querySelector("main").append(element);
          return [...element.attributes].map(({ name }) => name).sort(); }""",
        JOB,
    )
    assert {"job", "label", "src", "state"} <= set(found)
    assert "href" not in found
    await server.connected(frame())
    assert server.socket.url.endswith("/other/prog/")
    await expect(part(element(page), "name")).to_have_text("Invoice")
    await element(page).evaluate("card => { card.label = 'Another'; }")
    await expect(part(element(page), "name")).to_have_text("Another")
    await element(page).evaluate("card => { card.src = '/prog/'; }")
    await server.connected(frame(progress=70))
    assert server.socket.url.endswith("host.test/prog/")
    await expect(part(element(page), "percent")).to_have_text("70 %")


async def test_a_property_set_before_the_script_came_is_kept(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed()
    await page.evaluate(
        """job => {
          const element = document.createElement("job-progress");
          Object.defineProperty(element, "job",
            { value: job, configurable: true, enumerable: true, writable: true });
          document.querySelector("main").append(element); }""",
        JOB,
    )
    await server.connected(frame())
    await expect(element(page)).to_have_attribute("job", JOB)
    await expect(part(element(page), "state")).to_have_text("Running")


async def test_the_property_job_takes_a_frame_and_null_shows_nothing(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed()
    card, gone = element(page), frame(7, state="succeeded", progress=100, label="Old")
    await page.evaluate(
        """gone => {
          const card = document.createElement("job-progress");
          card.job = gone; // as a framework may do before the script has come
          document.querySelector("main").append(card); }""",
        gone,
    )
    await server.connected(frame(3, job="other", progress=41))
    await expect(part(card, "state")).to_have_text("Succeeded")
    await expect(card).to_have_attribute("job", JOB)
    await card.evaluate("(card, gone) => { card.job = gone; }", {**gone, "job": "third"})
    await expect(part(card, "state")).to_have_text("Succeeded")
    await card.evaluate("card => { card.job = { job: 'other', version: 1, state: 'queued' }; }")
    await expect(part(card, "percent")).to_have_text("41 %")
    assert await card.evaluate("card => card.job") == "other", "the property reads as the id"
    for nothing in ("null", "undefined", "''"):
        await card.evaluate(f"card => {{ card.job = {nothing}; }}")
        assert not await card.evaluate("card => card.innerText")
        assert await card.get_attribute("state") is None
        await card.evaluate("card => { card.job = 'other'; }")
        await expect(part(card, "percent")).to_have_text("41 %")
    said = await card.evaluate(
        "card => { try { card.job = { id: 7 } } catch (e) { return e.message } }"
    )
    assert said == "`job` is a job's id, or its frame with the id as `job`. Got id."


async def test_parts_that_a_framework_removes_come_back(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    card = element(page)
    await server.connected(frame(progress=41))
    for others in ("", '<span data-part="state">Queued</span><button data-part="cancel"></button>'):
        await expect(part(card, "state")).to_have_text("Running")
        await card.evaluate("(card, others) => { card.innerHTML = others; }", others)
    await expect(part(card, "state")).to_have_text("Running")
    await expect(part(card, "percent")).to_have_text("41 %")
    await page.get_by_role("button", name="Cancel render 3f2a").click()
    assert await server.message() == {"action": "cancel", "job": JOB}


async def test_the_end_of_a_job_is_told_once(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await page.evaluate(
        "document.addEventListener('job-end', e => { document.title += ' ' + e.detail.state; })"
    )
    await server.connected(frame())
    await expect(part(element(page), "state")).to_have_text("Running")
    server.send(frame(2, state="failed", error="Why"))
    await expect(page).to_have_title("Somebody's page failed")
    await element(page).evaluate("card => card.parentElement.prepend(card)")
    await element(page).evaluate("card => card.after(document.createElement('job-progress'))")
    await element(page).last.evaluate("(card, job) => { card.job = job; }", JOB)
    await expect(page).to_have_title("Somebody's page failed failed")


async def test_a_refusal_that_comes_after_another_job_was_set_says_nothing_of_it(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed('<job-progress job="gone" href="/slow"></job-progress>')
    asked: asyncio.Queue[Route] = asyncio.Queue()
    await page.route(f"{HOST}/slow", asked.put_nowait)
    await server.connected(frame(progress=41))
    route = await asyncio.wait_for(asked.get(), PATIENCE)
    await element(page).evaluate("(card, job) => { card.job = job; }", JOB)
    async with page.expect_response(f"{HOST}/slow"):
        await route.fulfill(status=404)
    await page.evaluate("() => new Promise(requestAnimationFrame)")
    await expect(part(element(page), "state")).to_have_text("Running")


@pytest.mark.parametrize("page_scheme", ["light", "dark", "normal"])
@pytest.mark.parametrize("system", ["light", "dark"])
async def test_its_colours_are_those_of_the_page_and_not_of_the_system(
    embed: Callable[..., Awaitable[Page]], server: Server, page_scheme: str, system: str
) -> None:
    page = await embed(
        '<link rel="stylesheet" href="/static/progrock/progrock.css">'
        f'<job-progress job="{JOB}"></job-progress>'
    )
    await page.emulate_media(color_scheme=system)  # type: ignore[arg-type]  # "light" or "dark"
    await page.evaluate("s => { document.documentElement.style.colorScheme = s; }", page_scheme)
    await server.connected(frame(state="succeeded", result={"frames": 3}))
    background = (
        await part(element(page), "result")
        .locator("pre")
        .evaluate("pre => getComputedStyle(pre).backgroundColor")
    )
    dark = page_scheme == "dark"
    assert background == ("rgb(28, 33, 43)" if dark else "rgb(244, 245, 249)")


async def test_the_template_tag_may_stand_in_a_paragraph(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    job = Job(id=JOB, backend="render", state="failed", message="Half", error="Stale", audience="")
    tag = Template("{% load progrock %}<p id='around'>{% job_progress job %}</p>")
    page = await embed(tag.render(Context({"job": job})))
    card = page.locator("#around > job-progress")
    await expect(part(card, "message")).to_have_text("Half")
    await server.connected(frame(9, state="failed", message="Whole", error="No disk"))
    await expect(part(card, "message")).to_have_text("Whole")
    await expect(page.get_by_text("Stale")).to_have_count(0)
    await expect(page.get_by_text("Half")).to_have_count(0)


async def test_a_copy_of_the_script_by_a_hashed_name_uses_the_same_socket(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    same = await page.evaluate(
        """async () => {
          const one = await import("/static/progrock/progrock.js");
          const two = await import("/static/progrock/progrock.5d41402abc4b.js");
          one.ProgressSocket.shared(); two.ProgressSocket.shared();
          return Object.keys(one).sort().join() === Object.keys(two).sort().join()
            && one !== two && Object.keys(one).every((name) => one[name] === two[name]); }"""
    )
    assert same
    await server.connected(frame())
    await expect(part(element(page), "state")).to_have_text("Running")
    assert server.sockets.empty(), "two names of one script, one socket"


async def test_the_template_tag_takes_the_address_of_the_socket(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    tag = Template("{% load progrock %}{% job_progress job src='/live/prog/' %}")
    await embed(tag.render(Context({"job": JOB})))
    await server.connected(frame())
    assert server.socket.url.endswith("/live/prog/")


# Texts and addresses


async def test_a_page_may_replace_every_text(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(progress=5))
    await expect(part(element(page), "state")).to_have_text("Running")
    await page.evaluate(
        """async () => {
          const { texts } = await import("/static/progrock/progrock.js");
          for (const [key, text] of Object.entries(texts)) {
            const holes = text.match(/{\\w+}/g) ?? [];
            texts[key] = `[${[key, ...holes].join(" ")}]`;
          }
          texts.state_running = "en marche";
          texts.name = ({ backend, id }) => `${id} de ${backend}`;
        }"""
    )
    card = element(page)
    await expect(part(card, "state")).to_have_text("en marche")
    await expect(part(card, "name")).to_have_text("3f2a de render")
    shown = "el => [el.getAttribute('aria-label'), el.textContent].join(' ')"
    running = re.sub(r"\d+:\d\d( [AP]M)?", "T", await card.evaluate(shown))
    assert running == "3f2a de render 3f2a de renderen marche[cancel][percent 5][time_active T]"
    label = await part(card, "cancel").get_attribute("aria-label")
    assert label == "[cancel_job 3f2a de render]"
    await server.socket.close(code=1012)
    await expect(part(card, "connection")).to_have_text("[connection_lost]")
    await comes_back(page, server)
    ended = frame(9, state="succeeded", result=None, result_url="/x", ended="2026-01-02T04:14:05Z")
    await server.connected(ended)
    await expect(part(card, "state")).to_have_text("[state_succeeded]")
    await expect(part(card, "result")).to_have_text("[result][whole_result]")
    await expect(part(card, "time")).to_contain_text("[hours 1 10]")
    await page.clock.run_for(6_000)
    await expect(page.get_by_role("status")).to_contain_text("[said_succeeded 3f2a de render]")


async def test_a_text_has_the_plural_forms_of_the_pages_language(client: Page) -> None:
    said = await client.evaluate(
        """async () => {
          const { sentence, texts } = await import("/static/progrock/progrock.js");
          document.documentElement.lang = "pl";
          texts.jobs = { one: "{count} zadanie", few: "{count} zadania", other: "{count} zadań" };
          return [1, 3, 5, 22].map((count) => sentence("jobs", { count })); }"""
    )
    assert said == ["1 zadanie", "3 zadania", "5 zadań", "22 zadania"]


async def test_the_page_tells_the_sockets_address_and_its_texts(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    told = {"socket": "/live/prog/", "texts": {"state_running": "</script>Läuft"}}
    page = await embed(
        json_script(told, "progrock-page") + f'<job-progress job="{JOB}"></job-progress>'
    )
    await server.connected(frame())
    assert server.socket.url == "ws://host.test/live/prog/"
    await expect(part(element(page), "state")).to_have_text("</script>Läuft")


async def test_a_snapshot_with_lower_versions_is_shown(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    """The database has come back without its last commits."""
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(9, progress=74))
    await expect(part(element(page), "percent")).to_have_text("74 %")
    backends = [{"name": "render", "progress": True, "cancel": True}]
    server.send({"type": "snapshot", "jobs": [frame(3, progress=20)], "backends": backends})
    await expect(part(element(page), "percent")).to_have_text("20 %")
    server.send(frame(4, progress=30))
    await expect(part(element(page), "percent")).to_have_text("30 %")


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


async def test_another_generation_of_the_script_does_no_harm(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame())
    apart = await page.evaluate(
        """async () => {
          const one = await import("/static/progrock/progrock.js");
          const key = Object.getOwnPropertySymbols(globalThis).find(
            (each) => each.description.startsWith("progrock/"));
          delete globalThis[key];
          const two = await import("/static/progrock/progrock.5d41402abc4b.js");
          return one.ProgressSocket !== two.ProgressSocket; }"""
    )
    assert apart
    await expect(part(element(page), "state")).to_have_text("Running")


# Results


@pytest.mark.parametrize(
    ("result", "text", "links"),
    [
        ("done", "done", []),
        ("https://films.test/1?a=b", "https://films.test/1?a=b", ["https://films.test/1?a=b"]),
        ("javascript:alert(1)", "javascript:alert(1)", []),
        (
            {"film": "https://films.test/1", "evil": "javascript:alert(1)", "html": "<b>"},
            '{\n  "film": "https://films.test/1",\n  "evil": "javascript:alert(1)",\n'
            '  "html": "<b>"\n}',
            ["https://films.test/1"],
        ),
        (0, "0", []),
    ],
)
async def test_a_result_is_text_and_only_web_addresses_are_links(
    embed: Callable[..., Awaitable[Page]],
    server: Server,
    result: object,
    text: str,
    links: list[str],
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(state="succeeded", result=result))
    shown = part(element(page), "result")
    await expect(shown).to_be_visible()
    assert await shown.evaluate("details => details.lastChild.textContent") == text
    found = await shown.locator("a").evaluate_all("all => all.map((each) => each.href)")
    assert found == links


async def test_a_page_may_show_results_in_its_own_way(
    embed: Callable[..., Awaitable[Page]], server: Server
) -> None:
    page = await embed(f'<job-progress job="{JOB}"></job-progress>')
    await server.connected(frame(state="succeeded", result={"frames": 3}))
    shown = part(element(page), "result")
    await expect(shown).to_contain_text('"frames": 3')
    await page.evaluate(
        """async () => {
          const { JobProgress } = await import("/static/progrock/progrock.js");
          JobProgress.format = ({ result }) => `<b>${result.frames}</b> pictures`;
          document.querySelector("job-progress").format = ({ result }) => {
            const made = document.createElement("strong");
            made.textContent = `${result.frames} frames`;
            return made; }; }"""
    )
    await expect(shown.locator("strong")).to_have_text("3 frames")
    for nothing in ("''", "null"):
        await element(page).evaluate(f"card => {{ card.format = {nothing}; }}")
    await expect(shown).to_contain_text("<b>3</b> pictures")
    await page.evaluate("() => { reportError = ({ message }) => { document.title = message; }; }")
    await element(page).evaluate("card => { card.format = () => { throw Error('No frames'); }; }")
    await expect(shown).to_contain_text('"frames": 3')
    await expect(page).to_have_title("No frames")
    said = await element(page).evaluate(
        "card => { try { card.format = 'text'; } catch (error) { return error.message; } }"
    )
    assert said == "`format` is a function of a job, or null. Got string."


# Where WebSockets are blocked


class Api:
    """The server's side over HTTP, played by the test: WebSockets open and close at once."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.starts: list[Request] = []
        self.jobs = [frame()]
        self.health, self.refusal, self.mute = 502, "", False
        no_stream = {"code": "needs_asgi", "detail": "No."}
        self.events: dict[str, Any] = {"status": 501, "json": no_stream}
        self.waits, self.waiting, self.release = False, 0, asyncio.Event()

    async def accept(self, socket: WebSocketRoute) -> None:
        """A WebSocket."""
        self.asked.append("socket")
        if self.mute:
            socket.send(json.dumps({"type": "snapshot", "jobs": [], "backends": []}))
        else:
            await socket.close(code=1006 + 5)

    async def answer(self, route: Route) -> None:
        """A request under the address that the page has told."""
        path = route.request.url.removeprefix(f"{HOST}/films/")
        self.asked.append(path)
        if path == "healthz":
            await route.fulfill(status=self.health)
        elif path == "backends":
            headers = {"Set-Cookie": "shopcsrf=token; Path=/"}
            await route.fulfill(json={"backends": []}, headers=headers)
        elif path == "events":
            if self.events:  # else it is held back for ever
                await route.fulfill(**self.events)
        elif route.request.method == "POST":
            self.starts.append(route.request)
            await self._start(route)
        else:
            await self._list(route)

    async def _list(self, route: Route) -> None:
        headers = {"ETag": self._etag()}
        known = route.request.headers.get("if-none-match")
        if self.waits and known == self._etag() and "prefer" in route.request.headers:
            self.waiting += 1
            await self.release.wait()
            headers = {"ETag": self._etag(), "Preference-Applied": "wait=20"}
        if known == self._etag():
            await route.fulfill(status=304, headers=headers)
        else:
            await route.fulfill(json={"jobs": self.jobs}, headers=headers)

    async def _start(self, route: Route) -> None:
        if self.refusal:
            await route.fulfill(status=503, body=self.refusal)
        else:
            await route.fulfill(json=frame(2, request=route.request.post_data_json["request"]))

    def _etag(self) -> str:
        return f'"{[job["version"] for job in self.jobs]}"'


@pytest.fixture
async def blocked(embed: Callable[..., Awaitable[Page]]) -> tuple[Page, Api]:
    """A page that knows the address of the API, whose WebSockets are blocked."""
    told = {"http": "/films/", "csrf": {"cookie": "shopcsrf", "header": "X-Shop"}}
    page, api = await embed(json_script(told, "progrock-page")), Api()
    await page.route(f"{HOST}/films/**", api.answer)
    await page.route_web_socket(re.compile("/prog/"), api.accept)
    await page.evaluate(CONNECT)
    return page, api


async def until(page: Page, ready: Callable[[], bool], step: int = 250) -> None:
    """Let the page's time pass until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not ready():
            await page.clock.run_for(step)
            await asyncio.sleep(0.01)


async def test_a_server_that_is_away_is_no_blocked_websocket(blocked: tuple[Page, Api]) -> None:
    page, api = blocked
    await until(page, lambda: api.asked.count("socket") > 5)
    assert set(api.asked) == {"socket", "healthz"}
    assert await page.evaluate("[socket.state, socket.transport]") == ["offline", None]


async def test_a_blocked_websocket_is_replaced_by_what_the_server_has(
    blocked: tuple[Page, Api],
) -> None:
    page, api = blocked
    api.health = 200
    await until(page, lambda: "jobs?limit=200" in api.asked)
    await hears(page, "snapshot")
    assert await page.evaluate("[socket.state, socket.transport]") == ["live", "waiting"]
    assert await page.evaluate("socket.message") == (
        "Updates come by a slower way, because no WebSocket gets through."
    )
    api.jobs = [frame(3, message="Half way"), frame(job="new")]
    await until(page, lambda: api.asked.count("jobs?limit=200") > 2)
    assert [job["job"] for job in await hears(page, "job", 2)] == ["new", JOB]
    api.refusal = "The proxy has lost it."
    await page.evaluate(START, {"backend": "render", "params": {"seconds": 3}})
    await until(page, lambda: len(api.starts) == 1)
    api.refusal = ""
    await until(page, lambda: len(api.starts) == 2)
    await expect(page).to_have_title(f"started {JOB}")
    first, second = (each.post_data_json for each in api.starts)
    assert (
        first
        == second
        == {
            "backend": "render",
            "params": {"seconds": 3},
            "request": first["request"],
        }
    )
    assert api.starts[0].headers["x-shop"] == "token"
    await page.evaluate("socket.csrf = 'mine'")
    await page.evaluate(START, {})
    await until(page, lambda: len(api.starts) == 3)
    assert api.starts[2].headers["x-shop"] == "mine"
    sockets = api.asked.count("socket")
    await until(page, lambda: api.asked.count("socket") > sockets)
    assert await page.evaluate("socket.transport") == "waiting", "a better way was tried in vain"


@pytest.mark.parametrize("pause", [0, 500])
async def test_a_waiting_request_ends_when_the_reader_is_back(
    blocked: tuple[Page, Api], pause: int
) -> None:
    page, api = blocked
    api.health, api.waits = 200, True
    await until(page, lambda: api.waiting > 0)
    if pause:  # between two requests
        api.jobs = [frame(2)]
        api.release.set()
        await hears(page, "job")
        api.release.clear()
    asked = api.asked.count("jobs?limit=200")
    await page.evaluate(WAKE, "visibilitychange")
    await until(page, lambda: api.asked.count("jobs?limit=200") > asked + 1)
    await page.clock.run_for(6_000)
    assert await page.evaluate("socket.state") == "live"
    assert api.asked.count("backends") == 1, "it has connected anew"
    api.release.set()


@pytest.mark.parametrize("why", ["the visitor must sign in", "the session has ended"])
async def test_a_visitor_who_must_sign_in_is_told_by_other_ways_too(
    blocked: tuple[Page, Api], why: str
) -> None:
    page, api = blocked
    api.health = 200
    if why == "the visitor must sign in":
        api.events = {"status": 401, "json": {"code": "login_required", "detail": "Sign in."}}
        wanted = ["refused", "login_required", "Sign in."]
    else:
        snapshot = {"type": "snapshot", "jobs": [frame()], "backends": []}
        ended = {"type": "error", "code": "session_ended", "message": "Bye.", "request": None}
        stream = "".join(f"data: {json.dumps(each)}\n\n" for each in (snapshot, ended))
        api.events = {"body": stream, "content_type": "text/event-stream"}
        wanted = ["refused", "session_ended", "You have signed out."]
    await until(page, lambda: "events" in api.asked)
    await page.wait_for_function('socket.state === "refused"')
    assert await page.evaluate("[socket.state, socket.code, socket.message]") == wanted
    assert await page.evaluate("socket.jobs.size") == 0
    asked = len(api.asked)
    await page.clock.run_for(60_000)
    assert len(api.asked) == asked


async def test_a_stream_that_a_proxy_holds_back_is_given_up(blocked: tuple[Page, Api]) -> None:
    page, api = blocked
    api.health, api.events = 200, {}
    await until(page, lambda: "jobs?limit=200" in api.asked)
    await hears(page, "snapshot")
    assert await page.evaluate("[socket.state, socket.transport]") == ["live", "waiting"]


async def test_a_websocket_that_gives_the_snapshot_and_nothing_more_is_blocked(
    blocked: tuple[Page, Api],
) -> None:
    page, api = blocked
    api.health, api.mute = 200, True
    waits = []
    for _ in range(3):  # it tries the socket again, which is as mute as before, ever more rarely
        seen, before = api.asked.count("jobs?limit=200"), await page.evaluate("Date.now()")
        await until(page, lambda: api.asked.count("backends") > len(waits), step=2_000)
        await until(page, lambda seen=seen: api.asked.count("jobs?limit=200") > seen, step=2_000)
        waits.append(await page.evaluate("Date.now()") - before)
    assert waits[2] > waits[1] + 10_000
