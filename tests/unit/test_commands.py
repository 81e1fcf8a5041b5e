"""What the commands of manage.py share."""

import re
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from progrock.backends import ConfigError
from progrock.broker.errors import BrokerUnavailable
from progrock.management import base

BROKEN = ConfigError("backends.toml", found="nothing", wanted="a table")


@pytest.mark.parametrize("error", [BrokerUnavailable("RabbitMQ is away"), BROKEN])
def test_an_error_of_rabbitmq_or_of_the_configuration_is_one_line(error: Exception) -> None:
    class Command(base.Command):
        """Fails."""

        def run(self, **options: Any) -> None:
            """Fail."""
            raise error

    with pytest.raises(CommandError, match=re.escape(str(error))):
        call_command(Command())


def test_the_topology_is_that_of_the_configured_backends() -> None:
    found = base.topology()
    assert found.poll_queues[:2] == ["progrock.poll.render.0", "progrock.poll.render.1"]
