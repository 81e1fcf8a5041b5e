"""The jobs page where something on the way blocks WebSockets, or streams of events as well."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from playwright.async_api import Page, expect

from tests.browser.pages import JobsPage, ends, part
from tests.proxy import Proxy, proxy
from tests.services import Stack

SOCKET = """async () => {
  const { ProgressSocket } = await import("/static/progrock/progrock.js");
  return ProgressSocket.shared().transport; }"""
AGAIN = """async job => {
  const { ProgressSocket } = await import("/static/progrock/progrock.js");
  return (await ProgressSocket.shared().again(job)).job; }"""


@pytest.fixture(scope="module")
def between(site: Stack) -> Iterator[Proxy]:
    """A proxy before the server that lets no WebSocket through."""
    with proxy(site.url, websockets="refuse") as running:
        yield running


async def opened(new_page: Callable[..., Awaitable[Page]], between: Proxy) -> JobsPage:
    """The jobs page behind the proxy."""
    return await JobsPage(await new_page(), between.url).open()


async def works(jobs: JobsPage, transport: str) -> None:
    """Start jobs, watch one to its end, cancel one, and run it again."""
    assert await jobs.page.evaluate(SOCKET) == transport
    await expect(jobs.page.locator("#notice")).to_contain_text("Updates come by a slower way")
    ended = await jobs.start(seconds=0.5)
    await ends(ended)
    await expect(part(ended, "result")).to_contain_text("film-")
    running = await jobs.start(seconds=300)
    await expect(running).to_have_attribute("state", "running")
    await expect(part(running, "connection")).to_contain_text("by a slower way")
    await part(running, "cancel").click()
    await ends(running, "cancelled")
    again = await jobs.page.evaluate(AGAIN, await ended.get_attribute("job"))
    await ends(jobs.card(again))
    refused = jobs.page.evaluate(
        """async () => {
          const { ProgressSocket } = await import("/static/progrock/progrock.js");
          return ProgressSocket.shared().start({ backend: "none" }).catch(({ code }) => code); }"""
    )
    assert await refused == "unknown_backend"


async def test_without_websockets_or_events_the_page_works_all_the_same(
    new_page: Callable[..., Awaitable[Page]], between: Proxy
) -> None:
    by_events = await opened(new_page, between)
    between.events = "refuse"
    by_waiting = await opened(new_page, between)
    between.events = "pass"
    await asyncio.gather(works(by_events, "events"), works(by_waiting, "waiting"))
    await by_waiting.page.reload()
    await by_waiting.is_live()
    assert await by_waiting.page.evaluate(SOCKET) == "waiting", "it is known from the page before"
    between.websockets = "pass"
    try:
        await by_events.page.evaluate('dispatchEvent(new Event("online"))')  # it tries a better way
        await expect(by_events.page.locator("#notice")).to_be_hidden()
        assert await by_events.page.evaluate(SOCKET) == "websocket"
        await ends(await by_events.start(seconds=0.5))
    finally:
        between.websockets = "refuse"


async def test_a_network_that_goes_silent_is_noticed_when_the_reader_is_back(
    new_page: Callable[..., Awaitable[Page]], between: Proxy
) -> None:
    by_events = await opened(new_page, between)
    between.websockets = "pass"
    try:
        by_socket = await opened(new_page, between)
        between.stall()
        for jobs in (by_events, by_socket):
            await jobs.page.evaluate('dispatchEvent(new Event("online"))')
        for jobs in (by_events, by_socket):
            await expect(jobs.connection).to_have_text("Connection: Offline")
        between.flow()
        for jobs in (by_events, by_socket):
            await jobs.is_live()
    finally:
        between.flow()
        between.websockets = "refuse"
