"""The modules of the pages by themselves: the pace of a job, results, notifications, title."""

import json
import math
from collections.abc import AsyncIterator, Callable
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.browser.test_accessibility import SCHEMES, violations

STATIC = Path(__file__).resolve().parents[2] / "site" / "progrock" / "static"
HOST = "http://host.test"
EMPTY = """<!doctype html><html lang="en"><title>Jobs</title>
<link rel="icon" href="/plain.svg" data-running="/favicon/0.svg">
<link rel="stylesheet" href="/static/progrock/page.css">
<link rel="stylesheet" href="/static/progrock/jobs.css">
<main><h1>Modules</h1><button id="notify" hidden>Notify me</button>
<p id="notify-problem" role="alert" hidden></p><div id="place"></div></main></html>"""


@pytest.fixture(scope="module")
async def page(chromium: Browser) -> AsyncIterator[Page]:
    """An empty page that can import the modules."""

    async def fulfil(route: Route) -> None:
        path = route.request.url.removeprefix(HOST)
        if path.startswith("/static/"):
            await route.fulfill(path=STATIC / path.removeprefix("/static/"))
        else:
            policy = {"Content-Security-Policy": "default-src 'self'"}
            await route.fulfill(body=EMPTY, content_type="text/html", headers=policy)

    context = await chromium.new_context()
    page = await context.new_page()
    await page.route(f"{HOST}/**", fulfil)
    await page.goto(HOST)
    yield page
    await context.close()


# How long a job may still take

PLAY = """async samples => {
  const { withSample, secondsLeft, steady } = await import("/static/progrock/pace.js");
  let known = [], shown = null;
  return samples.map(([now, progress]) => {
    known = withSample(known, now, progress);
    return shown = steady(shown, secondsLeft(known, now));
  }); }"""
Progress = Callable[[int], float]


def even(now: int) -> float:
    """A job that takes 300 s."""
    return now / 3


def noisy(now: int) -> float:
    """The same one, whose progress is never quite right."""
    return now / 3 + 1.5 * math.sin(now * 7)


def in_steps(now: int) -> float:
    """The same one, which tells of a tenth at once."""
    return now // 30 * 10


def faster(now: int) -> float:
    """The same one, but it begins slowly and becomes ever faster."""
    return 100 * (now / 300) ** 2


async def shown(page: Page, progress: Progress, seconds: int = 300) -> list[float | None]:
    """What is shown in each second while the progress goes like this: seconds, or None."""
    told = accumulate((progress(now) for now in range(seconds)), max)
    found = await page.evaluate(PLAY, [[now, min(100.0, each)] for now, each in enumerate(told)])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("progress", [even, noisy, in_steps])
async def test_what_is_left_is_about_right(page: Page, progress: Progress) -> None:
    found = [(300 - now, left) for now, left in enumerate(await shown(page, progress)) if left]
    assert len(found) > 150
    for true, left in found:
        assert left >= 10
        assert true / 2 <= left <= true * 1.5 + 15


@pytest.mark.parametrize("progress", [even, noisy, faster])
async def test_what_is_left_does_not_jump_about(page: Page, progress: Progress) -> None:
    changes = [pair for pair in pairwise(await shown(page, progress)) if pair[0] != pair[1]]
    assert len(changes) <= 20
    assert len([1 for before, after in changes if before and after and after > before]) <= 1


async def test_nothing_is_said_of_a_pace_that_says_nothing(page: Page) -> None:
    async def says(progress: Progress, seconds: int = 300) -> bool:
        return any(await shown(page, progress, seconds))

    assert await says(even)
    assert not await says(even, 7), "after a few seconds"
    assert not await says(lambda now: now / 100), "below five per cent"
    assert not await says(lambda now: 6 * now), "of a job that is soon over"
    stalled = await shown(page, lambda now: min(now, 100) / 2)
    assert stalled[90]
    assert not any(stalled[110:])


async def test_after_a_stall_the_pace_is_measured_anew(page: Page) -> None:
    left = await shown(page, lambda now: min(now, 90) / 3 + max(0, now - 200) / 2, 330)
    assert left[90] == 240
    assert not any(left[100:200])
    assert left[240] in (60, 120)


async def test_after_a_step_back_all_begins_anew(page: Page) -> None:
    samples = [[now, now / 3] for now in range(60)] + [[now, now / 3 - 20] for now in range(60, 99)]
    left = await page.evaluate(PLAY, samples)
    assert left[59]
    assert not any(left[60:75])
    assert left[98] == 240


async def test_rough_times_are_in_words(page: Page) -> None:
    rough = """async seconds => (await import("/static/progrock/pace.js")).rough(seconds)"""
    assert await page.evaluate(rough, 40) == [40, "second"]
    assert await page.evaluate(rough, 180) == [3, "minute"]
    assert await page.evaluate(rough, 5400) == [1.5, "hour"]


# Results

SHOW = """async text => {
  const { presentText } = await import("/static/progrock/results.js");
  document.getElementById("place").replaceChildren(presentText(text)); }"""


async def show(page: Page, value: Any) -> Any:
    """Show a result; returns its place."""
    await page.evaluate(SHOW, value if isinstance(value, str) else json.dumps(value))
    return page.locator("#place")


async def test_an_address_is_a_link_and_nothing_else_is(page: Page) -> None:
    place = await show(page, ["x"])
    for address in ("https://host.test/film.mp4?a=1", "HTTP://host.test/"):
        await show(page, json.dumps(address))
        await expect(place.get_by_role("link", name=address)).to_have_attribute("href", address)
    for text in ("javascript:alert(1)", "see https://host.test", "ftp://host.test", "//host.test"):
        await show(page, json.dumps(text))
        await expect(place).to_have_text(text)
        await expect(place.get_by_role("link")).to_have_count(0)


async def test_flat_objects_are_tables(page: Page) -> None:
    place = await show(page, {"file": "a.mp4", "frames": 24, "url": "https://host.test/a.mp4"})
    await expect(place.get_by_role("rowheader")).to_have_text(["file", "frames", "url"])
    await expect(place.get_by_role("link", name="https://host.test/a.mp4")).to_be_visible()
    place = await show(page, [{"page": 1, "words": 310}, {"page": 2, "empty": True}])
    await expect(place.get_by_role("columnheader")).to_have_text(["page", "words", "empty"])
    await expect(place.get_by_role("row").nth(2)).to_have_text("2true")
    await expect(place.locator("details")).to_have_count(0)


@pytest.mark.parametrize(
    "value", [{"a": {"b": 1}}, [1, 2], [{"a": []}], {}, [{str(n): n for n in range(20)}]]
)
async def test_what_is_no_table_is_json(page: Page, value: Any) -> None:
    place = await show(page, value)
    assert json.loads(await place.locator("pre").text_content() or "") == value
    await expect(place.locator("table")).to_have_count(0)


async def test_what_is_long_is_closed(page: Page) -> None:
    place = await show(page, [{"n": n} for n in range(1000)])
    await expect(place.locator("table")).to_be_hidden()
    await place.get_by_text("200 of 1,000 rows").click()
    await expect(place.get_by_role("row")).to_have_count(201)
    place = await show(page, {"deep": {"text": "x" * 5_000}})
    await expect(place.locator("pre")).to_be_hidden()


async def test_no_value_becomes_html(page: Page) -> None:
    evil = "<img src=x onerror=\"document.title = 'evil'\">"
    for value in (evil, {evil: evil}, [{evil: evil}], [[evil]]):
        place = await show(page, json.dumps(value))
        assert evil in (await place.text_content() or "").replace('\\"', '"')
        await expect(place.locator("img")).to_have_count(0)
    await expect(page).to_have_title("Jobs")


async def test_a_number_that_javascript_would_round_stays_as_it_is(page: Page) -> None:
    place = await show(page, '{"id": 12345678901234567890}')
    await expect(place).to_have_text('{"id": 12345678901234567890}')


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_axe_finds_nothing_in_results(page: Page, scheme: Any) -> None:
    await page.emulate_media(color_scheme=scheme)
    rows = [{"page": n, "url": f"https://host.test/{n}"} for n in range(3)]
    for value in (rows, rows[0], [1], "https://host.test/", [*rows, *rows, *rows, *rows, *rows]):
        await show(page, json.dumps(value))
        assert await violations(page) == []


# The title, the icon and notifications

SOCKET = """async () => {
  const { showRunning } = await import("/static/progrock/running.js");
  const { offerNotifications } = await import("/static/progrock/notify.js");
  window.socket = Object.assign(new EventTarget(), { jobs: new Map() });
  window.notified = [];
  window.Notification = class {
    static permission = "default";
    static answer = "granted";
    static async requestPermission() { return (this.permission = this.answer); }
    constructor(title, options) { notified.push([title, options.body, options.tag]); }
  };
  Object.defineProperty(document, "hidden", { get: () => window.away, configurable: true });
  showRunning(socket);
  offerNotifications(socket, { pageOf: id => "/jobs/" + id });
  window.tell = (...jobs) => jobs.forEach(job => {
    socket.jobs.set(job.job, job);
    socket.dispatchEvent(new CustomEvent("job", { detail: job }));
  }); }"""


def job(number: int, state: str = "running", **fields: Any) -> dict[str, Any]:
    """A job's frame."""
    ended = state not in ("queued", "starting", "running")
    base = {"job": f"{number:04}", "backend": "render", "label": None, "state": state}
    return {**base, "complete": ended, "message": "", "error": None, **fields}


async def test_title_and_icon_say_how_many_jobs_run(page: Page) -> None:
    await page.goto(HOST)
    await page.evaluate(SOCKET)
    await page.evaluate("jobs => tell(...jobs)", [job(1), job(2), job(3, "succeeded")])
    await expect(page).to_have_title("(2) Jobs")
    icon = page.locator("link[rel=icon]")
    await expect(icon).to_have_attribute("href", "/favicon/2.svg")
    await page.evaluate("jobs => tell(...jobs)", [job(1, "failed"), job(2, "cancelled")])
    await expect(page).to_have_title("Jobs")
    await expect(icon).to_have_attribute("href", "/plain.svg")


async def test_a_job_that_ends_while_the_page_is_hidden_is_notified_on_request(page: Page) -> None:
    await page.goto(HOST)
    await page.evaluate(SOCKET)
    button = page.get_by_role("button", name="Notify me")
    await expect(button).to_have_attribute("aria-pressed", "false")

    async def ends(number: int, *, hidden: bool, **fields: Any) -> Any:
        await page.evaluate("hidden => { window.away = hidden; }", hidden)
        await page.evaluate("jobs => tell(...jobs)", [job(number), job(number, **fields)])
        return await page.evaluate("notified.splice(0)")

    assert await ends(1, hidden=True, state="succeeded") == [], "nobody has asked for it"
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "true")
    assert await ends(2, hidden=False, state="succeeded") == []
    found = await ends(3, hidden=True, state="failed", error="No memory", label="Film 7")
    assert found == [["Film 7 failed", "No memory", "0003"]]
    await page.evaluate("jobs => tell(...jobs)", [job(9, "succeeded")])
    assert await page.evaluate("notified") == [], "it had ended before this page came"
    many = [job(number) for number in range(20, 25)]
    await page.evaluate("jobs => tell(...jobs)", many)
    await page.evaluate(
        "jobs => socket.dispatchEvent(new CustomEvent('snapshot', { detail: { jobs } }))",
        [{**each, "state": "succeeded", "complete": True} for each in many],
    )
    assert [title for title, *_ in await page.evaluate("notified.splice(0)")] == [
        "5 jobs have ended"
    ]
    await button.click()
    await expect(button).to_have_attribute("aria-pressed", "false")
    assert await ends(4, hidden=True, state="succeeded") == []


async def test_a_browser_that_blocks_notifications_is_told(page: Page) -> None:
    await page.goto(HOST)
    await page.evaluate(SOCKET)
    await page.evaluate("Notification.answer = 'denied'")
    await page.get_by_role("button", name="Notify me").click()
    await expect(page.get_by_role("alert")).to_contain_text("Your browser blocks notifications")
    await expect(page.get_by_role("button", name="Notify me")).to_have_attribute(
        "aria-pressed", "false"
    )


# The last one, because its clock stays


async def test_the_time_left_stands_beside_a_running_job_and_goes_with_it(page: Page) -> None:
    await page.goto(HOST)
    await page.evaluate(SOCKET)
    await page.clock.install()
    await page.evaluate(
        """async () => {
          document.getElementById("place").innerHTML = "<span data-left='0001' hidden></span>";
          (await import("/static/progrock/left.js")).showLeft(socket); }"""
    )
    left = page.locator("[data-left]")
    for second in range(15):
        await page.evaluate("jobs => tell(...jobs)", [job(1, progress=second)])
        await page.clock.run_for(1000)
    await expect(left).to_have_text("about 1 minute left")
    await page.clock.run_for(30_000)
    await expect(left).to_be_hidden()
    for second in range(30, 45):
        await page.evaluate("jobs => tell(...jobs)", [job(1, progress=second)])
        await page.clock.run_for(1000)
    await expect(left).to_have_text("about 50 seconds left")
    await page.evaluate("jobs => tell(...jobs)", [job(1, "succeeded", progress=100)])
    await expect(left).to_be_hidden()


# Which backends may be started

OFFER = """async offers => {
  document.getElementById("place").innerHTML = `
    <form id="start"><select name="backend"></select><p id="about"></p><div id="params"></div>
    <button id="go"></button></form><p id="nothing" hidden></p><p id="how"></p>
    <p id="problem"></p><p id="unsent"></p>`;
  const { showComposer } = await import("/static/progrock/composer.js");
  const socket = new EventTarget();
  showComposer(socket);
  return offers.map(backends => {
    socket.dispatchEvent(new CustomEvent("snapshot", { detail: { backends } }));
    return ["start", "nothing", "how"].filter(id => !document.getElementById(id).hidden);
  }); }"""


async def test_a_page_without_backends_to_start_says_so_in_place_of_the_form(page: Page) -> None:
    by_code = {"name": "render", "title": "render", "start": False}
    offers = [[by_code], [by_code | {"start": True}], []]
    shown = [["nothing"], ["start", "how"], ["nothing"]]
    assert await page.evaluate(OFFER, offers) == shown
