"""The settings of a Scrapy project that needs no network."""

BOT_NAME = "shop"
SPIDER_MODULES = ["shop.spiders"]
TELNETCONSOLE_ENABLED = False
