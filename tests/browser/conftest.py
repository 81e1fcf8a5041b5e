"""Fixtures: one Chromium and one ProgRock for all browser tests, and visitors.

Each visitor has cookies of their own.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from playwright.async_api import Browser, Error, Page, async_playwright, expect

from tests.browser.pages import JobsPage
from tests.services import PATIENCE, ROOT, Stack

ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
expect.set_options(timeout=PATIENCE * 1000)

Visitor = Callable[..., Awaitable[JobsPage]]


@pytest.fixture(scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, else the one that Playwright has installed."""
    async with async_playwright() as playwright:
        try:
            browser = await playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=ARGS, timeout=2 * PATIENCE * 1000
            )
        except Error as error:
            reason = error.message.splitlines()[0]
            pytest.skip(f"Chromium is not installed: `make test` installs it ({reason})")
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
def site(stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A whole ProgRock with a user `ada` (password `ada`), and with the backends of composer.toml.

    These stand behind those of the demo.
    """
    backends = tmp_path_factory.mktemp("backends") / "backends.toml"
    demo = (ROOT / "deploy/backends.toml").read_text()
    more = (ROOT / "tests/browser/composer.toml").read_text()
    backends.write_text(f"{demo}\n{more}")
    running = stack(backends=backends)
    running.manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import User; User.objects.create_user('ada', '', 'ada')",
    )
    return running


@pytest.fixture
async def new_page(chromium: Browser) -> AsyncIterator[Callable[..., Awaitable[Page]]]:
    """Opens pages, each in a browser context of its own.

    A script error or a CSP violation in any of them fails the test.
    """
    complaints: list[str] = []
    contexts = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if "Content Security Policy" in said.text else None
            ),
        )

    async def make(**options: Any) -> Page:
        context = await chromium.new_context(
            **{"viewport": {"width": 1200, "height": 900}, **options}
        )
        context.set_default_timeout(PATIENCE * 1000)
        context.on("page", watch)
        contexts.append(context)
        return await context.new_page()

    yield make
    for context in contexts:
        with suppress(Error):
            await context.close()
    assert not complaints


@pytest.fixture
def visitor(new_page: Callable[..., Awaitable[Page]], site: Stack) -> Visitor:
    """A new visitor, on the jobs page, connected."""

    async def make(**options: Any) -> JobsPage:
        return await JobsPage(await new_page(**options), site.url).open()

    return make
