"""The package keeps its hands off a host's loggers."""

import logging
import subprocess
import sys

import pytest

from progrock.broker import connection
from progrock.broker.errors import BrokerUnavailable

#: Run in a fresh process, because everything is imported in this one.
IMPORTS = '''
import importlib, logging, pkgutil

import aio_pika, aiormq, carehare, channels_rabbitmq.core, django, pika
from django.conf import settings

settings.configure(
    INSTALLED_APPS=[
        *(f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "messages")),
        "progrock",
    ],
    LOGGING_CONFIG=None,
    SECRET_KEY="a test",
)

def state():
    """Of each logger that is not the package's own; libraries may add their NullHandler."""
    loggers = {"root": logging.root, **logging.Logger.manager.loggerDict}
    for name in ("asyncio", "aiormq.connection", "aiormq.channel", "carehare._consume_channel"):
        loggers[name] = logging.getLogger(name)
    return {
        name: (
            logger.level,
            logger.disabled,
            logger.propagate,
            list(logger.filters),
            [each for each in logger.handlers if not isinstance(each, logging.NullHandler)],
        )
        for name, logger in loggers.items()
        if isinstance(logger, logging.Logger) and not name.startswith("progrock")
    }

before = state()
django.setup()
import progrock
names = [each.name for each in pkgutil.walk_packages(progrock.__path__, "progrock.")]
assert "progrock.broker.channel_layer" in names and "progrock.consumers.poller" in names
for name in names:
    importlib.import_module(name)
after = state()
untouched = (logging.NOTSET, False, True, [], [])
changed = {name: now for name, now in after.items() if now != before.get(name, untouched)}
assert not changed, changed
'''


def test_importing_the_package_changes_no_logger_of_the_host() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_a_connection_that_cannot_be_opened_is_an_exception_and_no_log_line_of_aiormq(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(BrokerUnavailable, match="cannot connect to RabbitMQ"):
        await connection.connect("amqp://guest:guest@127.0.0.1:1/", "test")
    assert not [each for each in caplog.records if each.name.startswith("aiormq")]


async def test_aiormq_still_warns_but_not_of_calls_that_were_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(BrokerUnavailable):
        await connection.connect("amqp://guest:guest@127.0.0.1:1/", "test")
    caplog.clear()
    logging.getLogger("aiormq.connection").warning("Connection %r was blocked by: %r", 1, 2)
    logging.getLogger("aiormq.channel").warning("Closing channel 1 because RPC call x cancelled")
    assert [each.name for each in caplog.records] == ["aiormq.connection"]
