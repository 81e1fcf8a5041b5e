"""The pages as their reader sees them: what one can do there, and what one can look at."""

import json
from typing import Any, Self

from playwright.async_api import Locator, Page, expect

#: The password of everybody.
PASSWORD = "sesame"


class JobsPage:
    """The page at `/`."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.form = page.locator("#start")
        self.filter = page.locator("#filter")
        self.cards = page.locator("#jobs job-progress")
        self.names = self.cards.locator('[data-part="name"]')
        self.connection = page.locator("#connection")
        self.problem = page.locator("#problem")
        self.sent: list[Any] = []  # the params of the starts that were sent
        page.on("websocket", lambda socket: socket.on("framesent", self._note))

    def _note(self, frame: str | bytes) -> None:
        message = json.loads(frame)
        if message["action"] == "start":
            self.sent.append(message.get("params"))

    async def open(self) -> Self:
        """Go there, and wait until it is connected."""
        await self.page.goto(f"{self.url}/")
        await self.is_live()
        return self

    async def is_live(self) -> None:
        """Wait until the snapshot has come."""
        await expect(self.connection).to_have_text("Connection: Live")

    async def fill(
        self, backend: str = "render", seconds: float = 3, outcome: str = "succeed"
    ) -> None:
        """Fill in the form."""
        await self.form.get_by_label("Backend").select_option(backend)
        await self.form.get_by_label("Length in seconds").fill(str(seconds))
        await self.form.get_by_label("What should happen").select_option(outcome)

    async def start(
        self, backend: str = "render", seconds: float = 3, outcome: str = "succeed"
    ) -> Locator:
        """Start a job and return its card."""
        await self.fill(backend, seconds, outcome)
        count = await self.cards.count()
        await self.page.get_by_role("button", name="Start", exact=True).click()
        await expect(self.cards).to_have_count(count + 1)
        job = await self.cards.first.get_attribute("job")
        assert job
        return self.card(job)

    def card(self, job: str) -> Locator:
        """The card of a job."""
        return self.page.locator(f'job-progress[job="{job}"]')

    async def sign_in(self, name: str) -> None:
        """Sign in by the link on top."""
        await self.page.get_by_role("link", name="Sign in").click()
        await self.page.get_by_label("Username").fill(name)
        await self.page.get_by_label("Password").fill(PASSWORD)
        await self.page.get_by_role("button", name="Sign in").click()
        await self.is_live()


def part(card: Locator, name: str) -> Locator:
    """A part of a <job-progress>."""
    return card.locator(f'[data-part="{name}"]')


async def job_of(card: Locator) -> str:
    """The id of a card's job."""
    return await card.get_attribute("job") or ""


async def ends(card: Locator, state: str = "succeeded") -> None:
    """Wait until the job has ended like this."""
    await expect(card).to_have_attribute("state", state)
