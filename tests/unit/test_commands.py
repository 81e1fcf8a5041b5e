"""What the commands of manage.py share."""

import re
import socket
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


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["", "http://127.0.0.1:1"])
def test_status_and_verify_take_an_ipv6_address(
    url: str, settings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # so nobody listens there
        taken.bind(("127.0.0.1", 0))
        settings.AMQP_URL = f"amqp://a:b@[::1]:{taken.getsockname()[1]}/"
        settings.PROGROCK_MANAGEMENT_URL = url
        where = "127.0.0.1:1" if url else "[::1]:15672"
        with pytest.raises(CommandError, match=re.escape(f"management API at {where}")):
            call_command("topology", "--verify")
        call_command("status")
    assert f"management API at {where}" in capsys.readouterr().err
