"""The element of progrock.js on somebody else's page: a job's card, its texts and its result.

The test plays the server.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from django.template import Context, Template
from django.utils.html import json_script
from playwright.async_api import Page, Route, expect

from progrock.models import Job
from tests.browser.pages import part
from tests.browser.played import HOST, JOB, Server, comes_back, element, frame
from tests.services import PATIENCE


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
