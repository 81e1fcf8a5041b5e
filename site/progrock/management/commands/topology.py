"""`manage.py topology`: prints, makes, verifies and prunes what ProgRock needs in RabbitMQ."""

import asyncio
import json
import os
from typing import Any

from django.core.management.base import CommandError, CommandParser

from progrock import conf
from progrock.broker import topology
from progrock.broker.address import vhost_of
from progrock.broker.operate import management
from progrock.broker.operate.definitions import definitions
from progrock.broker.operate.prune import prune
from progrock.broker.topology import Topology
from progrock.management import base


class Command(base.Command):
    """Works on ProgRock's exchanges, queues and bindings in RabbitMQ."""

    help = (
        "Prints which exchanges, queues and bindings the configured backends need in RabbitMQ;"
        " with an option: makes them, compares them, or removes what is left over."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """One option for each action. Without an option the topology is printed."""
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--declare", action="store_true", help="make what is missing in RabbitMQ")
        what.add_argument(
            "--verify",
            action="store_true",
            help="compare RabbitMQ with what is wanted; exit code 1 if anything differs",
        )
        what.add_argument(
            "--prune",
            action="store_true",
            help="remove queues that no backend uses any more, after moving their tasks",
        )
        parser.add_argument(
            "--yes",
            action="store_true",
            help="with --prune: also remove what may be another installation's",
        )
        what.add_argument(
            "--definitions",
            action="store_true",
            help="print RabbitMQ's definitions file, with the users web, worker and operator,"
            " whose passwords are read from RABBITMQ_WEB_PASSWORD, RABBITMQ_WORKER_PASSWORD and"
            " RABBITMQ_OPERATOR_PASSWORD",
        )

    def run(self, **options: Any) -> None:
        """Do what the option says."""
        url, wanted = conf.amqp_url(), base.topology()
        if options["definitions"]:
            found = definitions(wanted, passwords(), vhost_of(url))
            self.stdout.write(json.dumps(found, indent=2))
        elif options["declare"]:
            self._read_id()
            warning = asyncio.run(topology.declare(url, wanted))
            self.stdout.write(
                f"declared {len(wanted.exchanges)} exchanges and {len(wanted.queues)} queues"
            )
            if warning:
                self.stderr.write(self.style.ERROR(warning))
        elif options["prune"]:
            own = base.own_topology()
            done = asyncio.run(prune(url, conf.management_url(), own, sure=options["yes"]))
            self.stdout.write("\n".join(done) or "nothing is left over")
        elif options["verify"]:
            self._verify(vhost_of(url), wanted)
        else:
            self.stdout.write(topology.describe(wanted))

    def _read_id(self) -> None:
        """Read the installation's id, to see whether the names are ours. Warn if that fails."""
        try:
            base.read_installation()
        except CommandError as error:
            self.stderr.write(self.style.WARNING(str(error)))

    def _verify(self, vhost: str, wanted: Topology) -> None:
        self._read_id()
        differences = asyncio.run(management.verify(conf.management_url(), vhost, wanted))
        if differences:
            raise CommandError("\n".join(differences), returncode=1)
        self.stdout.write("RabbitMQ has all that is wanted, and nothing is left over")


def passwords() -> dict[str, str]:
    """The password of each user of the definitions file. Raises CommandError if one is missing."""
    variables = {
        user: f"RABBITMQ_{user.upper()}_PASSWORD" for user in ("web", "worker", "operator")
    }
    found = {user: os.environ.get(variable, "") for user, variable in variables.items()}
    if missing := [variables[user] for user, password in found.items() if not password]:
        raise CommandError(
            f"{', '.join(missing)} not set in the environment;"
            " wanted a password for each user of the definitions file"
        )
    return found
