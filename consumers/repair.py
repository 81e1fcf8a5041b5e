"""The repair of a web process: finds in the ledger the changes whose push did not arrive.

One query serves all sockets of the process.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from progrock import clock, conf, ledger, pulse, wire
from progrock.consumers.database import AWAY, WebDatabase, database
from progrock.consumers.rewind import Rewind
from progrock.consumers.sockets import Audience
from progrock.wire import Change

logger = logging.getLogger(__name__)

#: Seconds between two checks. A lost push must show within 10 s.
REPAIR = 5.0
#: Each check reaches back so many seconds beyond the one before: longer than a commit takes.
OVERLAP = 10.0
#: Seconds after which a version that seems to have gone back is checked once more.
SECOND_CHECK = 1.0
#: A job is late when its task is overdue by more than so many seconds.
LATE = 10.0


class Repair:
    """Checks every few seconds, and at once after `soon()`. Hands what it finds to `deliver`.

    `audiences` are those with open sockets here; the hub keeps them up to date. `rewind` checks
    what has changed, because versions may have gone back.
    """

    def __init__(
        self,
        audiences: Mapping[str, Audience],
        deliver: Callable[[Iterable[Change]], None],
        rewind: Rewind,
    ) -> None:
        #: Whether a job of these audiences is late, because the workers have too much to do.
        self.late = False
        #: When the latest complete check began, by `clock.elapsed`.
        self.checked = clock.elapsed()
        # A thread of its own, so that it does not stand in line behind thousands of handshakes.
        self.database = WebDatabase(ThreadPoolExecutor(1, "repair"), quiet=True)
        self._audiences = audiences
        self._deliver = deliver
        self._rewind = rewind
        self._soon = asyncio.Event()

    def soon(self) -> None:
        """Check at once, because pushes were probably lost."""
        self._soon.set()

    async def run(self) -> None:
        """Check, until this is cancelled. What fails is tried again by the next check."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(SECOND_CHECK if self._rewind.suspects else REPAIR):
                    await self._soon.wait()
            self._soon.clear()
            try:
                await self.check()
            except AWAY:
                self._rewind.soon()  # another database may answer next
                continue  # `database` has logged it, and the hub tells the sockets
            except Exception:  # the loop must go on, else a lost push stays lost
                logger.exception("the repair failed, and the next one tries again")

    async def check(self) -> None:
        """Deliver what changed in the ledger since the last check and was not shown here."""
        begun = clock.elapsed()
        names = list(self._audiences)
        if names and (database.away or self.database.away):
            await database(pulse.touch)  # perhaps nobody else asks whether the database is back
        self.late = bool(names) and await self.database(
            ledger.late, names, list(conf.backends()), LATE
        )
        if names:
            since = begun - self.checked + OVERLAP
            changed = await self.database(ledger.changed_since, names, since)
            lost = [
                job_id
                for job_id, there in changed.items()
                if (audience := self._audiences.get(there.audience))
                and there.version > audience.shown(job_id)
            ]
            if lost:
                rows = await self.database(ledger.load, lost, results=True)
                self._deliver([wire.change_of(row) for row in rows.values()])
            await self._rewind.check(changed)
            for audience in self._audiences.values():
                audience.forget_ended(keep=changed.keys())
        self.checked = begun
