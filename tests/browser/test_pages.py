"""The pages beside the one at `/`: a job by itself, and the list of all for staff."""

import re
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visitor
from tests.browser.pages import JobsPage, ends, job_of, part
from tests.browser.test_accessibility import SCHEMES, violations


async def open_job(jobs: JobsPage, job: str) -> Page:
    """The page of a job, in a tab of the same visitor."""
    page = await jobs.page.context.new_page()
    await page.goto(f"{jobs.url}/jobs/{job}")
    return page


async def test_a_card_leads_to_the_page_of_its_job_which_is_live(visitor: Visitor) -> None:
    jobs = await visitor(permissions=["clipboard-read", "clipboard-write"])
    card = await jobs.start(seconds=3)
    job, name = await job_of(card), await part(card, "name").text_content() or ""
    await jobs.page.get_by_role("link", name=name, exact=True).click()
    page = jobs.page
    await expect(page).to_have_url(f"{jobs.url}/jobs/{job}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    await expect(page.get_by_role("definition").filter(has_text="succeed")).to_be_visible()
    await jobs.is_live()
    await expect(part(jobs.card(job), "percent")).to_have_text(re.compile(r"[1-9]\d* %"))
    await expect(page.get_by_role("term").filter(has_text="Took")).to_have_count(0)
    await ends(jobs.card(job))
    await expect(page.get_by_role("term").filter(has_text="Took")).to_be_visible()
    await expect(page.locator("#outcome")).to_contain_text("film-")
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == page.url


async def test_the_page_of_a_job_can_cancel_it(visitor: Visitor) -> None:
    jobs = await visitor()
    job = await job_of(await jobs.start(seconds=60))
    page = await open_job(jobs, job)
    await page.get_by_role("button", name="Cancel").click()
    await ends(page.locator("job-progress"), "cancelled")
    await expect(page.get_by_role("term").filter(has_text="Ended")).to_be_visible()


async def test_the_page_of_a_job_is_readable_without_javascript(
    visitor: Visitor, new_page: Callable[..., Awaitable[Page]]
) -> None:
    jobs = await visitor()
    card = await jobs.start(seconds=0.5)
    await ends(card)
    without = await new_page(
        java_script_enabled=False, storage_state=await jobs.page.context.storage_state()
    )
    await without.goto(f"{jobs.url}/jobs/{await job_of(card)}")
    for said in ("Succeeded", "100 %", "film-", "seconds"):
        await expect(without.locator("main")).to_contain_text(said)
    await expect(without.get_by_role("button", name="Copy link")).to_be_hidden()


async def test_who_may_not_see_a_job_gets_a_page_that_says_so(visitor: Visitor) -> None:
    jobs, other = await visitor(), await visitor()
    job = await job_of(await jobs.start(seconds=0.5))
    for address in (f"/jobs/{job}", "/jobs/00000000-0000-4000-8000-000000000000"):
        answer = await other.page.goto(f"{jobs.url}{address}")
        assert answer
        assert answer.status == 404
        await expect(other.page.get_by_role("heading", level=1)).to_contain_text("not yours")
    assert await violations(other.page) == []


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_axe_finds_nothing_on_the_page_of_a_job(visitor: Visitor, scheme: str) -> None:
    jobs = await visitor(color_scheme=scheme, viewport={"width": 360, "height": 740})
    card = await jobs.start(seconds=0.5)
    await ends(card)
    page = await open_job(jobs, await job_of(card))
    await expect(page.locator("#connection")).to_have_text("Connection: Live")
    await expect(page.locator("job-progress")).to_have_attribute("state", "succeeded")
    assert await violations(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
