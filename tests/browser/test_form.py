"""The form that form.js makes of a JSON Schema, in a page by itself: which field, which params."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.browser.test_accessibility import violations
from tests.services import PATIENCE

STATIC = Path(__file__).resolve().parents[2] / "site/progrock/static/progrock"
PAGE = """<!doctype html><html lang="en"><title>A form</title>
<link rel="stylesheet" href="/form.css"><link rel="stylesheet" href="/page.css">
<main><h1>A form</h1><form novalidate><button>Start</button></form></main>"""
MAKE = """async ({schema, params}) => {
  const { ParamsForm } = await import("/form.js");
  window.made = new ParamsForm(JSON.parse(schema));
  if (params) made.fill(params);
  document.querySelector(".progrock-params")?.remove();
  document.querySelector("form").prepend(made.element); }"""
TYPES = {".js": "text/javascript", ".css": "text/css"}


class Form:
    """A form on its page."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def of(self, schema: Any, params: Any = None) -> "Form":
        """Make the form of this schema, filled in with these params."""
        await self.page.evaluate(MAKE, {"schema": json.dumps(schema), "params": params})
        return self

    async def given(self) -> Any:
        """The params, or None where something is wrong."""
        return await self.page.evaluate("made.check()")

    def field(self, label: str) -> Locator:
        """The control with this label."""
        return self.page.get_by_label(re.compile(rf"^{label}( optional)?$"))

    async def complaint(self, label: str) -> str:
        """What is said to be wrong with a field that has the focus; "" where nothing is."""
        field = self.field(label)
        if await field.get_attribute("aria-invalid") is None:
            return ""
        ids = (await field.get_attribute("aria-describedby") or "").split()
        return await self.page.locator(f"[id='{ids[-1]}']").inner_text()


@pytest.fixture(scope="module")
async def form(chromium: Browser) -> AsyncIterator[Form]:
    """A page that makes forms, one after the other. No server is asked."""

    async def answer(route: Route) -> None:
        file = STATIC / route.request.url.rpartition("/")[2]
        if file.suffix in TYPES:
            await route.fulfill(body=file.read_text(), content_type=TYPES[file.suffix])
        else:
            await route.fulfill(body=PAGE, content_type="text/html")

    page = await chromium.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    mistakes: list[str] = []
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    await page.route("**/*", answer)
    await page.goto("http://form.test/")
    yield Form(page)
    await page.close()
    assert not mistakes


def of(**properties: Any) -> dict[str, Any]:
    """An object with these properties. A property whose name ends in _ is required."""
    return {
        "type": "object",
        "properties": {name.rstrip("_"): each for name, each in properties.items()},
        "required": [name[:-1] for name in properties if name.endswith("_")],
    }


RICH = of(
    film_={"type": "string", "title": "Film", "minLength": 2, "maxLength": 20},
    mail={"type": "string", "format": "email", "description": "Where to write."},
    source={"type": "string", "format": "uri"},
    day={"type": "string", "format": "date"},
    at={"type": "string", "format": "date-time"},
    notes={"type": "string", "maxLength": 1000},
    code={"type": "string", "pattern": "^[A-Z]{3}$"},
    scale={"type": "number", "minimum": 0.1, "maximum": 10, "multipleOf": 0.1},
    pages={"type": "integer", "exclusiveMinimum": 0, "default": 3},
    draft={"type": "boolean"},
    public={"type": "boolean", "default": True},
    size={"enum": ["small", "large", 4]},
    mood={"oneOf": [{"const": "g", "title": "Good"}, {"const": "b", "title": "Bad"}]},
    tags={"type": "array", "items": {"type": "string", "minLength": 2}, "uniqueItems": True},
    crew=of(director_={"type": "string"}, camera={"type": "string"}),
    anything={"type": ["string", "array"]},
)


async def test_every_kind_of_field_gives_its_kind_of_value(form: Form) -> None:
    await form.of(RICH)
    assert await violations(form.page) == []
    await form.field("Film").fill("Solaris")
    assert await form.given() == {"film": "Solaris", "pages": 3, "public": True}
    texts = {"Mail": "a@b.org", "Source": "https://b.org/a", "Day": "2026-03-01", "Code": "ABC"}
    for label, value in {**texts, "Notes": "a\nb", "Scale": "0.3", "Pages": "12"}.items():
        await form.field(label).fill(value)
    await form.field("At").fill("2026-03-01T10:30")
    await form.field("Draft").check()
    await form.field("Public").uncheck()
    await form.field("Size").select_option("4")
    await form.field("Mood").select_option(label="Bad")
    for number, value in enumerate(("one", "", "two"), 1):
        await form.page.get_by_role("button", name="Add Tags").click()
        await expect(form.field(f"Tags {number}").first).to_be_focused()
        await form.page.keyboard.type(value)
    await form.field("Director").fill("Tarkovsky")
    await form.field("Anything").fill("[1, 2.50]")
    assert await form.given() == {
        "film": "Solaris",
        "mail": "a@b.org",
        "source": "https://b.org/a",
        "day": "2026-03-01",
        "at": await utc(form.page, "2026-03-01T10:30"),
        "notes": "a\nb",
        "code": "ABC",
        "scale": 0.3,
        "pages": 12,
        "draft": True,
        "public": False,
        "size": 4,
        "mood": "b",
        "tags": ["one", "two"],
        "crew": {"director": "Tarkovsky"},
        "anything": [1, 2.5],
    }
    tags = {name: await form.field(name).evaluate("e => e.type") for name in ("Mail", "Source")}
    assert tags == {"Mail": "email", "Source": "url"}
    assert await form.field("Notes").evaluate("e => e.tagName") == "TEXTAREA"
    described = await form.field("Mail").get_attribute("aria-describedby")
    assert await form.page.locator(f"[id='{described}']").inner_text() == "Where to write."


async def utc(page: Page, local: str) -> str:
    """This time of the browser's zone as the form sends it."""
    return str(await page.evaluate("local => new Date(local).toISOString()", local))


async def test_what_was_given_fills_the_form_again(form: Form) -> None:
    await form.of(RICH)
    await form.field("Film").fill("Solaris")
    given = {
        "film": "Stalker",
        "at": "2026-03-01T10:30:00.000Z",
        "size": 4,
        "mood": "g",
        "tags": ["one", "two"],
        "crew": {"camera": "Ann", "director": "Bob"},
        "anything": ["x"],
        "public": False,
        "scale": 1.5,
    }
    await form.page.evaluate("params => made.fill(params)", given)
    assert await form.given() == given


@pytest.mark.parametrize(
    ("label", "value", "told"),
    [
        ("Film", "", "Fill this in."),
        ("Film", "x", "Write at least 2 characters."),
        ("Film", "😀" * 21, "Write 20 characters at most."),
        ("Mail", "nobody", "@"),
        ("Source", "nowhere", "URL"),
        ("Code", "abc", "This does not have the form that is wanted: ^[A-Z]{3}$"),
        ("Scale", "0", "Write 0.1 or more."),
        ("Scale", "11", "Write 10 or less."),
        ("Scale", "0.25", "Write a multiple of 0.1."),
        ("Pages", "0", "Write a number above 0."),
        ("Pages", "1.5", "Write a whole number."),
        ("Pages", "9007199254740993", "A browser loses the last digits of whole numbers above"),
        ("Scale", "9007199254740993", "A browser loses the last digits of whole numbers above"),
        ("Anything", "[1,", "This is not JSON: "),
        ("Anything", '{"a": [9007199254740993]}', "A browser loses the last digits"),
        ("Camera", "Ann", ""),
    ],
)
async def test_what_is_wrong_is_told_at_its_field(
    form: Form, label: str, value: str, told: str
) -> None:
    await form.of(RICH)
    await form.field("Film").fill("Solaris")
    await form.field(label).fill(value)
    assert await form.given() is None
    wrong = label if told else "Director"  # a group that is begun wants what it requires
    await expect(form.field(wrong)).to_be_focused()
    assert (told or "Fill this in.") in await form.complaint(wrong)
    if label == "Pages":
        assert await violations(form.page) == []
    good = {"Film": "Solaris", "Mail": "a@b.c", "Source": "a:b", "Code": "ABC", "Scale": "1"}
    good |= {"Pages": "1", "Anything": '"9007199254740993"', "Director": "Bob"}
    await form.field(wrong).fill(good[wrong])
    assert await form.complaint(wrong) == "", "it goes as soon as it is mended"
    assert await form.given() is not None


async def test_a_list_counts_its_entries_and_wants_different_ones(form: Form) -> None:
    await form.of(of(n_={"type": "array", "items": {"type": "integer"}, "minItems": 2}))
    await expect(
        form.field(
            "N 2",
        )
    ).to_be_visible()
    await form.field("N 1").fill("7")
    assert await form.given() is None
    await expect(form.page.get_by_text("Give at least 2 entries.")).to_be_visible()
    await form.field("N 2").fill("8")
    assert await form.given() == {"n": [7, 8]}
    await form.page.get_by_role("button", name="Remove N 1").click()
    await expect(form.page.get_by_role("button", name="Remove N 1")).to_be_focused()
    assert await form.field("N 1").input_value() == "8"
    await form.page.keyboard.press("Enter")
    await expect(form.page.get_by_role("button", name="Add N")).to_be_focused()
    await form.of(of(n={"type": "array", "items": {"enum": ["a", "b"]}, "uniqueItems": True}))
    assert await form.given() == {}
    for number in (1, 2):
        await form.page.keyboard.press("Tab")
        await form.page.get_by_role("button", name="Add N").click()
        await form.field(f"N {number}").select_option("a")
    assert await form.given() is None
    await expect(form.page.get_by_text("Two entries are the same.")).to_be_visible()


FILM = {"type": "string", "title": "Film"}


@pytest.mark.parametrize(
    ("schema", "labels"),
    [
        ({**of(a={"$ref": "#/$defs/film"}), "$defs": {"film": FILM}}, ["Film"]),
        ({**of(a={"$ref": "#/$defs/a~1b%20c"}), "$defs": {"a/b c": FILM}}, ["Film"]),
        ({"$ref": "#/$defs/all", "$defs": {"all": of(a=FILM)}}, ["Film"]),
        ({"allOf": [of(a=FILM), of(b={"type": "integer"})]}, ["Film", "B"]),
        (of(a={"anyOf": [FILM, {"type": "null"}], "default": None}), ["Film"]),
        (of(maxPages={"type": ["integer", "null"]}), ["Max pages"]),
        ({"properties": {"a": FILM, "gone": False}}, ["Film"]),
        ({"required": ["film_name"], "properties": {"a": FILM}}, ["Film", "Film name"]),
    ],
)
async def test_references_and_parts_are_followed(
    form: Form, schema: Any, labels: list[str]
) -> None:
    await form.of(schema)
    found = await form.page.locator("[data-part=label]").all_inner_texts()
    assert [each.removesuffix(" optional") for each in found] == labels
    assert all(each.endswith(" optional") for each in found if "name" not in each)
    assert await form.page.locator("[data-kind=json]").count() == ("Film name" in labels)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {},
        {"type": "object"},
        {"$ref": "#"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"oneOf": [of(a=FILM), of(b=FILM)]},
        {**of(a=FILM), "if": of(a={"const": "x"}), "then": of(b_=FILM)},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "array"},
        {"properties": None},
        False,
    ],
)
async def test_what_makes_no_form_is_written_as_json(form: Form, schema: Any) -> None:
    await form.of(schema)
    area = form.field("Params")
    assert await form.given() == {}
    await area.fill('{"a": {"b": [1]}}')
    assert await form.given() == {"a": {"b": [1]}}
    for wrong, told in (("[1]", "Write a JSON object"), ("{'a': 1}", "This is not JSON")):
        await area.fill(wrong)
        assert await form.given() is None
        await expect(area).to_be_focused()
        assert told in await form.complaint("Params")


@pytest.mark.parametrize(
    "schema",
    [
        of(a_=False),
        of(a_={"type": "string", "minLength": 3, "maxLength": 2}),
        of(a_={"type": "string", "pattern": "(?<!"}),
        of(a_={"enum": []}),
        of(a_={"$ref": "#"}),
        of(a_={"$ref": "#/nowhere"}),
        of(a_={"type": "number", "minimum": 5, "maximum": 2, "multipleOf": 7}),
        of(a_={"type": "strang"}),
        {"properties": {"__proto__": FILM}, "required": ["constructor"]},
        of(a_={"type": "array", "items": of(b=FILM)}, b=of(c=of(d=FILM))),
        of(a_={"prefixItems": [FILM], "items": False}),
    ],
)
async def test_a_schema_that_is_hard_to_fill_makes_a_form_all_the_same(
    form: Form, schema: Any
) -> None:
    await form.of(schema)
    await form.given()
    assert await form.page.locator(".progrock-params").inner_text() is not None


async def test_a_field_may_have_an_odd_name_and_a_box_must_be_ticked(form: Form) -> None:
    terms = {"type": "boolean", "const": True}
    await form.of({"properties": {"__proto__": FILM, "terms": terms}, "required": ["terms"]})
    await form.field("Film").fill("x")
    assert await form.given() is None
    assert await form.complaint("Terms") == "Tick this to go on."
    await form.field("Terms").check()
    sent = await form.page.evaluate("JSON.stringify(made.check())")
    assert json.loads(sent) == {"__proto__": "x", "terms": True}


@pytest.mark.parametrize(
    ("message", "label", "told"),
    [
        ("params.pages: 0 is bad.", "Pages", "0 is bad."),
        ("params.crew.director: 'x': too short.", "Director", "'x': too short."),
        ("params.tags.1: 'c' is bad.", "Tags 3", "'c' is bad."),
        ("params.anything.b.0: is bad.", "Anything", "params.anything.b.0: is bad."),
    ],
)
async def test_a_complaint_of_the_server_leads_to_its_field(
    form: Form, message: str, label: str, told: str
) -> None:
    await form.of(RICH, {"film": "Solaris", "tags": ["aa", "", "cc"]})
    assert await form.page.evaluate("message => made.complain(message)", message)
    await expect(form.field(label)).to_be_focused()
    assert await form.complaint(label) == told
    for other in ("params: 'x' is required.", "params.page: no.", "Nobody may."):
        assert not await form.page.evaluate("message => made.complain(message)", other)


async def test_a_schema_without_properties_has_nothing_to_fill_in(form: Form) -> None:
    await form.of({"type": "object", "additionalProperties": False})
    await expect(form.page.get_by_text("There is nothing to fill in.")).to_be_visible()
    assert await form.given() == {}
