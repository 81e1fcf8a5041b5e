"""A job's own page, the filter and the older jobs of the list at `/`, and the list of all jobs."""

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import pytest
from playwright.async_api import Page, ViewportSize, expect

from tests.browser.conftest import Visitor
from tests.browser.pages import JobsPage, ends, job_of, part
from tests.browser.test_accessibility import SCHEMES, violations
from tests.services import Stack

#: Fills the ledger for `eve` and `max`; `boss` is staff. Prints their sessions and jobs.
FILL = """
import json, uuid
from datetime import timedelta
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from progrock.models import Job

def cookie(user):
    client = Client()
    client.force_login(user)
    return client.cookies["sessionid"].value

eve, boss, max_ = (User.objects.get(username=name) for name in ("eve", "boss", "max"))
now = timezone.now()

def job(minutes, **fields):
    at = now - timedelta(minutes=minutes)
    times = {"due_at": at, "deadline_at": at, "created_at": at, "changed_at": at, "ended_at": at}
    values = {"bucket": 0, "audience": f"user:{eve.pk}", "backend": "render", "due_slot": None}
    return Job(id=uuid.uuid4(), **{**values, **times, "state": "succeeded", **fields})

pages = [{"page": n, "words": 300 + n} for n in range(3)]
text = json.dumps([{"n": n, "text": "x" * 40} for n in range(1000)])
jobs = {
    "table": job(1, label="Words of a book", params={"book": "Momo", "pages": 3}, result=pages,
                 result_size=90),
    "large": job(2, label="Big", result=json.loads(text), result_size=len(text)),
    "failed": job(3, label="Broken", backend="report", state="failed", error="No paper"),
    "again": job(3, audience=f"user:{max_.pk}", label="Report", backend="report", state="failed",
                 params={"seconds": 0.5, "outcome": "stall", "period": {"first": "2026-03-01"}}),
    "nested": job(4, params={"deep": {"er": [1]}}, result="https://host.test/a", result_size=21),
}
old = [job(100 + n, label=f"Old {n}", progress=100.0) for n in range(120)]
Job.objects.bulk_create([*jobs.values(), *old])
print(json.dumps({
    "eve": cookie(eve), "boss": cookie(boss), "max": cookie(max_),
    "jobs": {k: str(v.pk) for k, v in jobs.items()},
}))
"""


class Filled(NamedTuple):
    """A ledger with jobs: their ids by name, and sessions by the name of the user."""

    jobs: dict[str, str]
    sessions: dict[str, str]

    def signed_in(self, name: str, **options: Any) -> dict[str, Any]:
        """The options of a browser context in which this user has signed in."""
        cookie = {"name": "sessionid", "value": self.sessions[name], "domain": "127.0.0.1"}
        return {"storage_state": {"cookies": [{**cookie, "path": "/"}]}, **options}


@pytest.fixture(scope="module")
def filled(site: Stack) -> Filled:
    told = json.loads(site.shell(FILL))
    return Filled(told.pop("jobs"), told)


PHONE: ViewportSize = {"width": 360, "height": 740}
NewPage = Callable[..., Awaitable[Page]]


async def is_accessible(page: Page) -> None:
    """Have axe look at the page, light and dark."""
    for scheme in SCHEMES:
        await page.emulate_media(color_scheme=scheme)
        assert await violations(page) == [], scheme


# The page of a job


async def test_a_card_leads_to_the_page_of_its_job_which_is_live(visitor: Visitor) -> None:
    jobs = await visitor(permissions=["clipboard-read", "clipboard-write"])
    card = await jobs.start(seconds=2)
    job, name = await job_of(card), await part(card, "name").text_content() or ""
    await jobs.page.get_by_role("link", name=name, exact=True).click()
    page = jobs.page
    await expect(page).to_have_url(f"{jobs.url}/jobs/{job}")
    await expect(page.get_by_role("heading", level=1)).to_have_text(name)
    await expect(page.get_by_role("definition").filter(has_text="succeed")).to_be_visible()
    await jobs.is_live()
    await expect(page).to_have_title(re.compile(rf"^\(1\) {name}"))
    icon = await page.locator("link[rel=icon]").get_attribute("href")
    assert ">1</text>" in await (await page.request.get(f"{jobs.url}{icon}")).text()
    await expect(part(jobs.card(job), "percent")).to_have_text(re.compile(r"[1-9]\d* %"))
    await expect(page.get_by_role("term").filter(has_text="Took")).to_have_count(0)
    await ends(jobs.card(job))
    await expect(page.get_by_role("term").filter(has_text="Took")).to_be_visible()
    await expect(page.get_by_role("rowheader", name="frames")).to_be_visible()
    await expect(page.get_by_role("listitem").filter(has_text="Succeeded")).to_be_visible()
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.get_by_role("button", name="Link copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == page.url


async def test_the_page_of_a_job_is_readable_without_javascript(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("eve", java_script_enabled=False))
    await page.goto(f"{site.url}/jobs/{filled.jobs['table']}")
    for said in ("Words of a book", "Succeeded", '"words": 301', "Momo"):
        await expect(page.locator("main")).to_contain_text(said)
    for button in await page.locator("main").get_by_role("button").all():
        await expect(button).to_be_hidden()
    await page.goto(f"{site.url}/jobs/{filled.jobs['failed']}")
    await expect(page.locator("main")).to_contain_text("No paper")


async def test_who_may_not_see_a_job_gets_a_page_that_says_so(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page()
    for job in (filled.jobs["table"], "00000000-0000-4000-8000-000000000000"):
        answer = await page.goto(f"{site.url}/jobs/{job}")
        assert answer
        assert answer.status == 404
        await expect(page.get_by_role("heading", level=1)).to_contain_text("not yours")
    assert await violations(page) == []


async def test_axe_finds_nothing_on_the_pages_of_jobs(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("eve", viewport=PHONE))
    for job, shown in (("table", "302"), ("failed", "No paper"), ("nested", "https://host.test/a")):
        await page.goto(f"{site.url}/jobs/{filled.jobs[job]}")
        await expect(page.locator("#connection")).to_have_text("Connection: Live")
        await expect(page.get_by_text(shown, exact=True).last).to_be_visible()
        await is_accessible(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360


async def test_a_large_result_is_loaded_on_demand(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("eve"))
    await page.goto(f"{site.url}/jobs/{filled.jobs['large']}")
    await expect(page.locator("#outcome")).to_contain_text("KB")
    await page.get_by_role("button", name="Load it here").click()
    await page.get_by_text("200 of 1,000 rows").click()
    await expect(page.get_by_role("cell", name="199", exact=True)).to_be_visible()
    async with page.expect_download() as started:
        await page.get_by_role("link", name="Download").click()
    download = await started.value
    assert download.suggested_filename == f"render-{filled.jobs['large'][:8]}.json"
    assert len(json.loads((await download.path()).read_bytes())) == 1000


# The filter of the list


async def test_the_list_is_filtered_by_state_backend_and_text(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    jobs = await JobsPage(await new_page(**filled.signed_in("eve")), site.url).open()
    state, backend = (jobs.filter.get_by_label(name) for name in ("State", "Backend"))
    text = jobs.filter.get_by_label("Text")
    await expect(jobs.cards).to_have_count(50)
    await expect(jobs.page.get_by_role("link", name="All jobs")).to_have_count(0)
    await state.select_option("Failed")
    await expect(jobs.names).to_have_text(["Broken"])
    await state.select_option("All")
    await backend.select_option("report")
    await expect(jobs.names).to_have_text(["Broken"])
    await expect(jobs.page).to_have_url(f"{site.url}/?backend=report")
    await jobs.page.reload()
    await expect(backend).to_have_value("report")
    await expect(jobs.names).to_have_text(["Broken"])
    await text.fill("nothing like it")
    await expect(jobs.cards).to_have_count(0)
    await expect(jobs.page.get_by_role("heading", name="No job matches")).to_be_visible()
    await expect(jobs.page.get_by_role("status")).to_contain_text("0 jobs match")
    await jobs.page.get_by_role("button", name="Show all jobs").click()
    await expect(jobs.cards).to_have_count(50)
    await expect(jobs.page).to_have_url(f"{site.url}/")
    await expect(text).to_be_focused()
    await text.fill("WORDS OF")
    await expect(jobs.names).to_have_text(["Words of a book"])
    assert await violations(jobs.page) == []


async def test_older_jobs_are_shown_page_by_page(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    jobs = await JobsPage(await new_page(**filled.signed_in("eve")), site.url).open()
    asked: list[str] = []
    jobs.page.on("request", lambda request: asked.append(request.url))
    more = jobs.page.get_by_role("button", name="Show older")
    await expect(jobs.cards).to_have_count(50)
    await more.focus()
    await jobs.page.keyboard.press("Enter")
    await expect(jobs.cards).to_have_count(100)
    await expect(more).to_be_focused()
    await jobs.page.keyboard.press("Enter")
    await expect(jobs.cards).to_have_count(124)
    await expect(more).to_be_hidden()
    await expect(jobs.cards.nth(100)).to_be_focused()
    await expect(part(jobs.cards.last, "percent")).to_have_text("100 %")
    await expect(jobs.names.last).to_have_text("Old 119")
    assert len(asked) == 3, "one page was known, and no card asks for itself"
    await jobs.filter.get_by_label("Text").fill("old 11")
    await expect(jobs.names).to_have_text(["Old 11", *(f"Old {n}" for n in range(110, 120))])


async def test_the_filter_finds_older_jobs_on_the_server(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("eve"))
    await page.goto(f"{site.url}/?q=old+101&state=succeeded")
    jobs = JobsPage(page, site.url)
    await expect(jobs.names).to_have_text(["Old 101"])
    await jobs.filter.get_by_label("State").select_option("Failed")
    await expect(jobs.page.get_by_role("heading", name="No job matches")).to_be_visible()


# Again


async def test_a_job_runs_again_and_is_cancelled_from_its_card_and_from_its_page(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    jobs = await JobsPage(await new_page(**filled.signed_in("max")), site.url).open()
    await jobs.page.get_by_role("button", name="Run again: Report").click()
    await expect(jobs.names).to_have_text(["Report of 2026-03-01", "Report"])
    again = jobs.cards.first
    await expect(again).to_have_attribute("state", "running")
    await part(again, "cancel").click()
    await ends(again, "cancelled")
    await jobs.names.first.click()
    first = jobs.page.url
    await jobs.page.get_by_role("button", name="Run again").click()
    await expect(jobs.page).not_to_have_url(first)
    await expect(jobs.page.get_by_role("heading", level=1)).to_have_text("Report of 2026-03-01")
    await jobs.page.get_by_role("button", name="Cancel").click()
    await ends(jobs.page.locator("job-progress"), "cancelled")
    asked = jobs.page.get_by_role("listitem").filter(has_text="Cancellation asked for")
    await expect(asked).to_be_visible()


async def test_the_params_of_a_job_are_changed_in_the_form_before_it_runs_again(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    jobs = await JobsPage(await new_page(**filled.signed_in("max")), site.url).open()
    await jobs.form.get_by_label("Length in seconds").fill("99")
    await jobs.page.get_by_role("button", name="Change and run: Report", exact=True).click()
    for _ in range(2):
        await expect(jobs.form.get_by_label("Backend")).to_have_value("report")
        length = jobs.form.get_by_label("Length in seconds")
        await expect(length).to_have_value("0.5")
        await expect(length).to_be_focused()
        await expect(jobs.form.get_by_label("First day")).to_have_value("2026-03-01")
        await jobs.page.goto(f"{site.url}/jobs/{filled.jobs['again']}")
        await jobs.page.get_by_role("link", name="Change and run").click()
    await expect(jobs.page).to_have_url(f"{site.url}/")


# The list of all jobs


async def test_staff_see_the_jobs_of_everybody(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("boss"))
    await page.goto(f"{site.url}/")
    await page.get_by_role("link", name="All jobs").click()
    rows = page.get_by_role("row")
    await expect(page.get_by_role("heading", level=1)).to_have_text("All jobs")
    await page.get_by_label("Owner").fill("EVE")
    await page.get_by_label("State").select_option("ended")
    await page.get_by_role("button", name="Filter").click()
    await expect(rows).to_have_count(51)
    await expect(rows.nth(1)).to_contain_text("Words of a book")
    await expect(rows.nth(1)).to_contain_text("eve")
    seen = await page.get_by_role("rowheader").all_text_contents()
    for _ in range(2):
        await page.get_by_role("link", name="Show older").click()
        seen += await page.get_by_role("rowheader").all_text_contents()
    assert len(seen) == len(set(seen) - {"render"}) == 124
    await expect(page.get_by_role("link", name="Show older")).to_have_count(0)
    await page.get_by_label("Text").fill("paper")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("rowheader")).to_have_text(["Broken"])
    await page.set_viewport_size(PHONE)
    await is_accessible(page)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await page.get_by_role("link", name="Broken").click()
    await expect(page.get_by_role("definition").filter(has_text="eve")).to_be_visible()
    await expect(page.get_by_role("link", name="All jobs").last).to_be_visible()
    assert await violations(page) == []


async def test_nobody_else_sees_the_jobs_of_everybody(
    new_page: NewPage, site: Stack, filled: Filled
) -> None:
    page = await new_page(**filled.signed_in("eve"))
    assert (await page.request.get(f"{site.url}/jobs/all")).status == 403
    await page.context.clear_cookies()
    answer = await page.request.get(f"{site.url}/jobs/all")
    assert answer.url == f"{site.url}/login/?next=/jobs/all"
