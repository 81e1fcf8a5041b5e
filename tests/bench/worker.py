"""`manage.py runworker` with a stop-watch.

It writes how late the polls reach their backend into the file BENCH_RECORD, and how many rows it
has written into a file beside it (see writes.py). With BENCH_JOBS it also writes which jobs it
polls.
"""

import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import django

from tests.bench.writes import Written

#: For each message: when its tasks were polled (epoch seconds), how late the first and the last due
#: of them were (seconds), and how many there were.
RECORD = struct.Struct("<dddI")
FLUSH = 0.25


def main() -> None:
    """Run the command, with the work of each round and the `poll` of each backend wrapped.

    This costs one small write a message.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.argv = ["manage.py", "runworker", *sys.argv[1:]]  # the settings know a worker by it
    django.setup()
    from django.db.backends.signals import connection_created

    from progrock.broker.due import Due
    from progrock.consumers.poller import Poller
    from progrock.management.commands import runworker

    path = Path(os.environ["BENCH_RECORD"])
    written = Written(path.with_suffix(".writes"))
    connection_created.connect(written.connected)
    # These stay open until the process ends.
    record = path.open("ab", buffering=1 << 20)
    jobs_polled = path.with_suffix(".jobs").open("a") if os.environ.get("BENCH_JOBS") else None
    parts_of_round: ContextVar[Sequence[Due]] = ContextVar("parts_of_round")
    flushed = 0.0

    def noting(work: Callable[[Sequence[Due]], Any]) -> Callable[[Sequence[Due]], Any]:
        async def note(parts: Sequence[Due]) -> None:
            parts_of_round.set(parts)
            await work(parts)

        return note

    def watched(poll: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def watch(jobs: Any) -> Any:
            nonlocal flushed
            now = time.time()
            for part in parts_of_round.get():
                late = now - part.tasks[0].due, now - part.tasks[-1].due
                record.write(RECORD.pack(now, *late, len(part.tasks)))
                if jobs_polled:
                    print(now, *(task.job_id for task in part.tasks), file=jobs_polled)
            if now - flushed > FLUSH:
                flushed = now
                record.flush()
                if jobs_polled:
                    jobs_polled.flush()
                written.note()
            return await poll(jobs)

        return watch

    def stamped(commit: Callable[..., Any]) -> Callable[..., Any]:
        async def stamp(*args: Any) -> Any:  # `pair` runs checkouts with other arguments.
            committed = await commit(*args)
            # From here to the browser's frame is measured.
            for each in committed:
                each.row.message = f"{time.time():.6f}"
            return committed

        return stamp

    class WatchedPoller(Poller):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            for each in self.rounds.values():
                rounds: Any = each
                rounds.work = noting(rounds.work)
                rounds.backend.poll = watched(rounds.backend.poll)
                if os.environ.get("BENCH_STAMP"):
                    # `pair` also runs checkouts that have one method for all steps.
                    name = "commit_looks" if hasattr(rounds.commits, "commit_looks") else "commit"
                    setattr(rounds.commits, name, stamped(getattr(rounds.commits, name)))

    command: Any = runworker  # It looks up its Poller by this name.
    command.Poller = WatchedPoller
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
