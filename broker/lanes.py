"""All arithmetic of delays: which lane a task waits in, and how tasks are kept from becoming herds.

A lane is a delay queue. All its messages wait equally long, so that none waits behind a longer
one. A delay goes to the longest lane that is not longer than it. When that lane has passed, a
worker gets the task, still early, and sends it on to the longest lane that fits the rest. What is
shorter than the shortest lane is waited for in the worker. So each delay is exact to a few
milliseconds, and no task is handled before it is due.

RabbitMQ's cost is per message, so tasks should travel together. But thousands of jobs that are
polled at the same moment are a herd, which a backend feels. Four rules balance the two:

- `spread_of`: a message of regular polls is delayed by a random extra time, as a whole.
- `on_grid`: it then falls due on a point of its queue's grid, so that small messages meet.
- `TOGETHER`: the tasks of a message that are due almost at once are handled together.
- `HEAD_START`: a task leaves a lane a little early if it has another lane to go.

Everything here is in seconds, and nothing here reads a clock or draws a random number.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import ceil

# Lanes

_LANES = {
    "100ms": 0.1,
    "200ms": 0.2,
    "500ms": 0.5,
    "1s": 1.0,
    "2s": 2.0,
    "5s": 5.0,
    "10s": 10.0,
    "30s": 30.0,
}
_LANES |= {"1min": 60.0, "5min": 300.0, "10min": 600.0}


@dataclass(frozen=True, slots=True)
class Lane:
    """One delay queue, in which all messages wait equally long."""

    number: int
    name: str
    seconds: float


LANES = tuple(
    Lane(number, name, seconds) for number, (name, seconds) in enumerate(_LANES.items(), start=1)
)
SHORTEST = LANES[0].seconds
LONGEST = LANES[-1].seconds
_SECONDS = [lane.seconds for lane in LANES]

#: If a task has another lane to go, it leaves this one so much early. A hop costs some
#: milliseconds. Without the reserve the rest would be just shorter than the next lane and need
#: several smaller ones: four hops in place of two.
HEAD_START = 0.02

_TWO_LANES = sorted(
    {round(a.seconds + b, 1) for a in LANES for b in (0.0, *(lane.seconds for lane in LANES))}
)


def lane_for(delay: float) -> Lane | None:
    """The longest lane that is not longer than `delay`.

    None if even the shortest lane is longer: then publish at once, or wait in the process.
    """
    lanes = bisect_right(_SECONDS, delay)
    return LANES[lanes - 1] if lanes else None


def ttl(lane: Lane, left: float) -> float:
    """How long a message stays in `lane` if its earliest task is due in `left` seconds."""
    if left - lane.seconds >= SHORTEST:
        return lane.seconds - HEAD_START
    return max(0.0, min(lane.seconds, left))


def round_delay(delay: float) -> float:
    """The smallest delay that is not below `delay` and needs at most two lanes.

    Each hop costs a message. Delays below the shortest lane stay as they are. Delays above two of
    the longest lane become a multiple of the longest.
    """
    if delay < SHORTEST:
        return delay
    if delay > _TWO_LANES[-1]:
        return ceil(delay / LONGEST) * LONGEST
    return _TWO_LANES[bisect_left(_TWO_LANES, delay)]


# Herds

#: A message of regular polls is delayed by at most this part of the polls' interval.
SPREAD = 0.05

#: Regular polls are rounded up to a multiple of this. Tasks that arrived in several small messages
#: then fall due together and leave in one larger message.
GRID = 0.02

#: Tasks of one message that fall due within this time are handled together, when the last is due.
TOGETHER = 0.003


def spread_of(interval: float) -> float:
    """The longest random extra delay of a message of jobs that are polled each `interval`.

    The publisher draws it once for each message. It is not drawn for each task, so a message stays
    together, and it is never negative, so no poll is early. It is at most the shortest lane,
    because a longer one would cost another hop.
    """
    return min(SPREAD * interval, SHORTEST)


def on_grid(due: float, shard: int) -> float:
    """The next point of the shard's grid that is not before `due`.

    Each shard has a grid of its own, so that they do not all wake at once. Multiples of the golden
    ratio spread the grids evenly.
    """
    phase = GRID * (shard * 0.618 % 1)
    return ceil((due - phase) / GRID) * GRID + phase
