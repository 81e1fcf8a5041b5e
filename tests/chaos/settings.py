"""The project's settings for chaos, with an app whose receivers write down every end."""

from config.settings import *  # noqa: F403  # all of them

INSTALLED_APPS = [*INSTALLED_APPS, "tests.chaos.receivers.Receivers"]  # noqa: F405  # it is there
