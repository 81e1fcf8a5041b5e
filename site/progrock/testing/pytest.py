"""The pytest plugin: the fixture `progrock_jobs`. An entry point registers it.

So a project need not name it. pytest imports this file in every run, so nothing of Django is
imported before somebody wants the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from progrock.testing.jobs import Jobs


@pytest.fixture
def progrock_jobs() -> "Iterator[Jobs]":
    """No RabbitMQ in this test; gives a `progrock.testing.Jobs`, which takes jobs on."""
    from progrock.testing import Jobs, without_rabbitmq

    with without_rabbitmq():
        yield Jobs()
