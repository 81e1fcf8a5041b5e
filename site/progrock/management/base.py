"""The base of the commands: it turns known errors into one line, and builds the topology."""

from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from progrock import conf, installation
from progrock.backends import ConfigError, Options
from progrock.broker import address
from progrock.broker.errors import BrokerError
from progrock.broker.topology import Topology


class Command(BaseCommand):
    """A command whose work is in `run`, which a subclass implements."""

    needs_rabbitmq = True  # False for a command that works with AMQP_URL = "memory://" as well

    def handle(self, *args: Any, **options: Any) -> None:
        """Call `run`. An error of RabbitMQ or of the configuration becomes a CommandError."""
        if self.needs_rabbitmq and conf.in_memory():
            raise CommandError(
                "AMQP_URL is memory://, which is for tests; this command wanted the address of a"
                f" RabbitMQ: {address.FORM}"
            )
        try:
            self.run(**options)
        except (BrokerError, ConfigError) as error:
            raise CommandError(str(error)) from None

    def run(self, **options: Any) -> None:
        """Do the work. May raise BrokerError, ConfigError and CommandError."""
        raise NotImplementedError


def own_topology() -> Topology:
    """`topology`, for a command that moves messages and so must know which ones are its own.

    Raises CommandError while the database, which has the installation's id, is away.
    """
    read_installation()
    return topology()


def read_installation() -> None:
    """Read the id of this installation. Raises CommandError while the database is away."""
    try:
        installation.read()
    except DatabaseError as error:
        sentence = f"the id of this installation cannot be read from the database: {error}"
        raise CommandError(sentence.strip()) from None


def topology(backends: Mapping[str, Options] | None = None) -> Topology:
    """What these backends, by default the configured ones, need in RabbitMQ. Raises ConfigError."""
    backends = conf.backends() if backends is None else backends
    shards = {name: options.shards for name, options in backends.items()}
    return Topology(shards, conf.names())
