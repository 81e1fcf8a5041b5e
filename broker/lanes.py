"""Decides which delay queue (lane) a delay goes to: pure arithmetic, seconds throughout."""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from math import ceil

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
    """One delay queue; everything in it waits equally long, so nobody waits behind a longer delay."""

    number: int
    name: str
    seconds: float

    @property
    def queue(self) -> str:
        """The queue's name; the number sorts the lanes by length in the management UI."""
        return f"progrock.delay.{self.number:02}-{self.name}"


LANES = tuple(
    Lane(number, name, seconds) for number, (name, seconds) in enumerate(_LANES.items(), start=1)
)
SHORTEST = LANES[0].seconds
LONGEST = LANES[-1].seconds
_SECONDS = [lane.seconds for lane in LANES]

# A hop that another hop follows ends this much early: otherwise the few milliseconds that the hop itself costs
# would push what is left below the next lane, and two hops would become four.
HEAD_START = 0.02

_TWO_LANES = sorted(
    {round(a.seconds + b, 1) for a in LANES for b in (0.0, *(lane.seconds for lane in LANES))}
)


def lane_for(delay: float) -> Lane | None:
    """The longest lane that is not longer than `delay`; None when even the shortest is: sleep, or publish at once."""
    lanes = bisect_right(_SECONDS, delay)
    return LANES[lanes - 1] if lanes else None


def ttl(lane: Lane, left: float) -> float:
    """How long a message stays in `lane` when its earliest task is due in `left` seconds; never longer than that."""
    if left - lane.seconds >= SHORTEST:
        return lane.seconds - HEAD_START
    return max(0.0, min(lane.seconds, left))


def hops(delay: float) -> list[Lane]:
    """The lanes that a delay goes through, one after the other; what remains is shorter than the shortest lane."""
    way = []
    while lane := lane_for(delay):
        way.append(lane)
        delay -= lane.seconds
    return way


def round_delay(delay: float) -> float:
    """The smallest delay not below `delay` that at most two lanes hold, as each hop costs a message.

    Delays below the shortest lane stay as they are; above two of the longest it is a multiple of the longest.
    """
    if delay < SHORTEST:
        return delay
    if delay > _TWO_LANES[-1]:
        return ceil(delay / LONGEST) * LONGEST
    return _TWO_LANES[bisect_left(_TWO_LANES, delay)]
