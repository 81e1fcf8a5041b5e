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
#: The level from which on the log is printed, by --verbosity. With a higher one all is printed.
LEVELS = {0: logging.WARNING, 1: logging.INFO}
#: After its work a worker waits so many seconds for threads that hang, and then ends all the same.
LAST_SECONDS = 5.0


class Command(base.Command):
    """A worker process; run as many as the load needs, on as many machines."""

    help = (
        "Runs a worker, which starts, polls and cancels jobs at their backends,"
        " until SIGTERM or Ctrl-C. Run as many as you need."
    )
    own_process = False  # true where this command is the process, and not a call_command in another

    def run_from_argv(self, argv: list[str]) -> None:
        """Run from the command line, so that the process ends with the command."""
        self.own_process = True
        super().run_from_argv(argv)

    def add_arguments(self, parser: CommandParser) -> None:
        """Which queues to consume."""
        parser.add_argument(
            "queues",
            nargs="*",
            metavar="QUEUE",
            help="a backend, such as render, or one of its shards, such as render.0;"
            " left out: all queues of all backends",
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
    """End the process after so many seconds, although a thread hangs, such as that of a receiver.

    Python itself would wait without a limit for all threads that are no daemons.
    """

    def end() -> None:
        time.sleep(seconds)
        threads = [each for each in threading.enumerate() if not each.daemon]
        names = ", ".join(each.name for each in threads if each is not threading.main_thread())
        logger.warning("the worker ends although threads still run: %s", names)
        logging.shutdown()
        os._exit(0)

    threading.Thread(target=end, daemon=True, name="end").start()


def show_log(verbosity: int) -> None:
    """Print ProgRock's log to stderr where the project's LOGGING has no handler for it.

    Django by itself configures none for it. Python would then print only warnings and errors, and
    without a time. At verbosity 0 warnings and errors are printed, at 1 also what happens to jobs,
    and above that everything.
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
    """The queues with these names, as (backend, shard). Without names it is all queues.

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
                f"there is no queue {name!r}; wanted a backend, or backend.shard, of: {known}"
            )
        chosen += [queue for queue in found if queue not in chosen]
    return chosen or every


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, because it is faster; else Python's own."""
    try:
        import uvloop  # the extra `standalone` installs it, which a project need not have
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
    # Take the imported modules out of garbage collection, because going through them again would
    # stop the process for 35 ms every other second.
    gc.collect()
    gc.freeze()
    await poller.run()
