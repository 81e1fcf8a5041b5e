"""The project's settings, except that web processes wait for a connection for one second only.

Each call to a database that is away takes as long as that wait.
"""

from config.settings import *  # noqa: F403  # all of them

DATABASES["default"]["OPTIONS"].get("pool", {}).update(timeout=1)  # noqa: F405  # it is there
