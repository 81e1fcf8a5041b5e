"""`manage.py topology`: print, make, verify and prune what ProgRock needs in RabbitMQ."""

import asyncio
import json
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from progrock import conf
from progrock.backends import ConfigError
from progrock.broker import management, topology
from progrock.broker.connection import vhost_of
from progrock.broker.errors import BrokerError
from progrock.broker.topology import Topology


class Command(BaseCommand):
    """The operator's hand on exchanges, queues and bindings."""

    help = "Prints the topology of the configured backends; with an option: makes it, compares it, tidies it up."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--declare", action="store_true", help="make what is missing in RabbitMQ")
        what.add_argument(
            "--verify", action="store_true", help="say what differs; exit code 1 if anything does"
        )
        what.add_argument(
            "--prune", action="store_true", help="drain and remove what no backend uses any more"
        )
        what.add_argument(
            "--definitions",
            action="store_true",
            help="print RabbitMQ's definitions file, with the users web, worker and operator, whose passwords are read from"
            " RABBITMQ_WEB_PASSWORD, RABBITMQ_WORKER_PASSWORD and RABBITMQ_OPERATOR_PASSWORD",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            wanted = Topology({name: backend.shards for name, backend in conf.backends().items()})
            if options["definitions"]:
                self.stdout.write(
                    json.dumps(
                        topology.definitions(wanted, passwords(), vhost_of(conf.amqp_url())),
                        indent=2,
                    )
                )
            elif options["declare"]:
                asyncio.run(topology.declare(conf.amqp_url(), wanted))
                self.stdout.write(
                    f"declared {len(wanted.exchanges)} exchanges and {len(wanted.queues)} queues"
                )
            elif options["prune"]:
                done = asyncio.run(management.prune(conf.amqp_url(), conf.management_url(), wanted))
                self.stdout.write("\n".join(done) or "nothing is left over")
            elif options["verify"]:
                self._verify(wanted)
            else:
                self.stdout.write(topology.describe(wanted))
        except (BrokerError, ConfigError) as error:
            raise CommandError(str(error)) from None

    def _verify(self, wanted: Topology) -> None:
        differences = asyncio.run(
            management.verify(conf.management_url(), vhost_of(conf.amqp_url()), wanted)
        )
        if differences:
            raise CommandError("\n".join(differences), returncode=1)
        self.stdout.write("RabbitMQ has all that is wanted, and nothing is left over")


def passwords() -> dict[str, str]:
    """The users of the definitions file. Raises CommandError where a password is missing."""
    found = {
        name: os.environ.get(f"RABBITMQ_{name.upper()}_PASSWORD", "")
        for name in ("web", "worker", "operator")
    }
    if missing := [
        f"RABBITMQ_{name.upper()}_PASSWORD" for name, password in found.items() if not password
    ]:
        raise CommandError(
            f"not set: {', '.join(missing)}; wanted a password for each user of the definitions"
        )
    return found
