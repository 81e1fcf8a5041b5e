"""The services that run the jobs: `load` reads their file, `build` makes one. No Django here."""

from progrock.backends.base import Backend, Handle, JobView, Options, Status
from progrock.backends.config import build, load
from progrock.backends.errors import BackendError, ConfigError

__all__ = [
    "Backend",
    "BackendError",
    "ConfigError",
    "Handle",
    "JobView",
    "Options",
    "Status",
    "build",
    "load",
]
