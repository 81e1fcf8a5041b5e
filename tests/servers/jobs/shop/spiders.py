"""A spider whose argument `category` says how its crawl goes. It runs in Scrapyd's venv."""

import asyncio

import scrapy


class Prices(scrapy.Spider):
    """The spider; it gives items without asking any server."""

    name = "prices"

    def __init__(self, category="", **options):
        super().__init__(**options)
        self.category = category

    async def start(self):
        """Give the items of the category."""
        if self.category == "broken":
            raise RuntimeError("the shop has no such category")
        if self.category == "slow":
            await asyncio.sleep(600)
        for number in range(100 if self.category == "large" else 1):
            yield {"number": number, "text": "x" * (1000 if self.category == "large" else 10)}
