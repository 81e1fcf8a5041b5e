"""`manage.py runworker [QUEUE …]`: consumes poll queues until SIGTERM or SIGINT."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from typing import Any

from django.core.management.base import CommandError, CommandParser

from progrock import conf
from progrock.backends import Options
from progrock.consumers.poller import Poller
from progrock.management import base

logger = logging.getLogger(__name__)

LINE = "{asctime} {levelname:7} {name}: {message}"
#: From which level on the log is printed, by --verbosity; above these all of it is.
LEVELS = {0: logging.WARNING, 1: logging.INFO}
#: A worker that has stopped waits so many seconds for threads that hang.
LAST_SECONDS = 5.0


class Command(base.Command):
    """A worker process; run as many as the load needs, on as many machines."""

    help = "Polls backends for the jobs whose tasks wait in RabbitMQ."
    own_process = False  # else this is code's call_command, and the process goes on

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as the only purpose of this process."""
        self.own_process = True
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        """Which queues to consume."""
        parser.add_argument(
            "queues",
            nargs="*",
            metavar="QUEUE",
            help="render: all shards of one backend; render.0: one; none: every queue",
        )

    def run(self, **options: Any) -> None:
        """Work until the process is told to stop."""
        backends = conf.backends()
        queues = choose(options["queues"], backends)
        show_log(options["verbosity"])
        names = " ".join(f"{backend}.{shard}" for backend, shard in queues)
        logger.info("this worker consumes %d queues: %s", len(queues), names)
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(work(queues, backends))
        if self.own_process:
            end_within(LAST_SECONDS)


def end_within(seconds: float) -> None:
    """See to it that the process ends although a thread hangs, such as that of a receiver.

    At its end Python waits for all threads but daemons, without a limit.
    """

    def end() -> None:
        time.sleep(seconds)
        threads = [each for each in threading.enumerate() if not each.daemon]
        names = ", ".join(each.name for each in threads if each is not threading.main_thread())
        logger.warning("the worker ends although a thread hangs: %s", names)
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=end, daemon=True, name="end").start()


def show_log(verbosity: int) -> None:
    """Print ProgRock's log to stderr where the project's LOGGING has no handler for it.

    Django configures none, and then Python prints warnings and errors alone, without their time. At
    verbosity 0 those are printed, at 1 what happens to jobs, and above that all.
    """
    ours = logging.getLogger("progrock")
    if ours.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LINE, style="{"))
    ours.addHandler(handler)
    if ours.level == logging.NOTSET:
        ours.setLevel(LEVELS.get(verbosity, logging.DEBUG))


def choose(names: list[str], backends: dict[str, Options]) -> list[tuple[str, int]]:
    """The queues that the arguments name, as (backend, shard); all of them if there is no name.

    Raises CommandError for a queue that does not exist.
    """
    every = [(name, shard) for name, options in backends.items() for shard in range(options.shards)]
    chosen: list[tuple[str, int]] = []
    for name in names:
        backend, _, shard = name.removeprefix(f"{conf.names().poll}.").partition(".")
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
        import uvloop  # of the extra `standalone`, which a host need not have
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def work(queues: list[tuple[str, int]], backends: dict[str, Options]) -> None:
    """Run a Poller until the process is told to stop."""
    declare = base.topology(backends) if conf.declare() else None
    poller = Poller(queues, backends, declare=declare)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, poller.stop)
    # Take the imported modules out of garbage collection, because looking through them again would
    # stop the process for 35 ms every other second.
    gc.collect()
    gc.freeze()
    await poller.run()
