"""What the commands of manage.py share."""

import logging
import re
import socket
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from progrock.backends import ConfigError
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.operate.management import Depth
from progrock.broker.tasks import MAX_TASKS, Task, encode
from progrock.management import base
from progrock.management.commands import status
from progrock.management.commands.runworker import show_log

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


@pytest.mark.parametrize(
    ("verbosity", "level"), [(0, logging.WARNING), (1, logging.INFO), (2, logging.DEBUG), (3, 10)]
)
def test_a_worker_without_logging_prints_what_it_does(
    verbosity: int, level: int, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = logging.getLogger("progrock")
    for name, value in (("handlers", []), ("propagate", False), ("level", logging.NOTSET)):
        monkeypatch.setattr(ours, name, value)
    show_log(verbosity)
    show_log(verbosity)  # another handler would print each line twice
    assert ours.getEffectiveLevel() == level
    logging.getLogger("progrock.rounds").warning("a line")
    assert re.fullmatch(r"\d{4}-.* WARNING progrock.rounds: a line\n", capsys.readouterr().err)
    ours.setLevel(logging.NOTSET)  # no child remembers what it may log


def test_a_project_that_has_logging_keeps_its_own(monkeypatch: Any) -> None:
    ours, own = logging.getLogger("progrock"), logging.NullHandler()
    monkeypatch.setattr(ours, "handlers", [own])
    before = ours.level
    show_log(2)
    assert (ours.handlers, ours.level) == ([own], before)


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


def test_status_knows_how_many_tasks_are_in_a_queue_by_its_bytes() -> None:
    for count in (1, 7, MAX_TASKS):
        tasks = [Task(str(uuid4()), turn=12, due=1767225600.25) for _ in range(count)]
        assert status.tasks(Depth(messages=1, bytes=len(encode(tasks)), consumers=0)) == count
