"""Judges the tasks that passed the gate: had a turn of a job two live ones that nobody knew of?

Pure. A look that writes nothing publishes the task of the same turn again. So two live tasks of one
turn are two loops until the lease ends, unless the row tells of the second one.

Within a turn, one loop publishes tasks that are due an interval apart. A second loop's tasks fall
between them. There are three ways to a second task of a turn:

- ProgRock makes one and says so: a sweep or a cancel changes the row and leaves its turn. From then
  on each look must write.
- RabbitMQ makes two of one message. Both are then delivered as new, with the same id.
- The database goes back, and a turn is taken for the second time.

All others are forks of our own. Three things are not seen. If RabbitMQ makes two of a message, and
the delivery of the first one is lost on its way to the gate, that one comes again as delivered
before, and its look is written. Copies that were deleted with their queue were never looked at. And
of a pair that RabbitMQ makes, nobody can tell which is the copy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.chaos.audit import Change
from tests.chaos.clients import Rewound
from tests.chaos.wire import Passed

#: Whether no fault was active at any moment between two times (epoch seconds).
Calm = Callable[[float, float], bool]

#: A lease is drawn up to so many times longer than the backend's.
DRAWN = 1.2
#: Two tasks of a turn that are due closer than this part of the interval are of two loops.
APART = 2 / 3
#: A due time may lie so many seconds behind the end of the lease, because it is spread and rounded.
ROUNDED = 1.0
#: So many seconds after a second task was made, looks that had read the row before are over.
SETTLED = 2.0
#: A fault that ended so many seconds before may still hold a look up.
HELD_UP = 6.0
#: A task that is due so close to a row's due time is due then; SQLite's history is that exact.
SAME = 0.01


class Seen(NamedTuple):
    """A task that passed; `before` is None where it was published, as in `Passed`."""

    at: float
    message: str
    due: float
    marked: bool
    before: int | None


#: What passed of a job, by its turn, oldest first.
Turns = Mapping[int, Sequence[Seen]]


@dataclass(slots=True)
class Twins:
    """Two live tasks of one turn that were not ours; all times are epoch seconds.

    `until` is when the last task of a second loop was due, and `since` where it made none. The
    backend may be asked twice as often until `looked`.
    """

    maker: str
    turn: int
    since: float
    until: float
    looked: float

    @property
    def life(self) -> float:
        """For how many seconds there were two loops."""
        return self.until - self.since


@dataclass(slots=True)
class Tasks:
    """What the tasks of a job tell: looks without a write, our own forks, and those of others."""

    unwritten: int = 0
    ours: list[str] = field(default_factory=list)
    others: list[Twins] = field(default_factory=list)


def by_job(passed: Sequence[Passed]) -> dict[str, dict[int, list[Seen]]]:
    """The tasks of all messages, by job id and turn."""
    found: dict[str, dict[int, list[Seen]]] = {}
    for each in passed:
        for job, turn, due, marked in each.tasks:
            seen = Seen(each.at, each.id, due, marked, each.before)
            found.setdefault(job, {}).setdefault(turn, []).append(seen)
    return found


def judge_tasks(
    turns: Turns,
    changes: Sequence[Change],
    interval: float,
    lease: float,
    calm: Calm,
    rewound: Sequence[Rewound] = (),
) -> Tasks:
    """Judge the tasks of one job; `rewound`: when the database lost its last commits."""
    tasks = Tasks()
    rows: dict[int, list[Change]] = {}
    for change in changes:
        rows.setdefault(change.turn, []).append(change)
    for turn, seen in turns.items():
        if turn in rows and rows[turn][0].state == "running":
            over = min((c.at for c in rows.get(turn + 1, ())), default=float("inf"))
            _judge_turn(tasks, turn, seen, rows[turn], over, interval, calm, rewound)
    for twins in tasks.others:
        if twins.life > DRAWN * lease + ROUNDED:
            tasks.ours.append(
                f"turn {twins.turn}: a pair by {twins.maker} lived {twins.life:.1f} s"
            )
    return tasks


def _judge_turn(
    tasks: Tasks,
    turn: int,
    seen: Sequence[Seen],
    rows: Sequence[Change],
    over: float,
    interval: float,
    calm: Calm,
    rewound: Sequence[Rewound],
) -> None:
    """Judge the tasks of one turn; `rows` are the job's row in it, until `over` (epoch seconds).

    The database has lost this turn, and it was taken again, if a task of it was published while
    commits were being lost.
    """
    lost = any(
        each.since <= task.at <= each.until
        for each in rewound
        for task in seen
        if task.before is None
    )
    announced = rows[1].at if len(rows) > 1 else float("inf")
    lease_ends = max(row.due for row in rows)
    delivered: set[str] = set()
    waiting: dict[float, int] = {}  # by due: how many were published and not yet delivered
    twins: Twins | None = None
    faults: list[str] = []
    for at, message, due, marked, before in seen:
        if before is not None:
            if not before and message in delivered and at < over:
                if twins is None:
                    twins = Twins("RabbitMQ", turn, at, at, at)
                    tasks.others.append(twins)
                twins.looked = max(twins.looked, due)
            delivered.add(message)
            if not marked:
                waiting[due] = waiting.get(due, 0) - 1
            continue
        if marked:
            continue
        sent_on = due in waiting and waiting[due] <= 0
        pair = any(abs(due - other) < APART * interval for other in waiting)
        first = not waiting
        waiting[due] = waiting.get(due, 0) + 1
        if first or sent_on or any(abs(due - row.due) < SAME for row in rows[1:]):
            continue
        tasks.unwritten += 1
        if due > lease_ends + ROUNDED and not lost:
            late = due - lease_ends
            faults.append(f"turn {turn}: published again for {late:.1f} s after its lease")
        elif at > announced:
            if at > announced + SETTLED and calm(announced - HELD_UP, at):
                faults.append(f"turn {turn}: not written though a second task was made")
        elif pair:
            if twins is None and not lost:
                faults.append(f"turn {turn}: two tasks are due at {due:.2f} or close to it")
                continue
            if twins is None:
                twins = Twins("the database", turn, at, at, at)
                tasks.others.append(twins)
            twins.until = max(twins.until, due)
            twins.looked = max(twins.looked, due)
    tasks.ours += faults[:1]  # the others follow from it
