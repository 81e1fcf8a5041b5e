"""Tells all sockets of a web process that updates are delayed, and that the connection lives."""

import asyncio
from collections.abc import Collection

from progrock import wire
from progrock.consumers.sockets import BEAT_KEY, STATUS_KEY, Member

#: Seconds between two beats.
BEAT = 20.0
#: After so many beats others get their turn.
AT_ONCE = 200


class Notices:
    """Sends `status` and `beat` frames to `members`, the open sockets of this process."""

    def __init__(self, members: Collection[Member]) -> None:
        self._members = members
        self._trouble: str | None = None  # a key of wire.DELAYED

    def show(self, trouble: str | None) -> None:
        """Tell all sockets why updates are delayed (a key of `wire.DELAYED`), if that is news."""
        if trouble != self._trouble:
            self._trouble = trouble
            frame = wire.encode(wire.status_frame(trouble))
            for member in self._members:
                member.outbox.offer(STATUS_KEY, frame)

    def welcome(self, member: Member) -> None:
        """Tell a new socket that updates are delayed, if they are."""
        if self._trouble:
            member.outbox.offer(STATUS_KEY, wire.encode(wire.status_frame(self._trouble)))

    async def beat(self) -> None:
        """Send beats, because scripts never see the pings of the protocol."""
        while True:
            await asyncio.sleep(BEAT)
            frame = wire.encode(wire.beat_frame())
            for n, member in enumerate(list(self._members), start=1):
                member.outbox.offer(BEAT_KEY, frame)
                if n % AT_ONCE == 0:
                    await asyncio.sleep(0)
