"""Fixtures: one Chromium and one ProgRock for all browser tests, and visitors.

Each visitor has cookies of their own.
"""

import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from playwright.async_api import Browser, Error, Page, Route, async_playwright, expect

from tests.browser.pages import PASSWORD, JobsPage
from tests.browser.played import CONNECT, HOST, IMPORT, STATIC, Server, hears
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
#: Everybody who has a login, made in one place because all files share the stack: `eve` and `max`
#: are of test_pages, `operator` is of test_admin, and each test that wants a login of its own gets
#: one of the others.
PEOPLE = f"""
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
password = make_password({PASSWORD!r})
staff = {{"is_staff": True, "is_superuser": True}}
User.objects.bulk_create([
    *(User(username=name, password=password) for name in ("eve", "max")),
    *(User(username=name, password=password, **staff) for name in ("boss", "operator")),
    *(User(username=f"ada-{{n}}", password=password) for n in range(50)),
])
"""

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
    """A whole ProgRock with PEOPLE, and with the backends of composer.toml behind the demo's."""
    backends = tmp_path_factory.mktemp("backends") / "backends.toml"
    demo = (ROOT / "deploy/backends.toml").read_text()
    more = (ROOT / "tests/browser/composer.toml").read_text()
    backends.write_text(f"{demo}\n{more}")
    running = stack(backends=backends)
    running.shell(PEOPLE)
    return running


@pytest.fixture(scope="session")
def names() -> Iterator[str]:
    """The logins that no test has had."""
    return (f"ada-{n}" for n in range(50))


@pytest.fixture
def ada(names: Iterator[str]) -> str:
    """The name of a login that no other test has, so her list begins empty."""
    return next(names)


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


# Somebody else's page, for which the test plays the server


@pytest.fixture
def server() -> Server:
    """The server's side of `/prog/`."""
    return Server()


@pytest.fixture
def embed(
    new_page: Callable[..., Awaitable[Page]], server: Server
) -> Callable[..., Awaitable[Page]]:
    """A page at host.test with this body and a strict CSP; `job=` is what /jobs/<id> answers."""

    async def make(body: str = "", **answers: dict[str, Any]) -> Page:
        async def fulfil(route: Route) -> None:
            path = route.request.url.removeprefix(HOST)
            if path.startswith("/static/"):
                path = path.replace(".5d41402abc4b.js", ".js")  # a name with a hash
                await route.fulfill(path=STATIC / path.removeprefix("/static/"))
            elif path == "/":
                policy = {"Content-Security-Policy": "default-src 'self'"}
                await route.fulfill(body=IMPORT % body, content_type="text/html", headers=policy)
            elif path.startswith("/jobs/") and "job" in answers:
                await route.fulfill(json=answers["job"])
            else:
                await route.fulfill(status=404)

        page = await new_page()
        await page.route(f"{HOST}/**", fulfil)
        await page.route_web_socket(re.compile("/prog/"), server.accept)
        await page.clock.install()
        await page.goto(HOST)
        return page

    return make


@pytest.fixture
async def client(embed: Callable[..., Awaitable[Page]], server: Server) -> Page:
    """A page with a connected ProgressSocket in `socket`, and what it said in `heard`."""
    page = await embed()
    await page.evaluate(CONNECT)
    await server.connected()
    await hears(page, "snapshot")
    return page
