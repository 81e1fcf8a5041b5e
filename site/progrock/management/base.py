"""What the commands share: the topology of the configured backends, and errors told in one line."""

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
    """A command that talks to RabbitMQ; a subclass implements `run`."""

    needs_rabbitmq = True

    def handle(self, *args: Any, **options: Any) -> None:
        """Call `run`. An error of RabbitMQ or of the configuration becomes a CommandError."""
        if self.needs_rabbitmq and conf.in_memory():
            raise CommandError(
                "AMQP_URL is memory://, which is for tests; this command wants a RabbitMQ:"
                f" {address.FORM}"
            )
        try:
            self.run(**options)
        except (BrokerError, ConfigError) as error:
            raise CommandError(str(error)) from None

    def run(self, **options: Any) -> None:
        """Do the work. May raise BrokerError, ConfigError and CommandError."""
        raise NotImplementedError


def own_topology() -> Topology:
    """The same for a command that moves messages, which must know whose they are.

    Raises CommandError while the database, which holds the installation's id, is away.
    """
    try:
        installation.read()
    except DatabaseError as error:
        raise CommandError(
            f"the database does not tell which installation this is: {error}"
        ) from None
    return topology()


def topology(backends: Mapping[str, Options] | None = None) -> Topology:
    """What these backends need in RabbitMQ; by default the configured ones. Raises ConfigError."""
    backends = conf.backends() if backends is None else backends
    shards = {name: options.shards for name, options in backends.items()}
    return Topology(shards, conf.names())
