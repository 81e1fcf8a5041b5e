"""ProgRock: the ledger of jobs, their backends, the Python API and the pages, as one Django app.

The API in one import: `progrock.start`, `progrock.cancel`, `progrock.astart`, `progrock.acancel`,
`progrock.job_changed`, `progrock.job_finished`, `progrock.Refused`.
"""

from typing import TYPE_CHECKING, Any

from progrock.errors import Refused

if TYPE_CHECKING:
    from progrock.api import acancel, astart, cancel, start
    from progrock.signals import job_changed, job_finished

__all__ = ["Refused", "acancel", "astart", "cancel", "job_changed", "job_finished", "start"]


def __getattr__(name: str) -> Any:
    """The API's functions touch the model, which Django loads later than this package.

    The signals are Django's, which pytest need not load for its plugin (`progrock.testing.pytest`).
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("job_"):
        from progrock import signals

        return getattr(signals, name)
    from progrock import api

    return getattr(api, name)
