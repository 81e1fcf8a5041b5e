"""Settings: ProgRock's own, and the folder PAGES, where the test has built the pages."""

import os
from pathlib import Path

from config.settings import *  # noqa: F403

PAGES = Path(os.environ["PAGES"])
ROOT_URLCONF = "tests.browser.films.urls"
TEMPLATES[0]["DIRS"] = [PAGES / "dist", PAGES]  # noqa: F405
