"""The project's settings, but that web processes soon give up to wait for a connection.

Each call to a database that is away takes as long as that.
"""

from config.settings import *  # noqa: F403  # all of them

DATABASES["default"]["OPTIONS"].get("pool", {}).update(timeout=1)  # noqa: F405  # it is there
