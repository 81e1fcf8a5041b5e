"""The pytest plugin with the fixture `progrock_jobs`.

An entry point registers it, so a project need not name it. pytest imports this file in every run,
so nothing of Django is imported before a test asks for the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from progrock.testing.jobs import Jobs


@pytest.fixture
def progrock_jobs() -> "Iterator[Jobs]":
    """A `progrock.testing.Jobs`. The test runs without RabbitMQ."""
    from progrock.testing import Jobs, without_rabbitmq

    with without_rabbitmq():
        yield Jobs()
