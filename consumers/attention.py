"""Writes down for the workers which audiences have open sockets in this web process."""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from progrock import attention, clock, conf, dispatch
from progrock.consumers.database import AWAY, database
from progrock.dispatch import Outbound

logger = logging.getLogger(__name__)

#: Seconds between two times at which all audiences are written again, ± 10 %.
RENEW = 40.0
#: Seconds for which new audiences wait for others, so that many sockets need few statements.
GATHER = 0.02
#: So many audiences go into one call of the database.
AT_ONCE = 500
#: Seconds until a call that failed is tried again.
RETRY = 1.0


class Attention:
    """Writes the watched audiences into the database, at once when one is new and then regularly.

    `audiences` are those with open sockets; the hub keeps them up to date. `send` gets the tasks
    of jobs that are due because somebody came. If no backend has `unwatched`, nothing is done.
    """

    def __init__(self, audiences: Collection[str], send: Callable[[Outbound], None]) -> None:
        self._audiences, self._send = audiences, send
        self._matters = attention.matters()
        self._until: dict[str, float] = {}  # how long what was written holds, by `clock.elapsed`
        self._new: set[str] = set()  # what is to be written at once
        self._wake = asyncio.Event()  # set when there is something to write at once
        self._renewal = 0.0  # when all are written again, by `clock.elapsed`

    def watch(self, audiences: Iterable[str]) -> None:
        """Somebody watches these audiences from now on. Returns at once.

        What was written lately, and holds until after the next renewal, is not written again.
        """
        if not self._matters:
            return
        enough = self._renewal + (attention.GOOD_FOR - RENEW) / 4
        new = [name for name in audiences if self._until.get(name, 0.0) < enough]
        if new:
            self._new.update(new)
            self._wake.set()

    async def run(self) -> None:
        """Write, until this is cancelled."""
        if not self._matters:
            return
        self._plan()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._renewal - clock.elapsed())):
                    await self._wake.wait()
                    await asyncio.sleep(GATHER)
            self._wake.clear()
            try:
                if clock.elapsed() >= self._renewal:
                    await self._renew()
                await self._write(self._new)
                continue
            except AWAY:
                pass  # `database` has logged it
            except Exception:  # the loop must go on, else all jobs here seem unwatched
                logger.exception("watched audiences could not be written, and are tried again")
            await asyncio.sleep(RETRY)
            self._wake.set()

    def _plan(self) -> None:
        self._renewal = clock.elapsed() + RENEW * random.uniform(0.9, 1.1)

    async def _renew(self) -> None:
        """Write all audiences with open sockets; forget the others."""
        now = clock.elapsed()
        self._until = {name: until for name, until in self._until.items() if until > now}
        await self._write(self._audiences)
        await database(attention.forget)
        self._plan()

    async def _write(self, names: Collection[str]) -> None:
        every = list(names)
        for i in range(0, len(every), AT_ONCE):
            part = every[i : i + AT_ONCE]
            begun = clock.elapsed()
            hastened = await database(attention.watch, part)
            self._until.update(dict.fromkeys(part, begun + attention.GOOD_FOR))
            self._new.difference_update(part)
            if hastened:
                self._send(dispatch.after(hastened, conf.backends()))
