"""The form at `/` that starts jobs of any backend, in a real browser on a real ProgRock.

test_form.py has each kind of field; here the server has a word as well.
"""

from typing import Any

import pytest
from playwright.async_api import Locator, expect

from progrock.backends import load
from tests.browser.conftest import Visitor
from tests.browser.pages import JobsPage, job_of, part
from tests.browser.test_accessibility import SCHEMES, violations
from tests.services import ROOT


async def choose(jobs: JobsPage, backend: str) -> None:
    """Choose a backend by its title."""
    await jobs.form.get_by_label("Backend").select_option(label=backend)


async def press_start(jobs: JobsPage) -> None:
    """Press the button."""
    await jobs.page.get_by_role("button", name="Start", exact=True).click()


async def started(jobs: JobsPage, count: int = 1) -> Locator:
    """The card of the job that has just been started, once there are so many."""
    await expect(jobs.cards).to_have_count(count)
    return jobs.card(await job_of(jobs.cards.first))


async def fill_in(jobs: JobsPage) -> None:
    """Fill in what the rich backend wants."""
    await choose(jobs, "A rich one")
    await jobs.page.get_by_label("Name of the job").fill("Poster")
    await jobs.page.get_by_label("Size").select_option("A3")
    await jobs.page.get_by_label("Director").fill("Ann")


async def test_a_rich_form_starts_a_job_with_its_params_and_its_label(visitor: Visitor) -> None:
    jobs = await visitor()
    await fill_in(jobs)
    await expect(jobs.page.get_by_text("It wants much.")).to_be_visible()
    await jobs.page.get_by_label("Pages").fill("2")
    await jobs.page.get_by_role("button", name="Add Files").click()
    await jobs.page.keyboard.type("https://example.org/a")
    await jobs.page.get_by_label("Extra").fill('{"a": [1, null]}')
    await press_start(jobs)
    card = await started(jobs)
    await expect(part(card, "name")).to_have_text("Poster")
    assert jobs.sent == [
        {
            "name": "Poster",
            "seconds": 0.5,
            "pages": 2,
            "size": "A3",
            "files": ["https://example.org/a"],
            "extra": {"a": [1, None]},
            "crew": {"director": "Ann"},
        }
    ]
    assert await jobs.page.get_by_label("Name of the job").input_value() == "Poster", "it is kept"
    assert await jobs.page.get_by_label("Files 1", exact=True).input_value() != ""


async def test_what_the_browser_finds_wrong_is_not_sent(visitor: Visitor) -> None:
    jobs = await visitor()
    await fill_in(jobs)
    name, pages = jobs.page.get_by_label("Name of the job"), jobs.page.get_by_label("Pages")
    await name.fill("x")
    await pages.fill("0")
    await press_start(jobs)
    await expect(name).to_be_focused()
    for field, told in ((name, "Write at least 2 characters."), (pages, "Write 1 or more.")):
        await expect(field).to_have_attribute("aria-invalid", "true")
        await expect(field).to_have_accessible_description(told)
    assert jobs.sent == []
    await name.fill("xy")
    await expect(name).not_to_have_attribute("aria-invalid", "true")
    await pages.fill("1")
    await press_start(jobs)
    await started(jobs)


async def test_what_the_server_finds_wrong_is_told_at_its_field(visitor: Visitor) -> None:
    jobs = await visitor()
    await fill_in(jobs)
    director, notes = jobs.page.get_by_label("Director"), jobs.page.get_by_label("Notes")
    await director.fill("nobody")
    await press_start(jobs)
    await expect(director).to_be_focused()
    await expect(director).to_have_accessible_description(
        "'nobody' should not be valid under {'const': 'nobody'}."
    )
    await expect(jobs.problem).to_be_hidden()
    await director.fill("Ann")
    await expect(director).not_to_have_attribute("aria-invalid", "true")
    await jobs.page.get_by_label("A draft").check()
    await press_start(jobs)
    await expect(notes).to_be_focused()
    await expect(notes).to_have_accessible_description("'notes' is a required property.")
    await notes.fill("Soon")
    await press_start(jobs)
    await started(jobs)


async def test_each_backend_keeps_what_was_typed_for_it(visitor: Visitor) -> None:
    jobs = await visitor()
    await fill_in(jobs)
    await choose(jobs, "A plain one")
    await expect(jobs.page.get_by_text("It wants much.")).to_be_hidden()
    area = jobs.page.get_by_label("Params")
    await area.fill('{"seconds": 0.5, "odd": [true]')
    await press_start(jobs)
    await expect(area).to_be_focused()
    await expect(area).to_have_attribute("aria-invalid", "true")
    await expect(jobs.page.get_by_text("This is not JSON: ")).to_be_visible()
    await area.press("End")
    await area.press("}")
    await choose(jobs, "A rich one")
    assert await jobs.page.get_by_label("Name of the job").input_value() == "Poster"
    await choose(jobs, "A plain one")
    await press_start(jobs)
    await started(jobs)
    assert jobs.sent == [{"seconds": 0.5, "odd": [True]}]


async def test_a_rich_form_can_be_filled_by_keyboard_alone(visitor: Visitor) -> None:
    jobs = await visitor()
    keyboard = jobs.page.keyboard
    await jobs.form.get_by_label("Backend").focus()
    await keyboard.type("A r")
    for typed in ("Tab", "Poster", "Tab", "Tab", "3", "Tab", "A4", "Tab", " "):
        await (keyboard.press if typed in ("Tab", " ") else keyboard.type)(typed)
    await keyboard.press("Tab")
    await keyboard.type("Soon")
    await to(jobs, "Add Files")
    for address in ("a:b", "c:d"):
        await keyboard.press("Enter" if address == "a:b" else "Tab")
        if address == "c:d":
            await to(jobs, "Add Files")
            await keyboard.press("Space")
        await keyboard.type(address)
    await keyboard.press("Shift+Tab")
    await keyboard.press("Enter")
    await to(jobs, "Director")
    await keyboard.type("Ann")
    await keyboard.press("Enter")
    await started(jobs)
    assert jobs.sent == [
        {
            "name": "Poster",
            "seconds": 0.5,
            "pages": 3,
            "size": "A4",
            "draft": True,
            "notes": "Soon",
            "files": ["c:d"],
            "crew": {"director": "Ann"},
        }
    ]


ANEW = """async (change) => {
  const { ProgressSocket } = await import("/static/progrock/progrock.js");
  const socket = ProgressSocket.shared();
  const backends = change ? structuredClone(socket.backends) : [];
  for (const { params } of backends) if (params) params.properties.new = { type: "string" };
  socket.dispatchEvent(new CustomEvent("snapshot", { detail: { jobs: [], backends } })); }"""


async def test_what_was_typed_outlives_a_new_schema_and_new_texts(visitor: Visitor) -> None:
    jobs = await visitor()
    await fill_in(jobs)
    name = jobs.page.get_by_label("Name of the job")
    await jobs.page.evaluate(ANEW, True)
    await expect(jobs.page.get_by_label("New")).to_be_visible()
    await expect(name).to_have_value("Poster")
    await jobs.page.evaluate(
        """async () => {
          const { texts } = await import("/static/progrock/progrock.js");
          texts.form_add = "More"; }"""
    )
    await expect(jobs.page.get_by_role("button", name="More Files")).to_be_visible()
    await expect(name).to_have_value("Poster")
    await jobs.page.evaluate(ANEW, False)
    await expect(jobs.form).to_be_hidden()
    await expect(jobs.page.get_by_text("No job can be started here by hand.")).to_be_visible()


async def to(jobs: JobsPage, name: str) -> None:
    """Press Tab until the control of this name has the focus."""
    reached = jobs.page.locator(":focus").and_(
        jobs.page.get_by_role("button", name=name).or_(jobs.page.get_by_label(name))
    )
    for _ in range(20):
        await jobs.page.keyboard.press("Tab")
        if await reached.count():
            return
    pytest.fail(f"Tab does not lead to {name}")


async def test_axe_finds_nothing_in_a_form_with_problems_and_it_fits_a_phone(
    visitor: Visitor,
) -> None:
    jobs = await visitor(viewport={"width": 360, "height": 740})
    await choose(jobs, "A rich one")
    await jobs.page.get_by_role("button", name="Add Files").click()
    await jobs.page.keyboard.type("no address")
    await press_start(jobs)
    await expect(jobs.page.get_by_text("Fill this in.").first).to_be_visible()
    for scheme in SCHEMES:
        await jobs.page.emulate_media(color_scheme=scheme)
        assert await violations(jobs.page) == [], scheme
    assert await jobs.page.evaluate("document.documentElement.scrollWidth") <= 360
    for control in await jobs.form.locator("button, select, input:not([type=checkbox])").all():
        box: Any = await control.bounding_box()
        assert box["height"] >= 24, "too small for a finger (WCAG 2.5.8)"


def test_the_demo_has_a_form_for_each_of_its_backends() -> None:
    for options in load(ROOT / "deploy/backends.toml").values():
        assert options.params_schema
        assert options.title
