"""ProgRock, a Django app that watches long-running jobs on other servers.

`import progrock` gives the Python API: `progrock.start`, `progrock.cancel`, `progrock.astart`,
`progrock.acancel`, `progrock.job_changed`, `progrock.job_finished`, `progrock.Refused`.
"""

from typing import TYPE_CHECKING, Any

from progrock.errors import Refused

if TYPE_CHECKING:
    from progrock.api import acancel, astart, cancel, start
    from progrock.signals import job_changed, job_finished

__all__ = ["Refused", "acancel", "astart", "cancel", "job_changed", "job_finished", "start"]


def __getattr__(name: str) -> Any:
    """Import the API at its first use, because Django loads the model later than this package.


    The signals are Django's, which pytest need not load for its plugin (`progrock.testing.pytest`).
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("job_"):
        from progrock import signals

        return getattr(signals, name)
    from progrock import api

    return getattr(api, name)
