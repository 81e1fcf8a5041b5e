"""What ProgRock itself logged during a test.

`caplog` hears all of the process. asyncio, for one, reports a forgotten task of an earlier test
whenever the garbage collector finds it.
"""

import logging

import pytest


def own(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The records of ProgRock's own loggers since the last `caplog.clear()`."""
    return [record for record in caplog.records if record.name.startswith("progrock")]
