"""Follows docs/embed.md word for word: a fresh project, its files, a job in Chromium."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from playwright.async_api import Page, expect

from deploy.demo.rabbitmq_node import free_port
from tests.browser.conftest import chromium, new_page  # noqa: F401  (fixtures: the same browser)
from tests.services import PATIENCE, ROOT, Postgres, Process, answers

PAGE = ROOT / "docs" / "embed.md"
#: The variants that the page offers, as the words in brackets after a file's name.
POSTGRESQL, OWN_ROUTES = "with PostgreSQL", "with WebSocket routes of your own"


@dataclass(frozen=True)
class Block:
    """A code block with a title: a file of the project, or commands for a shell."""

    language: str
    name: str
    variant: str
    text: str


def blocks() -> list[Block]:
    """The titled blocks in the order of the page."""
    title = r'title="([^"()\n]+?)(?: \(([^")\n]+)\))?"'
    found = re.findall(rf"^```(\w+) {title}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return [Block(*each) for each in found]


class Project:
    """The project that a reader of the page ends up with."""

    def __init__(self, folder: Path, env: Mapping[str, str], variants: set[str]) -> None:
        self.folder, self.env, self.variants = folder, env, variants
        self.root = folder  # until `startproject` has made one inside
        self.url = f"http://127.0.0.1:{env['UVICORN_PORT']}"

    def follow(self, running: ExitStack) -> None:
        """Do what the page says, from its first block to the last; `running` stops what stays."""
        for block in blocks():
            if block.variant and block.variant not in self.variants:
                continue
            if block.language != "sh":
                self._write(block)
            elif block.name.startswith("Terminal"):
                self._start(block, running)
            elif block.name != "Install":  # the fixture has installed the wheel
                self._run(block)

    def _write(self, block: Block) -> None:
        path = self.root / block.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if block.variant == POSTGRESQL:  # in place of the lines of that name: the last one counts
            path.write_text(path.read_text() + block.text)
        else:
            path.write_text(block.text)

    def _run(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block.text}\n{done.stdout}{done.stderr}"
        if block.name == "Start a project":
            self.root = self.folder / "mysite"

    def _start(self, block: Block, running: ExitStack) -> None:
        log = self.folder / f"{block.name.split(':')[0]}.log"
        command = ["env", "-C", str(self.root), "bash", "-c", f"exec {block.text}"]
        process = Process(block.name, command, log=log, env=self.env)
        running.callback(process.stop)
        ready = f"{self.url}/jobs/healthz" if "web server" in block.name else ""
        process.start(lambda: not ready or answers(ready))


@pytest.fixture(params=["simple", "variants"])
def project(
    request: pytest.FixtureRequest, python: Path, vhost_url: str, tmp_path: Path
) -> Iterator[Project]:
    """The page's project, running: as the page begins it, and with each variant that it offers."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROGROCK_", "DJANGO_", "PYTHON", "PG", "DEBUG", "SECRET_KEY"))
    }
    service = str(free_port())
    env = inherited | {
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AMQP_URL": vhost_url,
        "RENDER_URL": f"http://127.0.0.1:{service}",
        "RENDER_PORT": service,
        "UVICORN_PORT": str(free_port()),
    }
    variants = set()
    if request.param == "variants":
        postgres: Postgres = request.getfixturevalue("postgres_url")
        database = urlsplit(postgres.new_database())
        env |= {
            "PGHOST": database.hostname or "",
            "PGPORT": str(database.port),
            "PGUSER": database.username or "",
            "PGDATABASE": database.path[1:],
        }
        variants = {POSTGRESQL, OWN_ROUTES}
    with ExitStack() as running:
        project = Project(tmp_path, env, variants)
        project.follow(running)
        yield project


async def test_the_page_leads_to_a_job_in_the_browser(project: Project, new_page: object) -> None:  # noqa: F811
    page: Page = await new_page()  # type: ignore[operator]
    await page.goto(project.url)
    await page.get_by_label("Username").fill("ada")
    await page.get_by_label("Password").fill("ada")
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Title").fill("A film")
    await page.get_by_role("button", name="Render it").click()
    job = page.locator("job-progress")
    await expect(job).to_have_attribute("state", "running")
    await expect(job.get_by_text("A film")).to_be_visible()
    await expect(job).to_have_attribute("state", "succeeded")
    await expect(job.get_by_text(".mp4")).to_be_visible()
    async with asyncio.timeout(PATIENCE):  # the receiver runs beside the push
        await page.get_by_role("link", name="All films").click()
        while await page.get_by_role("listitem").inner_text() != "A film succeeded":
            await page.reload()
    if OWN_ROUTES in project.variants:
        await echoes(project.url)


async def echoes(url: str) -> None:
    """The project's own WebSocket route still works."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/ws/echo/", origin=url) as own,
    ):
        await own.send_str("hello")
        assert (await own.receive(timeout=PATIENCE)).data == "hello"


def test_each_variant_of_the_page_is_followed() -> None:
    assert {block.variant for block in blocks()} == {"", POSTGRESQL, OWN_ROUTES}
