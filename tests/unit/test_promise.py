"""The promise, by a state machine."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.ledgers import own_database
from tests.promise.machine import Promise


@pytest.fixture
def database(django_db_blocker: Any) -> Iterator[None]:
    """The default connection of this thread, on a database in memory."""
    with django_db_blocker.unblock(), own_database("sqlite://:memory:"):
        yield


@pytest.mark.usefixtures("database")
def test_the_promise_holds_whatever_happens() -> None:
    run_state_machine_as_test(
        Promise,
        settings=settings(
            max_examples=250,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
