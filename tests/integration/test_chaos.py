"""A short run of `make chaos` with a fixed seed."""

import os
import subprocess
import sys

import pytest

from deploy.demo.rabbitmq_node import installed
from tests.services import ROOT, Postgres


@pytest.mark.skipif(
    not Postgres.installed(), reason="PostgreSQL is not installed: `make test` installs it"
)
@pytest.mark.skipif(
    not installed() and not os.environ.get("PROGROCK_TEST_AMQP_URL"),
    reason="RabbitMQ is not installed: `make test` installs it",
)
def test_nothing_is_lost_forked_early_or_stale() -> None:
    size = "--seconds 12 --jobs 50 --clients 12 --shortest 2 --longest 8 --hold 3 --fresh 20"
    # This seed kills a worker while the backend is frozen, lets the database fail over, raises
    # RabbitMQ's memory alarm, and kills the database. A busy machine has time for fewer.
    command = [sys.executable, "-m", "tests.chaos", "--seed", "9961", *size.split()]
    run = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-4000:]
