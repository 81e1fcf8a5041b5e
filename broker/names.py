"""Every name that an installation has in RabbitMQ, and the id that its messages bear."""

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from progrock.broker.lanes import Lane

#: The header of a message of tasks, and the key of a pushed event, that holds the id.
INSTALLATION = "installation"

# A prefix has no dot, because `a.b` would lie among the names of the prefix `a`.
_is_prefix = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}").fullmatch


def _none() -> str:
    return ""


@dataclass(frozen=True)
class Names:
    """The names that begin with `prefix`. Raises ValueError for a prefix that cannot be one.

    `installation` returns the id of this installation. While that is "", messages bear no id, and
    every message counts as ours.
    """

    prefix: str = "progrock"
    installation: Callable[[], str] = field(default=_none, compare=False)

    def __post_init__(self) -> None:
        if not _is_prefix(self.prefix):
            raise ValueError(
                f"{self.prefix!r} cannot be a prefix: wanted 1 to 40 letters, digits, `-` and `_`,"
                " of which the first is a letter or a digit"
            )

    @cached_property
    def delay(self) -> str:
        """The exchange of delayed tasks."""
        return f"{self.prefix}.delay"

    @cached_property
    def poll(self) -> str:
        """The exchange of tasks that are due."""
        return f"{self.prefix}.poll"

    @cached_property
    def dead(self) -> str:
        """The exchange and queue of what could not be handled."""
        return f"{self.prefix}.dead"

    @cached_property
    def groups(self) -> str:
        """The exchange of pushes: the channel layer's groups."""
        return f"{self.prefix}.groups"

    @cached_property
    def web(self) -> str:
        """The prefix of the channel layer's queues, which live as long as a process."""
        return f"{self.prefix}.web"

    @cached_property
    def mark(self) -> str:
        """The exchange that says whose these names are (`progrock.broker.mark`)."""
        return f"{self.prefix}.installation"

    @property
    def own_mark(self) -> str:
        """The alternate exchange of the mark, whose name ends with our id."""
        return f"{self.mark}.{self.installation()}"

    @cached_property
    def other_mark(self) -> str:
        """The exchange that says that a second installation was here."""
        return f"{self.mark}.others"

    def is_mark(self, name: str) -> bool:
        """Whether an exchange is a mark, ours or another installation's."""
        return name == self.mark or name.startswith(f"{self.mark}.")

    def lane(self, lane: Lane) -> str:
        """The queue of a lane; its number sorts the lanes by length in the management UI."""
        return f"{self.delay}.{lane.number:02}-{lane.name}"

    def poll_queue(self, backend: str, shard: int | str) -> str:
        """The name of a poll queue, such as `progrock.poll.render.0`."""
        return f"{self.poll}.{backend}.{shard}"

    def parse_poll_queue(self, name: str) -> tuple[str, int] | None:
        """Backend and shard of a poll queue's name; None for any other name."""
        backend, _, shard = name.removeprefix(f"{self.poll}.").rpartition(".")
        if not name.startswith(f"{self.poll}.") or not backend or not shard.isdecimal():
            return None
        return backend, int(shard)

    def label(self, role: str) -> str:
        """A connection's or consumer's name in the management UI: `<prefix> <role> @host:pid`."""
        return f"{self.prefix} {role} @{socket.gethostname()}:{os.getpid()}"

    def why_not_ours(self, headers: Mapping[str, Any]) -> str:
        """Why a message is not ours, as a reason for the dead queue; "" if it is ours.

        A message without an id counts as ours, because an older release sent it.
        """
        theirs, ours = headers.get(INSTALLATION), self.installation()
        if not theirs or not ours or theirs == ours:
            return ""
        return f"of another installation {str(theirs)[:40]!r}: wanted {ours!r}"


NAMES = Names()
