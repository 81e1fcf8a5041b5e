"""Notices that the database has lost commits, and shows open pages what it holds now.

After a failover to a replica that lagged behind, or from a backup, a job's version is lower than
the one that browsers were shown. All changes up to that version would be dropped as old.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Set
from typing import NamedTuple

from progrock import clock, ledger
from progrock.consumers.database import database
from progrock.consumers.sockets import Audience
from progrock.ledger import Version

logger = logging.getLogger(__name__)

#: All jobs that are shown are compared with the ledger after so many seconds, and after an outage.
FULL = 60.0


class _Suspect(NamedTuple):
    """A job that was shown in this version, which the ledger does not have."""

    audience: str
    version: int
    ended: bool


class Rewind:
    """Compares what sockets were shown with the ledger; `check` is called by the repair.

    A push can overtake the answer to a query, so only a second check proves that a version went
    back. `show_anew(names)` sends a new snapshot to the sockets of these audiences.
    """

    def __init__(
        self,
        audiences: Mapping[str, Audience],
        show_anew: Callable[[Collection[str]], Awaitable[None]],
    ) -> None:
        self._audiences, self._show_anew = audiences, show_anew
        self._suspects: dict[str, _Suspect] = {}
        self._stale: set[str] = set()  # audiences whose sockets need a new snapshot
        self._checked = clock.elapsed()  # when all that is shown was compared last

    @property
    def suspects(self) -> bool:
        """Whether something must be checked again soon."""
        return bool(self._suspects or self._stale)

    def soon(self) -> None:
        """Compare all that is shown at the next check, because the database may have changed."""
        self._checked = clock.elapsed() - FULL

    async def check(self, changed: Mapping[str, Version]) -> None:
        """Check these jobs, which have changed lately, and all others from time to time.

        Raises what the database raises; the next check goes on where this one stopped.
        """
        begun, full = clock.elapsed(), clock.elapsed() - self._checked >= FULL
        suspects, self._suspects = self._suspects, self._differing(changed)
        if full or suspects:
            shown = {job_id for each in self._audiences.values() for job_id in each.jobs()}
            wanted = {*suspects, *(shown if full else ())}
            try:
                held = await database(ledger.versions, wanted)
            except BaseException:
                self._suspects = suspects
                raise
            if full:
                self._checked = begun
                self._suspects |= self._differing(held, gone=shown - held.keys())
            self._confirm(suspects, held)
        if self._stale:
            await self._show_anew(self._stale)
            self._stale = set()

    def _differing(
        self, held: Mapping[str, Version], gone: Set[str] = frozenset()
    ) -> dict[str, _Suspect]:
        """The jobs shown in a version that the ledger does not hold, and those that are `gone`."""
        found = {}
        for job_id, there in held.items():
            if (audience := self._audiences.get(there.audience)) is not None:
                version, ended = audience.shown(job_id), audience.shown_ended(job_id)
                if _went_back(there, version, ended):
                    found[job_id] = _Suspect(there.audience, version, ended)
        for name, audience in self._audiences.items() if gone else ():
            for job_id in audience.jobs() & gone:
                if not audience.shown_ended(job_id):  # else it was deleted because it is old
                    found[job_id] = _Suspect(name, audience.shown(job_id), False)
        return found

    def _confirm(self, suspects: Mapping[str, _Suspect], held: Mapping[str, Version]) -> None:
        """Decide whose sockets need a new snapshot, after a second check of these suspects.

        One version that went back means that the whole database did.
        """
        gone = {each.audience for job_id, each in suspects.items() if job_id not in held}
        back = [
            job_id
            for job_id, each in suspects.items()
            if job_id in held and _went_back(held[job_id], each.version, each.ended)
        ]
        if back:
            logger.warning(
                "the database has lost commits, all pages get a new snapshot; for example job=%s",
                back[0],
            )
        self._stale |= set(self._audiences) if back else gone & self._audiences.keys()
        for job_id in (*back, *(each for each in suspects if each not in held)):
            self._suspects.pop(job_id, None)


def _went_back(there: Version, shown: int, ended: bool) -> bool:
    """Whether the ledger has an older version than was shown, or another one of that number."""
    return there.version < shown or (there.version == shown and there.ended != ended)
