"""`manage.py runworker` with a stop-watch: how late each poll reaches its backend goes into the file BENCH_RECORD."""

import os
import struct
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import django

#: When, how late (by the earliest due of a part), how late (by its latest), how many tasks.
RECORD = struct.Struct("<dddI")
FLUSH = 0.25


def main() -> None:
    """Run the command, with each backend's `poll` wrapped; a note a message is all that it costs."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from progrock.broker.due import Due
    from progrock.consumers.poller import Poller
    from progrock.management.commands import runworker

    parts_of_round: ContextVar[Sequence[Due]] = ContextVar("parts_of_round")
    record = Path(os.environ["BENCH_RECORD"]).open("ab", buffering=1 << 20)  # noqa: SIM115  closed by the process's end
    flushed = 0.0

    def watched(poll: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def watch(jobs: Any) -> Any:
            nonlocal flushed
            now = time.time()
            for part in parts_of_round.get():
                record.write(
                    RECORD.pack(
                        now, now - part.tasks[0].due, now - part.tasks[-1].due, len(part.tasks)
                    )
                )
            if now - flushed > FLUSH:
                flushed = now
                record.flush()
            return await poll(jobs)

        return watch

    def stamped(push: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def stamp(rows: Any) -> Any:
            for row in rows:  # just committed: from here to the browser's frame is what is measured
                row.message = f"{time.time():.6f}"
            return await push(rows)

        return stamp

    class WatchedPoller(Poller):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            for rounds in self.rounds.values():
                self._watch(rounds, rounds.backend)

        @staticmethod
        def _watch(rounds: Any, backend: Any) -> None:
            backend.poll = watched(backend.poll)
            if os.environ.get("BENCH_STAMP"):
                rounds.push = stamped(rounds.push)

        async def _round(self, backend: str, shard: int, parts: Sequence[Due]) -> None:
            parts_of_round.set(parts)
            await super()._round(backend, shard, parts)

    command: Any = runworker  # it makes its Poller by this name
    command.Poller = WatchedPoller
    from django.core.management import execute_from_command_line

    execute_from_command_line(["manage.py", "runworker", *sys.argv[1:]])


if __name__ == "__main__":
    main()
