"""The admin in a browser: an operator finds a job, reads it, cancels it and runs it again."""

import os
from pathlib import Path

from playwright.async_api import expect

from tests.browser.conftest import Visitor
from tests.browser.pages import ends, job_of
from tests.browser.test_accessibility import SCHEMES
from tests.services import Stack

#: Where to leave pictures, for whoever wants to look at them.
PICTURES = os.environ.get("PROGROCK_TEST_PICTURES")


async def test_an_operator_reads_a_job_cancels_it_and_runs_it_again(
    visitor: Visitor, site: Stack
) -> None:
    jobs = await visitor()
    await jobs.sign_in("operator")
    failed, card = await jobs.start(seconds=0.5, outcome="fail"), await jobs.start(seconds=300)
    await ends(failed, "failed")
    job, page = await job_of(card), jobs.page
    await page.goto(f"{site.url}/admin/progrock/job/")
    row = page.locator("#result_list tbody tr").filter(has_text=job[:8])
    await expect(row).to_contain_text("operator")
    await expect(row.get_by_role("progressbar")).to_be_visible()
    table = page.locator("#result_list")
    fits = "table => table.scrollWidth <= table.parentElement.clientWidth"
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        if PICTURES:
            await page.screenshot(path=Path(PICTURES) / f"list-{scheme}.png", full_page=True)
    assert await table.evaluate(fits), "the list is wider than the page"
    await row.get_by_role("checkbox").check()
    await page.get_by_label("Action:").select_option("Cancel the selected jobs")
    await page.locator("button[name=index]").click()  # "Go", and "Run" from Django 6.0 on
    await expect(page.locator(".messagelist")).to_have_text("Cancellation asked for: 1 of 1 job.")
    await row.get_by_role("link").click()
    story = page.locator(".progrock-story")
    for said in ("Queued", "Started at the backend", "Cancellation asked for"):
        await expect(story).to_contain_text(said)
    await page.get_by_role("button", name="Run again").click()
    await expect(page.locator(".messagelist")).to_have_text("Started again: 1 of 1 job.")
    await expect(story).to_contain_text("Started again")
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        if PICTURES:
            await page.screenshot(path=Path(PICTURES) / f"job-{scheme}.png", full_page=True)
    await page.get_by_role("link", name="View on site").click()
    await expect(page).to_have_url(f"{site.url}/jobs/{job}")
