"""The page at `/` in a real browser, on a real ProgRock with a real backend."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

from playwright.async_api import Page, WebSocketRoute, expect

from progrock import texts
from tests.browser.conftest import Visitor
from tests.browser.pages import JobsPage, ends, job_of, part
from tests.services import Stack


async def test_an_empty_page_explains_itself(visitor: Visitor) -> None:
    jobs = await visitor()
    await expect(jobs.page.get_by_role("heading", name="No jobs yet")).to_be_visible()
    offered = await jobs.form.get_by_label("Backend").locator("option").all_text_contents()
    assert offered[:3] == ["Film", "Transcript", "Report"]


async def test_a_job_is_started_and_watched_to_its_end(visitor: Visitor) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=6)
    bar = part(card, "progress")
    seen = await bar.evaluate_handle(
        """bar => {
          const seen = [];
          const note = () => seen.push(bar.value);
          new MutationObserver(note).observe(bar, {attributeFilter: ["value"]});
          return seen; }"""
    )
    await expect(part(card, "message")).to_contain_text("Rendering")
    await ends(card)
    await expect(part(card, "state")).to_have_text("Succeeded")
    await expect(part(card, "percent")).to_have_text("100 %")
    await expect(part(card, "result").get_by_role("row", name="frames 144")).to_be_visible()
    await expect(part(card, "cancel")).to_be_hidden()
    values = await seen.json_value()
    assert values == sorted(values)
    assert len(set(values)) >= 3
    assert values[-1] == 100
    await expect(jobs.page.locator("#summary")).to_have_text("0 active, 1 ended")
    await expect(jobs.page.locator("#empty")).to_be_hidden()


async def test_jobs_run_side_by_side_and_one_that_cannot_tell_has_no_percentage(
    visitor: Visitor,
) -> None:
    jobs = await visitor()
    render, transcribe, report = [
        await jobs.start(backend, 120) for backend in ("render", "transcribe", "report")
    ]
    for card in (render, transcribe, report):
        await expect(card).to_have_attribute("state", "running")
    await expect(part(render, "percent")).to_have_text(re.compile(r"^\d+ %$"))
    await expect(part(transcribe, "message")).not_to_be_empty()
    assert await part(transcribe, "progress").get_attribute("value") is None
    await expect(part(transcribe, "percent")).to_be_hidden()
    assert await jobs.page.locator("#summary").text_content() == "3 active, 0 ended"


async def test_a_failure_shows_its_reason(visitor: Visitor) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=1, outcome="fail")
    await ends(card, "failed")
    await expect(part(card, "error")).to_have_text(
        "The renderer ran out of memory while it encoded the film"
    )


async def test_a_stalled_job_can_be_cancelled(visitor: Visitor) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=2, outcome="stall")
    await expect(part(card, "percent")).to_have_text("60 %")
    name = await part(card, "name").text_content()
    assert name == f"render {(await job_of(card))[:4]}"
    await jobs.page.get_by_role("button", name=f"Cancel {name}").click()
    await ends(card, "cancelled")
    await expect(part(card, "cancel")).to_be_hidden()


async def test_everything_is_still_there_after_a_reload_in_the_middle(visitor: Visitor) -> None:
    jobs = await visitor()
    ended = await jobs.start(seconds=0.5)
    running = await jobs.start(seconds=300)
    await ends(ended)
    await expect(part(running, "percent")).to_have_text(re.compile(r"[1-9]\d* %"))
    before = await part(running, "progress").evaluate("bar => bar.value")
    await jobs.page.reload()
    await jobs.is_live()
    await expect(jobs.cards).to_have_count(2)
    await expect(part(ended, "result")).to_contain_text("film-")
    await expect(running).to_have_attribute("state", "running")
    assert await part(running, "progress").evaluate("bar => bar.value") >= before
    await part(running, "cancel").click()
    await ends(running, "cancelled")


async def test_two_tabs_of_one_visitor_show_the_same(visitor: Visitor) -> None:
    one = await visitor()
    two = await JobsPage(await one.page.context.new_page(), one.url).open()
    here = await one.start(seconds=60)
    there = two.card(await job_of(here))
    await expect(there).to_have_attribute("state", "running")
    await part(there, "cancel").click()
    await ends(here, "cancelled")
    await ends(there, "cancelled")


async def test_a_second_visitor_sees_nothing_of_the_first(visitor: Visitor) -> None:
    one, two = await visitor(), await visitor()
    mine = await one.start(seconds=2)
    yours = await two.start(seconds=2)
    await ends(mine)
    await ends(yours)
    for jobs, own, other in ((one, mine, yours), (two, yours, mine)):
        await expect(jobs.cards).to_have_count(1)
        await jobs.page.reload()
        await jobs.is_live()
        await expect(jobs.cards).to_have_count(1)
        assert (await jobs.page.request.get(f"{jobs.url}/jobs/{await job_of(own)}")).status == 200
        assert (await jobs.page.request.get(f"{jobs.url}/jobs/{await job_of(other)}")).status == 404


async def test_a_login_keeps_the_visitors_jobs(visitor: Visitor, ada: str) -> None:
    jobs = await visitor()
    before = await jobs.start(seconds=3)
    await jobs.sign_in(ada)
    await expect(jobs.page.get_by_role("button", name="Sign out")).to_be_visible()
    await expect(jobs.cards).to_have_count(1)
    await ends(before)
    after = await jobs.start(seconds=0.5)
    await ends(after)
    elsewhere = await visitor()
    await elsewhere.sign_in(ada)
    await expect(elsewhere.card(await job_of(after))).to_be_visible()
    await expect(elsewhere.card(await job_of(before))).to_have_count(0)


async def test_signing_out_clears_the_other_tabs(visitor: Visitor, ada: str) -> None:
    one = await visitor()
    await one.sign_in(ada)
    await one.start(seconds=1)
    two = await JobsPage(await one.page.context.new_page(), one.url).open()
    await expect(two.cards.first).to_be_visible()
    await one.page.get_by_role("button", name="Sign out").click()
    await one.is_live()
    await expect(one.cards).to_have_count(0)
    await expect(two.connection).to_have_text("Connection: Signed out")
    await expect(two.cards).to_have_count(0)
    await expect(two.page.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    await two.page.get_by_role("link", name="Start afresh").click()
    await two.is_live()
    await expect(two.page.get_by_role("link", name="Sign in")).to_be_visible()


async def test_somebody_signed_in_who_may_see_nothing_is_not_sent_to_the_login(
    visitor: Visitor,
) -> None:
    jobs = await visitor()
    sentence = "You are signed in, but your account may see no jobs here."
    frame = {"type": "error", "code": "no_audience", "message": sentence, "request": None}

    async def refuse(socket: WebSocketRoute) -> None:
        socket.send(json.dumps(frame))
        await socket.close(code=4403)

    await jobs.page.route_web_socket("**/prog/", refuse)
    await jobs.page.reload()
    await expect(jobs.connection).to_have_text("Connection: No access")
    await expect(jobs.page.locator("#notice")).to_have_text(sentence, use_inner_text=True)
    await expect(jobs.page.locator("#notice-link")).to_be_hidden()
    await expect(jobs.page.locator("#problem")).to_be_hidden()  # said once
    await expect(jobs.page.get_by_role("button", name="Start", exact=True)).to_be_disabled()


async def test_a_server_that_goes_and_returns_loses_nothing(visitor: Visitor, site: Stack) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=5)
    await expect(card).to_have_attribute("state", "running")
    await card.evaluate("card => { card.marked = true; }")
    await asyncio.to_thread(site.stop_web)
    try:
        await expect(jobs.connection).to_have_text("Connection: Offline")
        await expect(jobs.page.locator("#notice")).to_contain_text("Your jobs run on")
        await jobs.page.get_by_role("button", name="Start", exact=True).click()
        await expect(jobs.page.locator("#unsent")).to_have_text(
            "1 job starts as soon as the connection is back."
        )
    finally:
        await asyncio.to_thread(site.start_web)
    await jobs.is_live()
    await expect(jobs.cards).to_have_count(2)
    await expect(jobs.page.locator("#unsent")).to_be_hidden()
    await expect(jobs.page.locator("#notice")).to_be_hidden()
    await ends(card)
    await ends(jobs.cards.first)
    await expect(jobs.cards).to_have_count(2)
    assert await card.evaluate("card => card.marked"), "the card was built anew"


async def test_what_the_server_refuses_is_told(visitor: Visitor) -> None:
    jobs = await visitor()
    await jobs.form.get_by_label("Backend").evaluate(
        "select => { select.options[0].value = 'nonsense'; }"
    )
    await jobs.page.get_by_role("button", name="Start", exact=True).click()
    await expect(jobs.problem).to_contain_text("There is no backend 'nonsense'")
    await expect(jobs.cards).to_have_count(0)
    await jobs.page.reload()
    await jobs.is_live()
    await jobs.start(seconds=1)
    await expect(jobs.problem).to_be_hidden()


async def test_the_servers_texts_are_those_of_the_scripts(visitor: Visitor) -> None:
    jobs = await visitor()
    found = await jobs.page.evaluate(
        """async () => ({ ...(await import("/static/progrock/progrock.js")).texts })"""
    )
    told = (texts.client_texts, texts.page_texts, texts.form_texts)
    assert found == {key: text for each in told for key, text in each().items()}


async def test_a_browser_that_prefers_german_gets_german_pages(
    new_page: Callable[..., Awaitable[Page]], site: Stack
) -> None:
    page = await new_page(locale="de-DE")
    await page.goto(site.url)
    await expect(page.locator("html")).to_have_attribute("lang", "de")
    await expect(page.get_by_role("heading", name="Ihre Aufträge")).to_be_visible()
    await expect(page.locator("#connection")).to_contain_text("Live")
    await page.get_by_role("button", name="Starten", exact=True).click()
    card = page.locator("#jobs job-progress").first
    await expect(part(card, "state")).to_have_text("Läuft")
    await part(card, "cancel").click()
    await expect(part(card, "state")).to_have_text("Abgebrochen")
    await page.get_by_role("link", name="Anmelden").click()
    await page.get_by_label("Benutzername").fill("ada")
    await page.get_by_label("Passwort").fill("falsch")
    await page.get_by_role("button", name="Anmelden").click()
    await expect(page.get_by_role("alert")).to_be_visible()
