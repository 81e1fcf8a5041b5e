"""For the tests of a project: takes jobs to their end without RabbitMQ and without waiting.

`JobsMixin` for a TestCase and the pytest fixture `progrock_jobs` give a `Jobs`. docs/python.md
shows both.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from progrock.backends import BackendError, Handle, JobView, Status
    from progrock.testing.jobs import Jobs
    from progrock.testing.memory import without_rabbitmq
    from progrock.testing.mixin import JobsMixin
    from progrock.testing.script import Script
    from progrock.testing.starts import capture_starts

__all__ = [
    "BackendError",
    "Handle",
    "JobView",
    "Jobs",
    "JobsMixin",
    "Script",
    "Status",
    "capture_starts",
    "without_rabbitmq",
]


def __getattr__(name: str) -> Any:
    """Imports late, because pytest loads this package before Django is set up."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from progrock import backends
    from progrock.testing import jobs, memory, mixin, script, starts

    for module in (backends, jobs, memory, mixin, script, starts):
        if name in vars(module):
            return getattr(module, name)
    raise AssertionError(name)
