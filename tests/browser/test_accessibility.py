"""The page for keyboards, screen readers, small screens and dark rooms."""

import asyncio
import re
from itertools import pairwise
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.browser.conftest import Visitor
from tests.browser.pages import ends, part
from tests.services import Stack

SCHEMES: list[Literal["light", "dark"]] = ["light", "dark"]


async def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is now, once its transitions have finished."""
    await page.evaluate(
        """Promise.all(document.getAnimations().map(
             each => each.effect.getTiming().iterations < 9 && each.finished))"""
    )
    found = await Axe().run(page)
    return [
        f"{each['id']}: {each['help']} {[node['target'] for node in each['nodes']]}"
        for each in found.response["violations"]
    ]


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_axe_finds_nothing(visitor: Visitor, site: Stack, scheme: str) -> None:
    jobs = await visitor(color_scheme=scheme)
    assert await violations(jobs.page) == []
    succeeded = await jobs.start(seconds=0.5)
    failed = await jobs.start(seconds=0.5, outcome="fail")
    cancelled = await jobs.start(seconds=60)
    await jobs.start("transcribe", 60)
    await part(cancelled, "cancel").click()
    for card, state in ((succeeded, "succeeded"), (failed, "failed"), (cancelled, "cancelled")):
        await ends(card, state)
    assert await violations(jobs.page) == []
    await asyncio.to_thread(site.stop_web)
    try:
        await expect(jobs.page.locator("#notice")).to_be_visible()
        assert await violations(jobs.page) == []
    finally:
        await asyncio.to_thread(site.start_web)
    await jobs.page.goto(f"{site.url}/login/")
    assert await violations(jobs.page) == []
    await jobs.page.get_by_label("Username").fill("nobody")
    await jobs.page.get_by_label("Password").fill("knows")
    await jobs.page.get_by_role("button", name="Sign in").click()
    await expect(jobs.page.get_by_role("alert")).to_be_visible()
    assert await violations(jobs.page) == []


async def test_the_page_can_be_used_by_keyboard_alone(visitor: Visitor) -> None:
    jobs = await visitor()
    keyboard, focused = jobs.page.keyboard, jobs.page.locator(":focus")
    for name in ("ProgRock", "Sign in", "Film"):
        await keyboard.press("Tab")
        await expect(focused).to_contain_text(name)
    await keyboard.type("rep")
    await keyboard.press("Tab")
    await keyboard.type("60")
    await keyboard.press("Enter")
    card = jobs.cards.first
    await expect(part(card, "name")).to_contain_text("report")
    for _ in range(20):  # a date has several stops
        await keyboard.press("Tab")
        if await jobs.page.evaluate("document.activeElement.id") == "go":
            break
    await expect(focused).to_have_text("Start")
    for name in ("Notify me", "State", "Backend", "Text"):
        await keyboard.press("Tab")
        await expect(focused).to_have_accessible_name(name)
    await keyboard.press("Tab")
    await expect(focused).to_have_attribute("data-part", "name")  # the link to the job's page
    await keyboard.press("Tab")
    await expect(focused).to_have_accessible_name(
        f"Cancel {await part(card, 'name').text_content()}"
    )
    await keyboard.press("Space")
    await ends(card, "cancelled")
    await expect(card).to_be_focused()


async def test_focus_stays_where_it_is_while_a_job_moves_on(visitor: Visitor) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=6)
    button = part(card, "cancel")
    await button.focus()
    await button.evaluate("button => { button.marked = true; }")
    await expect(part(card, "percent")).to_have_text(re.compile(r"[1-9]\d* %"))
    before = await part(card, "percent").text_content()
    await expect(part(card, "percent")).not_to_have_text(before or "")
    await expect(button).to_be_focused()
    assert await button.evaluate("button => button.marked"), "the button was built anew"
    await ends(card)
    await expect(card).to_be_focused()


async def test_bars_are_labelled_by_their_job_and_are_no_live_region(visitor: Visitor) -> None:
    jobs = await visitor()
    await jobs.start(seconds=1)
    card = await jobs.start("transcribe", 1)
    name = await part(card, "name").text_content()
    await expect(jobs.page.get_by_role("progressbar", name=name or "", exact=True)).to_have_count(1)
    await expect(jobs.page.get_by_role("group", name=name or "", exact=True)).to_have_count(1)
    assert (
        await jobs.page.locator("job-progress")
        .locator("[aria-live], [role=status], [role=alert], output")
        .count()
        == 0
    )
    assert (
        await jobs.page.locator(
            ":is([aria-live], [role=status], [role=alert], output) job-progress"
        ).count()
        == 0
    )


async def test_one_polite_region_speaks_of_states_and_quarters_and_at_most_once_in_five_seconds(
    visitor: Visitor,
) -> None:
    jobs = await visitor()
    region = jobs.page.get_by_role("status")
    await expect(region).to_have_count(1)
    said = await region.evaluate_handle(
        """region => {
          const said = [];
          const hear = () => said.push([performance.now(), region.textContent]);
          new MutationObserver(hear).observe(region, {childList: true});
          return said; }"""
    )
    long = await jobs.start(seconds=14)
    short = await jobs.start(seconds=3)
    names = [await part(card, "name").text_content() for card in (long, short)]
    await expect(region).to_contain_text(f"{names[1]} succeeded")
    await expect(region).to_contain_text(f"{names[0]} succeeded")
    spoken: list[tuple[float, str]] = await said.json_value()
    times = [at for at, _ in spoken]
    assert all(later - earlier >= 4500 for earlier, later in pairwise(times))
    states = ("queued", "starting", "running")
    assert any(f"{name} {state}" in spoken[0][1] for name in names for state in states)
    assert any(f"{names[0]} {quarter} %" in text for _, text in spoken for quarter in (25, 50))
    assert len(spoken) <= 8


async def test_a_reload_is_no_news(visitor: Visitor) -> None:
    jobs = await visitor()
    await ends(await jobs.start(seconds=0.5))
    await jobs.page.reload()
    await jobs.is_live()
    await expect(jobs.cards).to_have_count(1)
    await expect(jobs.page.get_by_role("status")).to_be_empty()


async def test_nothing_scrolls_sideways_on_a_phone(visitor: Visitor) -> None:
    jobs = await visitor(viewport={"width": 360, "height": 740}, has_touch=True)
    await jobs.start("transcribe", 300)
    await ends(await jobs.start(seconds=0.5, outcome="fail"), "failed")
    assert await jobs.page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in await jobs.page.locator("main").locator("button, select, input").all():
        if await control.is_visible():
            box: Any = await control.bounding_box()
            assert box["height"] >= 24, "too small for a finger (WCAG 2.5.8)"


async def test_nothing_moves_for_whoever_wants_it_so(visitor: Visitor) -> None:
    jobs = await visitor(reduced_motion="reduce")
    await expect(await jobs.start("transcribe", 300)).to_have_attribute("state", "running")
    assert await jobs.page.evaluate("document.getAnimations().length") == 0
