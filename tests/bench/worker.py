"""`manage.py runworker` with a stop-watch.

It writes how late the polls reach their backend into the file BENCH_RECORD.
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
    from progrock.broker.due import Due
    from progrock.consumers.poller import Poller
    from progrock.management.commands import runworker

    parts_of_round: ContextVar[Sequence[Due]] = ContextVar("parts_of_round")
    # It stays open until the process ends.
    record = Path(os.environ["BENCH_RECORD"]).open("ab", buffering=1 << 20)  # noqa: SIM115
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
            if now - flushed > FLUSH:
                flushed = now
                record.flush()
            return await poll(jobs)

        return watch

    def stamped(commit: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def stamp(decided: Any) -> Any:
            committed = await commit(decided)
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
                    rounds.commits.commit = stamped(rounds.commits.commit)

    command: Any = runworker  # It looks up its Poller by this name.
    command.Poller = WatchedPoller
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
