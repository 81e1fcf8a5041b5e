"""The documentation says what the code does: its tables, its blocks of code, its links."""

import ast
import hmac
import json
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from django.core.management import get_commands

import progrock
from progrock import conf, problems
from progrock.backends import ConfigError, JobView, Options, Status, build, load

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")])
STATIC = ROOT / "site/progrock/static/progrock"
FENCE = re.compile(r"^( *)```(\w*)([^\n]*)\n(.*?)^\1```$", re.M | re.S)


def text_of(page: str) -> str:
    """The Markdown of a page of docs/."""
    return (DOCS / page).read_text()


def section(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one that is no deeper; without blocks of code."""
    text, depth = FENCE.sub("", text_of(page)), len(heading.partition(" ")[0])
    end = rf"(?=^#{{1,{depth}}} |\Z)"
    found = re.search(rf"^{re.escape(heading)}\n(.*?){end}", text, re.M | re.S)
    assert found, f"{page} has no {heading}"
    return found[1]


def first_cells(markdown: str) -> list[str]:
    """The names in backticks that stand in the first cell of each row of a table."""
    return re.findall(r"^\| `([^`]+)`", markdown, re.M)


def blocks(language: str) -> list[Any]:
    """Each code block of a language in any page, with where it begins."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[2] == language:
                line = text.count("\n", 0, match.start()) + 1
                name = f"{page.relative_to(ROOT)}:{line}"
                found.append(pytest.param(match[4], id=name))
    return found


# What the tables say


def test_the_settings_tables_name_each_setting_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+) \|", text_of("settings.md"), re.M))
    for name, default in conf.DEFAULTS.items():
        if default is None:
            assert rows[name] == "as `DEBUG`"
        elif default != "":
            assert rows[name] == f"`{default}`"
    source = (ROOT / "site/config/settings.py").read_text()
    reading = r'(?:environ\.get\(|environ\[|flag\(|number\(|words\()\s*"([A-Z_]+)"'
    read = set(re.findall(reading, source))
    host = {"INSTALLED_APPS", "CHANNEL_LAYERS", "MIDDLEWARE", "DATABASES"}  # Django's and Channels'
    assert rows.keys() - host == read | conf.DEFAULTS.keys()


def test_only_the_settings_read_the_environment() -> None:
    files = [file for room in ("broker", "consumers", "site") for file in python_of(room)]
    reading = {
        str(file.relative_to(ROOT))
        for file in files
        if re.search(r"os\.environ(?!\.setdefault)", file.read_text())
    }
    assert reading == {
        "site/config/settings.py",
        "site/progrock/backends/config.py",  # ${NAME} in backends.toml
        "site/progrock/command.py",  # hands it on to the demo
        "site/progrock/management/commands/backend.py",  # the same, to hide it in what is printed
        "site/progrock/management/commands/topology.py",  # passwords of the definitions
    }


def python_of(room: str) -> Iterator[Path]:
    """The Python files of a folder; what a symbolic link leads to is found where it is."""
    return (file for file in (ROOT / room).rglob("*.py") if not file.is_symlink())


def test_the_pages_of_the_wire_and_of_http_name_each_error_code() -> None:
    told = set(first_cells(section("wire.md", "### error"))) | codes_over_http().keys()
    files = [file for room in ("consumers", "site") for file in python_of(room)]
    text = "".join(file.read_text() for file in files)
    used = set(
        re.findall(
            r'(?:Refused|error_frame|_send_error|problem)\(\s*(?:\w+, )?"([a-z_]+)"',
            text,
        )
    )
    assert told == used


def codes_over_http() -> dict[str, int]:
    """The codes of the HTTP page, with their statuses."""
    rows = re.findall(r"^\| (`.*`) \| (\d+) \|", section("http.md", "## Errors"), re.M)
    return {code: int(status) for codes, status in rows for code in re.findall(r"\w+", codes)}


def test_the_http_page_tells_the_status_of_each_code() -> None:
    assert {code: problems.status_of(code) for code in codes_over_http()} == codes_over_http()


def test_the_python_page_names_each_code_with_which_a_start_is_refused() -> None:
    files = [ROOT / "site/progrock" / name for name in ("creation.py", "audiences.py", "gate.py")]
    text = "".join(file.read_text() for file in files)
    used = set(re.findall(r'Refused\(\s*"([a-z_]+)"', text))
    assert used == set(first_cells(section("python.md", "### progrock.Refused")))


def test_the_wire_page_names_each_frame_action_and_close_code() -> None:
    wire, consumer = (ROOT / "site/progrock/wire.py").read_text(), text_of_consumer()
    sent = set(re.findall(r'"type": "([a-z]+)"', wire + (ROOT / "consumers/hub.py").read_text()))
    told = section("wire.md", "## From the server")
    assert set(re.findall(r"^### (\w+)$", told, re.M)) >= sent >= {"snapshot", "job", "error"}
    actions = re.findall(r'case "([a-z]+)":', consumer)
    assert re.findall(r"^### (\w+)$", section("wire.md", "## To the server"), re.M) == actions
    codes = set(re.findall(r"^[A-Z_]+ = (\d{4})$", consumer, re.M))
    assert codes <= set(re.findall(r"^\| (\d{4}) \|", section("wire.md", "## Close codes"), re.M))


def text_of_consumer() -> str:
    """The source of the WebSocket consumer."""
    return (ROOT / "consumers/progress.py").read_text()


def test_the_python_page_names_all_that_is_exported() -> None:
    for name in progrock.__all__:
        assert f"progrock.{name}" in text_of("python.md"), name


def test_the_javascript_page_names_what_the_client_has() -> None:
    source, page = (STATIC / "progrock.js").read_text(), text_of("javascript.md")
    events = set(re.findall(r'#emit\("(\w+)"', source))
    assert set(first_cells(section("javascript.md", "### Events"))) >= events
    exported = re.findall(r"^  \w+ as (\w+),$", source, re.M)
    assert {"ProgressSocket", "texts"} <= set(exported)
    for name in exported:
        assert name in page, name
    parts = re.search(r"const PARTS = \{(.*?)\}", source, re.S)
    assert parts
    for part in re.findall(r"^  (\w+):", parts[1], re.M):
        assert f"`{part}`" in page, part
    css = (STATIC / "progrock.css").read_text()
    properties = set(re.findall(r"^\s*(--progrock-\w+):", css, re.M))
    assert set(first_cells(section("javascript.md", "### How it looks"))) == properties


def test_the_javascript_page_names_what_a_form_has() -> None:
    source, told = (STATIC / "form.js").read_text(), section("javascript.md", "## ParamsForm")
    form = source[source.index("class ParamsForm") : source.index("class Part")]
    members = set(re.findall(r"^  (?:get )?(\w+)\(.*\{$|^    this\.(\w+) = ", form, re.M))
    named = {name or other for name, other in members} - {"constructor"}
    assert {re.sub(r"\(.*", "", each) for each in first_cells(told)} == named | {"new ParamsForm"}
    types = (STATIC / "form.d.ts").read_text()
    assert set(re.findall(r"^  (?:readonly )?(\w+)[(:]", types, re.M)) == named | {"constructor"}
    parts = set(re.findall(r'(?:make\("\w+", |button\()"(\w+)"', source))
    for part in parts - {"params", "hidden"}:
        assert f"`{part}`" in told, part
    for name in set(re.findall(r"--progrock-\w+", (STATIC / "form.css").read_text())):
        assert f"`{name}`" in told, name


def test_the_backends_page_names_each_key(tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    file.write_text('[render]\nqqqqqqqqqqqqqqqqqqqq = 1\nurl = "http://127.0.0.1"\n')
    with pytest.raises(ConfigError) as error:  # it names all keys where none is similar
        load(file)
    told = first_cells(section("backends.md", "### Every key"))
    assert sorted(told) == sorted(error.value.wanted.removeprefix("one of ").split(", "))


def test_the_operate_page_names_each_command() -> None:
    ours = {name for name, app in get_commands().items() if app == "progrock"}
    assert set(re.findall(r"^### (\w+)$", section("operate.md", "## Commands"), re.M)) == ours


def test_the_operate_page_quotes_the_log_as_it_is() -> None:
    page = section("operate.md", "## What one sees in an outage")
    sources = [file for room in ("broker", "consumers", "site") for file in python_of(room)]
    said = " ".join("".join(re.findall(r'"(.*)"', file.read_text())) for file in sources)
    quotes = [quote for quote in re.findall(r"`([^`]+)`", page) if " " in quote]
    assert quotes
    for quote in quotes:
        if not quote.startswith(("manage.py", "rabbitmqctl")):
            for part in quote.split("…"):
                assert part.strip() in said, quote


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it tells of the past, too
    text, makefile = page.read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
    for command in re.findall(r"manage\.py ([a-z]+)", text):
        assert command in get_commands(), command


# The blocks of code


@pytest.mark.parametrize("code", blocks("python"))
def test_python_can_be_compiled(code: str) -> None:
    compile(code, "a page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("code", blocks("json"))
def test_json_can_be_read(code: str) -> None:
    json.loads(code)


@pytest.mark.parametrize("code", blocks("toml"))
def test_toml_can_be_read(code: str) -> None:
    assert tomllib.loads(code)


@pytest.mark.parametrize(
    "code", [each for each in blocks("toml") if re.search(r"^\[\w+\]\n(url|class)", each.values[0])]
)
def test_backends_can_be_loaded(code: str, tmp_path: Path, mysite: types.ModuleType) -> None:
    file = tmp_path / "backends.toml"
    file.write_text(code)
    assert load(file)


@pytest.fixture
def mysite(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The package of the backends page, with the modules that it says it has."""
    package = types.ModuleType("mysite")
    monkeypatch.setitem(sys.modules, "mysite", package)
    page = text_of("backends.md")
    for name, code in re.findall(r'title="mysite/(\w+)\.py"\n(.*?)^```$', page, re.M | re.S):
        module = types.ModuleType(f"mysite.{name}")
        exec(code, module.__dict__)
        monkeypatch.setitem(sys.modules, f"mysite.{name}", module)
        setattr(package, name, module)
    return package


async def test_the_backend_class_of_the_page_works(mysite: types.ModuleType) -> None:
    backend = mysite.gpu.Gpu(Options(name="gpu"), zone="eu-1")
    job = JobView("one", "", {"seconds": 60})
    running = JobView("one", await backend.start(job), {})
    assert await backend.start(job) == running.handle
    assert await backend.poll([running]) == {"one": Status(state="running")}
    assert await backend.cancel(running) is None
    with pytest.raises(BaseException):  # noqa: B017, PT011  (CancelledError: it has stopped)
        await backend.tasks["one"]
    assert await backend.poll([running]) == {"one": Status(state="cancelled")}


async def test_the_class_of_the_page_that_signs_requests_works(
    mysite: types.ModuleType, tmp_path: Path
) -> None:
    asked: list[bytes] = []

    async def answer(request: web.Request) -> web.Response:
        said = f"{request.method}\n{request.url}\n{request.headers['X-Time']}\n".encode()
        right = hmac.new(b"s3cret", said + await request.read(), "sha256").hexdigest()
        asked.append(await request.read())
        return web.json_response(
            {"id": "t1", "status": "running"},
            status=200 if request.headers["X-Signature"] == right else 403,
        )

    page = text_of("backends.md")
    table = next(each.values[0] for each in blocks("toml") if "mysite.signed" in each.values[0])
    assert table in page
    key = tmp_path / "key"
    key.write_text("s3cret\n")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0]
    file = tmp_path / "backends.toml"
    table = table.replace("/run/secrets/signing-key", str(key))
    file.write_text(table.replace("https://render.internal", f"http://{host}:{port}"))
    backend = build(load(file)["signed"])
    try:
        handle = await backend.start(JobView("one", "", {"pages": 3}))
        found = await backend.poll([JobView("one", str(handle), {})])
    finally:
        await backend.aclose()
        await runner.cleanup()
    assert (handle, found) == ("t1", {"one": Status(state="running")})
    assert asked == [b'{"pages":3}', b""]


def test_the_embed_page_installs_what_the_package_is_called() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = re.findall(r'"([\w-]+)\[([\w,]+)\]"', text_of("embed.md"))
    assert names
    for name, extras in names:
        assert name == project["name"]
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


#: The rows of the table of lines, each with the files that it counts.
COUNTED = {
    "settings": ["mysite/settings.py"],
    "how the service is asked": ["backends.toml", "films/tasks.py"],
    "the wiring of the project": [
        "mysite/asgi.py",
        "mysite/celery.py",
        "mysite/__init__.py",
        "mysite/urls.py",
    ],
    "the view and its template": ["films/views.py", "films/templates/film.html"],
}


def test_the_lines_beside_celery_are_counted_right() -> None:
    page = text_of("compared.md")
    ours, _, theirs = page.partition("## With Celery")
    counts = [
        {
            match[3].split('"')[1].split(",")[0]: sum(map(bool, match[4].split("\n")))
            for match in FENCE.finditer(half)
            if "title=" in match[3]
        }
        for half in (ours, theirs)
    ]
    assert {name for half in counts for name in half} == {
        name for names in COUNTED.values() for name in names
    }
    rows = {
        row: [sum(half.get(f, 0) for f in names) for half in counts]
        for row, names in COUNTED.items()
    }
    rows["all together"] = [sum(half.values()) for half in counts]
    told = re.findall(r"^\| ([\w ]+) \| (\d+) \| (\d+) \|$", page, re.M)
    assert {row: [int(left), int(right)] for row, left, right in told} == rows
    assert rows["all together"][0] < rows["all together"][1]
    assert f"[{rows['all together'][0]} lines in all]" in (ROOT / "README.md").read_text()


# Links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", text):
        path, _, anchor = "".join(target).partition("#")
        if re.match(r"\w+:", path):
            continue
        other = (page.parent / path).resolve() if path else page.resolve()
        assert other.exists(), f"{page.name}: {target}"
        if anchor and other.suffix == ".md":
            assert anchor in anchors(other), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, which are alike on GitHub and in the site."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+?) *$", text, re.M)
    plain = (re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in titles)
    return {re.sub(r"[\s]+", "-", title) for title in plain} | set(
        re.findall(r'id="([^"]+)"', text)
    )
