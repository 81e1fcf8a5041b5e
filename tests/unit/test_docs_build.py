"""The docs build strictly, load nothing from other servers, and say what the code says."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from deploy import cookbook
from deploy.index_readme import for_index
from progrock.backends.base import LEAST_LOOKS, usual_lease
from progrock.broker.lanes import LANES, SHORTEST, lane_for, ttl
from progrock.broker.names import NAMES
from progrock.consumers.sweeper import GRACE, SWEEP
from progrock.lifecycle import Standing
from progrock.models import State

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RECIPES = ROOT / "site/progrock/recipes"
CODE = ("broker", "consumers", "site/progrock")
#: Where a page fetches something by itself, unlike a link that a reader follows.
LOADS = {
    "script": ["src"],
    "link": ["href"],
    "img": ["src", "srcset"],
    "iframe": ["src"],
    "source": ["src", "srcset"],
    "video": ["src", "poster"],
    "object": ["data"],
    "form": ["action"],
}
#: These name files of the repository. Other pages name those of a project that the reader makes.
NAMING = ["architecture", "contributing", "delays", "glossary", "lifecycle", "promise", "why"]


#: Figures on the pages: where, in which words, and the constant (times so much) that they repeat.
FIGURES = [
    ("delays", "a random 0 to {:g} % of the interval", "SPREAD", 100),
    ("delays", "on multiples of {:g} ms", "GRID", 1000),
    ("delays", "due within {:g} ms", "TOGETHER", 1000),
    ("delays", "leaves its lane {:g} ms early", "HEAD_START", 1000),
    ("delays", "a message carries up to {:g} tasks", "MAX_TASKS", 1),
    ("promise", "Every worker looks every {:g} s", "SWEEP", 1),
    ("promise", '"Long before" means {:g} s, or twice', "GRACE", 1),
    ("promise", "The grace is {:g} s, or twice", "GRACE", 1),
    ("promise", "a sweep comes every {:g} s", "SWEEP", 1),
    ("promise", "When nothing has arrived for {:g} s", "SILENCE", 1),
    ("promise", "asks the ledger every {:g} s", "REPAIR", 1),
    ("lifecycle", "at most {:g} s (or the interval", "LONGEST_BACKOFF", 1),
    ("lifecycle", "sweeps its queues every {:g} s", "SWEEP", 1),
    ("lifecycle", "given up: {:g} workers crashed", "MOST_CRASHES", 1),
    ("backends", "The shortest is {:g} intervals", "LEAST_LOOKS", 1),
    ("glossary", "An empty frame every {:g} s", "BEAT", 1),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as `make lint` builds it."""
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Loads(HTMLParser):
    """Collects what a page loads by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the attributes that make a browser fetch."""
        self.found += [value for name, value in attrs if name in LOADS.get(tag, ()) and value]
        for name, value in attrs:
            if name == "class" and value:
                self.classes |= set(value.split())


def test_no_page_loads_anything_from_another_server(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        loads = Loads(page.read_text())
        foreign = [each for each in loads.found if urlsplit(each).netloc]
        assert not foreign, page
        assert "mermaid" not in loads.classes, f"{page}: Material loads mermaid from a CDN"


def test_no_stylesheet_loads_anything_from_another_server(built: Path) -> None:
    for sheet in built.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")]+)", sheet.read_text())
        assert not found, sheet


def test_every_file_that_a_page_names_exists() -> None:
    for page in NAMING:
        text = (DOCS / f"{page}.md").read_text()
        for name in re.findall(r"`((?:[\w.-]+/)+[\w.-]*)`", text):
            if not name.startswith(".progrock/"):  # what tests and the demo make is there
                assert (ROOT / name).exists(), f"{page}.md names {name}"


def test_the_way_of_one_job_is_as_long_as_the_page_says() -> None:
    text = (DOCS / "architecture.md").read_text()
    way = text.split("### From the click")[1].split("## On a second reading")[0]
    files = re.findall(r"^\| `([\w/]+\.py)`", way, re.M)
    lines = sum(len((ROOT / file).read_text().splitlines()) for file in files)
    told = re.search(r"about ([\d,]+) lines", text)
    assert told
    assert lines == pytest.approx(int(told[1].replace(",", "")), rel=0.1)


def test_every_word_of_the_glossary_is_used_in_the_code() -> None:
    files = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    code = " ".join(re.sub(r"[_\s]+", " ", file.read_text().lower()) for file in files)
    terms = re.findall(r"^([a-z][a-z ]+)\n:   ", (DOCS / "glossary.md").read_text(), re.M)
    assert len(terms) > 40
    assert terms == sorted(terms)
    for term in terms:
        assert re.search(rf"\b{term.replace(' ', '[ -]')}", code), term


def test_the_lanes_of_the_page_are_those_of_the_code() -> None:
    text = (DOCS / "delays.md").read_text()
    assert "  ".join(lane.name for lane in LANES) in text
    assert f"`{NAMES.lane(LANES[0])}` to `{NAMES.lane(LANES[-1])}`" in text


def test_the_way_of_a_delay_is_the_one_on_the_page() -> None:
    told = re.search(r"^([\d.]+) s: +(.*)  →  a timer", (DOCS / "delays.md").read_text(), re.M)
    assert told
    left, way = float(told[1]), []
    while (lane := lane_for(left)) is not None:
        way.append(lane.name)
        left -= ttl(lane, left) + 0.002  # what a hop costs
    assert way == told[2].split("  →  ")
    assert 0 < left < SHORTEST


@pytest.mark.parametrize(("page", "words", "constant", "times"), FIGURES)
def test_the_figures_of_the_pages_are_those_of_the_code(
    page: str, words: str, constant: str, times: int
) -> None:
    files = [file for folder in CODE for file in (ROOT / folder).rglob("*.py")]
    pattern = re.compile(rf"^{constant}(?:: \w+)? = ([\d.]+)", re.M)
    found = {value for file in files for value in pattern.findall(file.read_text())}
    assert len(found) == 1, f"{constant}: {found}"
    text = " ".join((DOCS / f"{page}.md").read_text().split())
    assert words.format(float(found.pop()) * times) in text


def test_the_promise_tells_as_many_rules_as_it_says() -> None:
    rests = (DOCS / "promise.md").read_text().partition("## What it rests on")[2]
    assert len(re.findall(r"^### ", rests, re.M)) == 7
    assert "Seven rules carry the promise" in rests


def test_the_leases_of_the_pages_are_those_of_the_code() -> None:
    until_swept = GRACE + SWEEP
    row = re.compile(r"^\| (\d+) s \| (\d+) s \| (\d+) s \| (\d+) s \|$", re.M)
    rows = row.findall((DOCS / "promise.md").read_text())
    assert rows
    for interval, lease, healed, without in (map(int, each) for each in rows):
        assert lease == usual_lease(interval)
        assert (healed, without) == (lease + until_swept, interval + until_swept)
    row = re.compile(r"^\| (\d+) s \| (\d+)(, as usual)? \| .* \| (\d+) s \|$", re.M)
    choices = row.findall((DOCS / "backends.md").read_text())
    assert choices
    for interval, lease, usual, healed in choices:
        assert not usual or int(lease) == usual_lease(int(interval))
        assert int(lease) == 0 or int(lease) >= LEAST_LOOKS * int(interval)
        assert int(healed) == max(int(lease), int(interval)) + until_swept


def test_the_arithmetic_of_the_page_about_scaling_is_right() -> None:
    """So that a figure which is measured anew is not left beside what was made of the old one."""
    text = " ".join((DOCS / "scaling.md").read_text().split())
    products = re.findall(r"([\d,]+) × (\d+) µs = ([\d.]+) cores?\b", text)
    assert len(products) > 5
    for polls, cost, cores in products:
        digits = len(cores.partition(".")[2])
        assert round(int(polls.replace(",", "")) * int(cost) / 1e6, digits) == float(cores)


@pytest.mark.parametrize("name", ["README.md", "docs/why.md"])
def test_measured_figures_are_those_of_the_page_that_says_how_they_were_measured(
    name: str,
) -> None:
    text, measured = (ROOT / name).read_text(), (DOCS / "measured.md").read_text()
    for figure in ("21,926", "497"):  # polls a second, ProgRock's and Celery's
        assert figure in text
        assert f"| {figure}/s" in measured


def test_every_state_of_a_job_and_every_meaning_of_a_task_is_told() -> None:
    text = (DOCS / "lifecycle.md").read_text()
    for state in State:
        assert f"| `{state.value}` |" in text
        assert f">{state.value}</text>" in text
    for standing in Standing:
        assert f"| {standing.value} |" in text


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_link_resolves(name: str) -> None:
    for target in _links((ROOT / name).read_text()):
        parts = urlsplit(target)
        if parts.scheme or not parts.path:
            continue
        assert (ROOT / unquote(parts.path)).exists(), f"{name} links to {target}"


def test_the_readme_on_the_package_index_has_no_link_that_leads_nowhere() -> None:
    text = for_index((ROOT / "README.md").read_text(), None)
    assert [target for target in _links(text) if not urlsplit(target).scheme] == []


def test_the_readme_on_the_package_index_leads_to_the_repository_where_there_is_one() -> None:
    text = "![a page](docs/a.gif), [words](docs/b.md#c), [far](https://example.com), [here](#d)"
    assert for_index(text, "https://example.com/own/er/") == (
        "![a page](https://example.com/own/er/raw/HEAD/docs/a.gif), "
        "[words](https://example.com/own/er/blob/HEAD/docs/b.md#c), "
        "[far](https://example.com), [here](#d)"
    )
    assert for_index(text, None) == ", words, [far](https://example.com), [here](#d)"


def test_the_cookbook_is_made_of_the_recipes_that_ship() -> None:
    assert cookbook.PAGE.read_text() == cookbook.page(), "run make cookbook"
    count = len(list(RECIPES.glob("*.toml")))
    assert len(re.findall(r"^## ", cookbook.page(), re.M)) == count
    assert f"tables for {count} real APIs" in (DOCS / "backends.md").read_text()


def _links(text: str) -> list[str]:
    """Where the links and pictures of a Markdown text lead."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        for inner in token.children or ():
            found += [str(inner.attrs[key]) for key in ("href", "src") if key in inner.attrs]
        if token.type == "html_block":
            found += Loads(token.content).found
    return found


def test_the_architecture_leads_to_every_file_of_the_core_path() -> None:
    """Every module that a job meets stands on the page, so that a new one is not forgotten."""
    text = (DOCS / "architecture.md").read_text()
    backends = ("site/progrock/backends", "site/progrock/backends/http")
    for folder in ("broker", "consumers", "site/progrock", *backends):
        for file in (ROOT / folder).glob("*.py"):
            name = f"{folder}/{file.name}"
            assert file.name == "__init__.py" or f"`{name}`" in text, name
