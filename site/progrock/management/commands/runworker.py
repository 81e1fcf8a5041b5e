"""`manage.py runworker [QUEUE …]`: consume poll queues until SIGTERM or SIGINT."""

import asyncio
import gc
import signal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from progrock import conf
from progrock.backends import ConfigError, Options
from progrock.broker.topology import Topology
from progrock.consumers.poller import Poller


class Command(BaseCommand):
    """A worker process; run as many as the load needs, on as many machines."""

    help = "Polls backends for the jobs whose tasks wait in RabbitMQ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "queues",
            nargs="*",
            metavar="QUEUE",
            help="render: all shards of one backend; render.0: one; none: every queue",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            backends = conf.backends()
            queues = choose(options["queues"], backends)
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(work(queues, backends))
        except ConfigError as error:
            raise CommandError(str(error)) from None


def choose(names: list[str], backends: dict[str, Options]) -> list[tuple[str, int]]:
    """The queues that the arguments name, as (backend, shard). Raises CommandError for one that does not exist."""
    every = [(name, shard) for name, options in backends.items() for shard in range(options.shards)]
    chosen: list[tuple[str, int]] = []
    for name in names:
        backend, _, shard = name.removeprefix("progrock.poll.").partition(".")
        found = [
            queue
            for queue in every
            if queue[0] == backend and (not shard or str(queue[1]) == shard)
        ]
        if not found:
            known = ", ".join(
                f"{name} ({options.shards} shards)" for name, options in backends.items()
            )
            raise CommandError(
                f"no queue {name!r}; wanted a backend, or backend.shard, of: {known}"
            )
        chosen += [queue for queue in found if queue not in chosen]
    return chosen or every


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, because it is faster; else Python's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def work(queues: list[tuple[str, int]], backends: dict[str, Options]) -> None:
    """Run a Poller until the process is told to stop."""
    declare = (
        Topology({name: options.shards for name, options in backends.items()})
        if conf.declare()
        else None
    )
    poller = Poller(queues, backends, declare=declare)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, poller.stop)
    gc.collect()
    gc.freeze()  # all that was imported: to look through it again holds everything up for 35 ms every other second
    await poller.run()
