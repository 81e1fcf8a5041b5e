"""`manage.py status`: shows jobs by backend and RabbitMQ's queues, or the story of one job."""

import asyncio
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import DatabaseError

from progrock import clock, conf, ledger
from progrock.backends import Options
from progrock.broker.address import vhost_of
from progrock.broker.errors import BrokerError
from progrock.broker.lanes import LANES
from progrock.broker.operate import management
from progrock.broker.operate.management import Depth
from progrock.ledger import ActiveJobs, Failing
from progrock.management import base
from progrock.models import State

#: How many bytes a task has in a message's body, and what surrounds the tasks (`broker.tasks`).
TASK, FRAME = 93, 17


class Command(base.Command):
    """Shows jobs by backend, how late they are, the workers, and what waits in RabbitMQ."""

    help = (
        "Shows active jobs, lateness and workers of each backend,"
        " and how many messages are in each queue. With a job's id: what happened to that job."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """The id of a job, if it is about one."""
        parser.add_argument("job", nargs="?", help="a job's id, or its first digits")

    def run(self, job: str | None = None, **options: Any) -> None:
        """Print both tables, or one job. Without the management API only the first one is there."""
        if job is not None:
            self._print_job(job)
            return
        backends = conf.backends()
        try:
            clock.measure()
            jobs, failing = ledger.by_backend(), ledger.failing()
        except DatabaseError as error:
            raise CommandError(str(error).strip()) from None
        if sentence := clock.trouble():
            self.stderr.write(self.style.WARNING(f"{sentence}; jobs go by the database's"))
        depths = self._depths()
        self._print_backends(backends, jobs, depths)
        self._print_failing(failing)
        self.stdout.write("")
        self._print_queues(depths)

    def _print_job(self, digits: str) -> None:
        """Print a job and its milestones. Raises CommandError unless `digits` begin one id."""
        try:
            clock.measure()
            found = ledger.beginning_with(digits)
        except ValueError:
            sentence = (
                f"{digits!r} is no job's id: wanted all or the first of its hexadecimal digits"
            )
            raise CommandError(sentence) from None
        except DatabaseError as error:
            raise CommandError(str(error).strip()) from None
        if len(found) != 1:
            count = "more than one job" if found else "no job"
            wanted = "; wanted more of its digits" if found else ""
            raise CommandError(f"there is {count} whose id begins with {digits}{wanted}")
        [row] = found
        wait = row.due_at - clock.now()
        due = f"in {wait:.1f} s" if wait > 0 else f"{-wait:.1f} s ago"
        if wait > 0 and row.state == State.RUNNING:
            due += " at the latest"  # when its lease ends; it is polled before that
        facts = {
            "job": row.id,
            "backend": f"{row.backend} {row.label}",
            "audience": row.audience,
            "state": row.state,
            "message": row.message,
            "error": row.error,
            "next step due": due if row.active else "",
            "failed calls in a row": row.attempts or "",
            "crashes of workers": row.crashes or "",
            "overdue in a row": row.sweeps or "",
        }
        for name, value in facts.items():
            if value != "":
                self.stdout.write(f"{name:24} {value}")
        self.stdout.write("")
        for at, what, text in row.story:
            self.stdout.write(f"{at:%Y-%m-%d %H:%M:%S.%f}"[:-3] + f"  {what:13} {text}".rstrip())

    def _depths(self) -> dict[str, Depth]:
        vhost = vhost_of(conf.amqp_url())
        try:
            return asyncio.run(management.depths(conf.management_url(), vhost, conf.names()))
        except BrokerError as error:
            self.stderr.write(
                self.style.WARNING(f"{error}; so it is unknown what waits and who works")
            )
            return {}

    def _print_backends(
        self,
        backends: Mapping[str, Options],
        jobs: Mapping[str, ActiveJobs],
        depths: Mapping[str, Depth],
    ) -> None:
        self._line("backend", "active jobs", "oldest late by", "workers")
        for name in dict.fromkeys([*backends, *jobs]):
            active = jobs.get(name, ActiveJobs(0, None))
            late = "-" if active.due is None else f"{max(0.0, clock.now() - active.due):.1f} s"
            shards = backends[name].shards if name in backends else 0
            queues = [conf.names().poll_queue(name, shard) for shard in range(shards)]
            consumers = [depths[queue].consumers for queue in queues if queue in depths]
            workers = str(min(consumers)) if consumers else "?"
            self._line(name, active.jobs, late, workers if name in backends else "not configured")

    def _print_failing(self, failing: Mapping[str, Failing]) -> None:
        for name, each in failing.items():
            jobs = f"{each.jobs} job{'s' * (each.jobs != 1)}"
            line = f"{name}: the last call failed for {jobs}; the latest: {each.message}"
            self.stdout.write(self.style.WARNING(line))

    def _print_queues(self, depths: Mapping[str, Depth]) -> None:
        self._line("lane or queue", "messages", "tasks (about)", "consumers")
        names = conf.names()
        lanes = [names.lane(lane) for lane in LANES]
        polls = sorted(name for name in depths if names.parse_poll_queue(name))
        for name in (*lanes, *polls, names.dead):
            if name in depths:
                depth = depths[name]
                consumers = "-" if name in lanes else depth.consumers
                self._line(name, depth.messages, tasks(depth), consumers)

    def _line(self, *cells: object) -> None:
        self.stdout.write(f"{cells[0]!s:32} {cells[1]!s:>12} {cells[2]!s:>15} {cells[3]!s:>15}")


def tasks(depth: Depth) -> int:
    """About how many tasks the messages of a queue hold, by their bytes."""
    return max(depth.messages, round((depth.bytes - depth.messages * FRAME) / TASK))
