"""`manage.py status`: the operator's one screen."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.db.models import Count, Min, Q

from progrock import conf
from progrock.backends import ConfigError
from progrock.broker.connection import vhost_of
from progrock.broker.errors import BrokerError
from progrock.broker.lanes import LANES
from progrock.broker.operate import management
from progrock.broker.operate.management import Depth
from progrock.broker.topology import DEAD, poll_queue
from progrock.models import ACTIVE, Job, State

#: Bytes of a task in a message's body, and of the message's own frame around them (`broker.tasks.encode`).
TASK, FRAME = 93, 17


class Command(BaseCommand):
    """Jobs by backend, how late they are, who works on them, and what waits in RabbitMQ."""

    help = "Shows active jobs, lateness and workers of each backend, and the depth of each lane and queue."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            backends = conf.backends()
            waiting = Q(state__in=ACTIVE) & ~Q(state=State.STARTING)
            jobs = {
                row["backend"]: row
                for row in Job.objects.filter(
                    state__in=ACTIVE, due_slot__isnull=False
                )  # which has an index
                .values("backend")
                .annotate(count=Count("pk"), due=Min("due_at", filter=waiting))
                .order_by("backend")
            }
        except (ConfigError, DatabaseError) as error:
            raise CommandError(str(error).strip()) from None
        try:
            depths = asyncio.run(
                management.depths(conf.management_url(), vhost_of(conf.amqp_url()))
            )
        except BrokerError as error:
            self.stderr.write(self.style.WARNING(f"{error}; depths and workers are unknown"))
            depths = {}
        self._line("backend", "active jobs", "oldest late by", "workers")
        for name in dict.fromkeys([*backends, *jobs]):
            row = jobs.get(name, {"count": 0, "due": None})
            late = (
                max(0.0, (datetime.now(UTC) - row["due"]).total_seconds()) if row["due"] else None
            )
            shards = range(backends[name].shards) if name in backends else ()
            consumers = [
                depths[queue].consumers
                for queue in (poll_queue(name, n) for n in shards)
                if queue in depths
            ]
            workers = str(min(consumers)) if consumers else "?"
            if name not in backends:
                workers = "not configured"
            self._line(name, row["count"], "-" if late is None else f"{late:.1f} s", workers)
        self.stdout.write("")
        self._line("lane or queue", "messages", "tasks (about)", "consumers")
        order = [
            *(lane.queue for lane in LANES),
            *sorted(name for name in depths if ".poll." in name),
            DEAD,
        ]
        for name in order:
            if name in depths:
                depth = depths[name]
                lane = ".delay." in name
                self._line(name, depth.messages, tasks(depth), "-" if lane else depth.consumers)

    def _line(self, *cells: object) -> None:
        self.stdout.write(f"{cells[0]!s:32} {cells[1]!s:>12} {cells[2]!s:>15} {cells[3]!s:>15}")


def tasks(depth: Depth) -> int:
    """About how many tasks are in so many bytes of messages."""
    return max(depth.messages, round((depth.bytes - depth.messages * FRAME) / TASK))
