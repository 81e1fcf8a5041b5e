"""The client as a package: what is in it, its types, and pages of React, Preact, Vue and htmx.

The pages are the examples of docs/javascript.md. Vite builds them from the packed tarball.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.pages import part
from tests.services import ROOT, Stack
from tests.unit.test_docs import FENCE, section, text_of

SOURCES = Path(__file__).with_name("frameworks")
CLIENT = ROOT / "site" / "progrock" / "static" / "progrock"
INSTALLED = ROOT / ".progrock" / "frameworks"
NODE = Path(sys.executable).with_name("node")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program of Node's; returns what it printed. A failure raises its output."""
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def needs_node() -> None:
    """Skip the test where Node's packages are not installed."""
    if not (INSTALLED / "done").exists():
        pytest.skip("npm's packages are not installed: `make test` installs them")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """The sources of the pages, the examples, and the packed client where Node looks for it."""
    needs_node()
    # In the folder of npm's packages, so that they are found from it.
    made = Path(tempfile.mkdtemp(prefix="pages-", dir=INSTALLED))
    try:
        shutil.copytree(SOURCES, made, dirs_exist_ok=True)
        modules = made / "node_modules"
        modules.mkdir()
        tarball = run("npm", "pack", "--silent", "--pack-destination", made, cwd=CLIENT).strip()
        with tarfile.open(made / tarball) as archive:
            archive.extractall(modules, filter="data")
        (modules / "package").rename(modules / "progrock-client")
        for name, code in examples().items():
            (made / name).write_text(code)
        yield made
    finally:
        shutil.rmtree(made)


def examples() -> dict[str, str]:
    """The blocks of docs/javascript.md that are files, by name, and what is made of them."""
    found = {
        name[1]: match[4]
        for match in FENCE.finditer(text_of("javascript.md"))
        if (name := re.search(r'title="([^"]+)"', match[3]))
    }
    preact = found["Film.jsx"].replace('from "react"', 'from "preact/hooks"')
    found["PreactFilm.jsx"] = "/** @jsxImportSource preact */\n" + preact
    page = (SOURCES / "htmx.html").read_text()
    return found | {"htmx.html": page.replace("<!-- film.html -->", found["film.html"])}


@pytest.fixture(scope="session")
def films(folder: Path, stack: Callable[..., Stack]) -> Stack:
    """A whole ProgRock that serves the built pages."""
    run(NODE, "build.js", cwd=folder)
    env = {"DJANGO_SETTINGS_MODULE": "tests.browser.films.settings", "PAGES": str(folder)}
    return stack(env=env)


#: With ?hydrate a page takes over what its server has rendered.
PAGES = [f"{each}.html{q}" for each in ("react", "preact", "vue") for q in ("", "?hydrate")]


class FilmPage:
    """A page with the example of a framework."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets = 0
        page.on("websocket", self._count)
        self.card = page.locator("job-progress")

    def _count(self, _: object) -> None:
        self.sockets += 1

    async def render(self) -> Locator:
        """Start a job, and wait until its bar moves."""
        await self.page.get_by_role("button", name="Render").click()
        await expect(part(self.card, "percent")).to_have_text(re.compile(r"^[1-9]\d* %$"))
        await expect(part(self.card, "name")).to_have_text("Film")
        return self.card

    async def unmount(self) -> None:
        """Remove the element, and see that nothing is left of it."""
        await self.page.get_by_role("button", name="Unmount").click()
        await expect(self.card).to_have_count(0)
        assert await self.listeners() == []
        assert self.sockets == 1

    async def listeners(self) -> list[str]:
        """The types of events that anything on the page listens to at the socket."""
        session = await self.page.context.new_cdp_session(self.page)
        found = await session.send(
            "Runtime.evaluate", {"expression": "client.ProgressSocket.shared()"}
        )
        listening = await session.send(
            "DOMDebugger.getEventListeners", {"objectId": found["result"]["objectId"]}
        )
        return [each["type"] for each in listening["listeners"]]


@pytest.fixture
def open_film(
    films: Stack, new_page: Callable[..., Awaitable[Page]]
) -> Callable[[str], Awaitable[FilmPage]]:
    """Opens a page of the site by its path."""

    async def make(path: str) -> FilmPage:
        film = FilmPage(await new_page())
        await film.page.goto(f"{films.url}/{path}")
        return film

    return make


OpenFilm = Callable[[str], Awaitable[FilmPage]]


async def test_each_example_starts_shows_and_cancels_a_job_and_leaves_nothing(
    open_film: OpenFilm,
) -> None:
    async def play(page: str) -> None:
        film = await open_film(f"pages/{page}")
        await expect(film.card).to_be_hidden()
        card = await film.render()
        assert "job" in await film.listeners()
        await part(card, "cancel").click()
        await expect(film.page.get_by_text("The film: cancelled")).to_be_visible()
        assert await card.evaluate("card => card.job") == await card.get_attribute("job")
        await film.unmount()

    await asyncio.gather(*(play(page) for page in PAGES))


#: Puts what the server shows of a job now over what is on the page.
MORPH = "url => htmx.ajax('GET', url, { target: '#job', swap: 'innerMorph' })"


async def test_htmx_swaps_the_tag_in_and_out_and_morphs_it(open_film: OpenFilm) -> None:
    film = await open_film("htmx")
    card = await film.render()
    assert sorted(await film.listeners()) == ["job", "snapshot", "state"]
    job = await card.get_attribute("job")
    await card.evaluate("card => { window.before = card; }")
    await film.page.evaluate(MORPH, f"/film/{job}/card")
    assert await card.evaluate("card => card === before && card.isConnected")
    await part(card, "cancel").click()
    await expect(film.page.get_by_text(f"The film: {job}")).to_be_visible()
    await expect(film.card).to_have_count(0)
    await film.render()
    assert sorted(await film.listeners()) == ["job", "snapshot", "state"]
    await film.unmount()


# The package


def test_the_package_holds_what_it_needs_and_no_more() -> None:
    needs_node()
    (packed,) = json.loads(run("npm", "pack", "--dry-run", "--json", cwd=CLIENT))
    about = json.loads(text("package.json"))
    files = {each["path"] for each in packed["files"]}
    named = set(re.findall(r'"\./([^"]+\.(?:js|css|d\.ts|json))"', text("package.json")))
    modules = "".join(text(name) for name in named if name.endswith(".js"))
    imported = set(re.findall(r'^(?:import|export) .*from "\./(.+)"', modules, re.M))
    assert files == named | imported | {"LICENSE", "README.md"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (about["version"], about["license"]) == (project["version"], project["license"])
    assert text("LICENSE") == (ROOT / "LICENSE").read_text()


def text(name: str) -> str:
    """A file of the client's folder."""
    return (CLIENT / name).read_text()


def test_a_server_may_import_the_package(folder: Path) -> None:
    modules = {"progrock-client": "ProgressSocket", "progrock-client/form": "ParamsForm"}
    for package, member in modules.items():
        code = f'import("{package}").then((client) => console.log(Object.keys(client).join()))'
        assert member in run(NODE, "--eval", code, cwd=folder).strip().split(",")


#: For each module its exports, and for each of its classes the members that are its own.
MEMBERS = """() => {
  const of = {
    ProgressSocket: [() => client.ProgressSocket.shared(), EventTarget],
    JobProgress: [() => document.createElement("job-progress"), HTMLElement],
    ProgressError: [() => new client.ProgressError({ code: "", message: "" }), Error],
    ParamsForm: [() => new form.ParamsForm(null), Object],
  };
  const own = (object, base) =>
    Object.getOwnPropertyNames(object).filter((name) => !(name in base) && name !== "stack");
  const describe = (module) =>
    Object.entries(module).map(([name, value]) => {
      if (!/^class\\b/.test(value)) return { name };
      const [make, base] = of[name];
      const members = [...own(make(), base.prototype), ...own(value.prototype, base.prototype)];
      return { name, base: base.name, members, statics: own(value, base) };
    });
  return { client: describe(client), form: describe(form) };
}"""


async def test_the_types_name_all_that_there_is_and_tell_mistakes(
    open_film: OpenFilm, folder: Path
) -> None:
    """tsc compiles types/ strictly. A mistake there that it does not see is an error as well."""
    there_is = await (await open_film("pages/react.html")).page.evaluate(MEMBERS)
    uses = (SOURCES / "types" / "uses.ts").read_text()
    lines = [
        'import * as client from "progrock-client";',
        'import * as form from "progrock-client/form";',
        "type Nothing<T extends never> = T;",
        "type Undeclared<All, Found extends All> = Exclude<All, Found>;",
    ]

    def same(declared: str, found: list[str]) -> None:
        """Have tsc compare the names that are declared with those that were found."""
        names = " | ".join(f'"{name}"' for name in found) or "never"
        number = len(lines)
        lines.append(f"export type Same{number} = Nothing<Undeclared<{declared}, {names}>>;")

    for module, exports in there_is.items():
        same(f"keyof typeof {module}", [each["name"] for each in exports])
        for each in exports:
            kind, members, statics = f"{module}.{each['name']}", [], []
            if base := each.get("base"):
                members, statics = each["members"], each["statics"]
                same(f"Exclude<keyof {kind}, keyof {base}>", members)
                same(f"Exclude<keyof typeof {kind}, keyof typeof {base}>", statics)
            for name in [each["name"], *members, *statics]:
                inner = name.endswith("Callback") or name == "observedAttributes"  # the browser's
                assert inner or re.search(rf"\b{name}\b", uses), f"types/uses.ts lacks {name}"
    same("keyof client.Job", cells("### job"))
    same("keyof client.Backend", cells("### snapshot"))
    (folder / "types" / "members.ts").write_text("\n".join(lines))
    run(INSTALLED / "node_modules" / ".bin" / "tsc", "--project", "types", cwd=folder)


def cells(heading: str) -> list[str]:
    """The names in the first column of a table in docs/wire.md."""
    rows = re.findall(r"^\| (`.+?) \|", section("wire.md", heading), re.M)
    return re.findall(r"`(\w+)`", " ".join(rows))
