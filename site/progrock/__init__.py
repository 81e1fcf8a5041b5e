"""ProgRock: the ledger of jobs, their backends, the Python API and the pages, as one Django app.

The API in one import: `progrock.start`, `progrock.cancel`, `progrock.astart`, `progrock.acancel`,
`progrock.job_changed`, `progrock.job_finished`, `progrock.Refused`.
"""

from typing import TYPE_CHECKING, Any

from progrock.errors import Refused
from progrock.signals import job_changed, job_finished

if TYPE_CHECKING:
    from progrock.api import acancel, astart, cancel, start

__all__ = ["Refused", "acancel", "astart", "cancel", "job_changed", "job_finished", "start"]


def __getattr__(name: str) -> Any:
    """The API's functions touch the model, which Django loads later than this package."""
    if name in __all__:
        from progrock import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
