"""Messages must not become herds: ten minutes of ten thousand jobs, by a simulated clock.

The lanes and constants are the real ones.
"""

import heapq
import inspect
import itertools
import random
from collections import deque

import pytest

from progrock.broker.lanes import GRID, SHORTEST, lane_for, on_grid, spread_of, ttl
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import MAX_TASKS
from progrock.consumers.poller import ROUNDS

GATHER: float = inspect.signature(Publisher).parameters["gather"].default
INTERVAL, MINUTES = 1.0, 10
WORKERS, SHARDS = 2, 2
#: What a round costs its worker's ledger thread (seconds): as measured, and a little more.
ROUND, TASK = 0.002, 0.00003
BUCKET = 0.1


class Simulation:
    """Messages are (count of tasks) that fall due at a time; who they are does not matter here."""

    def __init__(self, jobs: int, starts_within: float, seed: int) -> None:
        self.random, self.spread = random.Random(seed), spread_of(INTERVAL)
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, str, tuple[int, int], int]] = []
        places = [(worker, shard) for worker in range(WORKERS) for shard in range(SHARDS)]
        self.due: dict[tuple[int, int], deque[int]] = {place: deque() for place in places}
        self.rooms = dict.fromkeys(places, ROUNDS)
        self.busy = [0.0] * WORKERS  # until when each worker's ledger thread is
        self.gathered: dict[tuple[int, int], list[float]] = {}  # count, latest due
        self.polls: list[tuple[float, int]] = []
        for _ in range(jobs):
            self.at(self.random.uniform(0, starts_within), "due", self.random.choice(places), 1)

    def at(self, when: float, what: str, place: tuple[int, int], count: int) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what, place, count))

    def run(self, seconds: float) -> None:
        while self.events[0][0] < seconds:
            now, _, what, place, count = heapq.heappop(self.events)
            if what == "due":
                self.due[place].append(count)
            elif what == "done":
                self.rooms[place] += 1
                self.publish(now, place, count)
            elif place in self.gathered:
                self.flush(now, place)
            while self.due[place] and self.rooms[place]:
                self.round(now, place)

    def round(self, now: float, place: tuple[int, int]) -> None:
        """All that is due, up to a message's worth of tasks (`DueTasks.take`, `Poller._serve`)."""
        waiting = self.due[place]
        count = waiting.popleft()
        while waiting and count + waiting[0] <= MAX_TASKS:
            count += waiting.popleft()
        self.rooms[place] -= 1
        worker = place[0]
        self.polls.append((now, count))
        self.busy[worker] = max(now, self.busy[worker]) + ROUND + TASK * count
        self.at(self.busy[worker], "done", place, count)

    def publish(self, now: float, place: tuple[int, int], count: int) -> None:
        """Gathered for a few milliseconds, or until a message is full (`Publisher.publish`)."""
        while count:
            if place not in self.gathered:
                self.gathered[place] = [0, 0.0]
                self.at(now + GATHER, "flush", place, 0)
            batch = self.gathered[place]
            room = min(count, MAX_TASKS - int(batch[0]))
            batch[0] += room
            batch[1] = now + INTERVAL
            count -= room
            if batch[0] >= MAX_TASKS:
                self.flush(now, place)

    def flush(self, now: float, place: tuple[int, int]) -> None:
        """Into a lane, perhaps into another, and the rest is waited for in any of the workers."""
        count, latest = self.gathered.pop(place)
        due = on_grid(latest + self.random.uniform(0, self.spread), place[1])
        lane = lane_for(INTERVAL)
        while lane:
            now += ttl(lane, due - now)
            lane = lane_for(due - now) if due - now >= SHORTEST else None
        assert now <= due + 1e-9, "no lane holds a message beyond its due"
        self.at(due, "due", (self.random.randrange(WORKERS), place[1]), int(count))

    def rates(self, since: float, until: float) -> list[float]:
        """Polls a second that reached the backend, per 100 ms."""
        buckets = [0] * round((until - since) / BUCKET)
        for when, count in self.polls:
            if since <= when < until:
                buckets[min(int((when - since) / BUCKET), len(buckets) - 1)] += count
        return [count / BUCKET for count in buckets]


@pytest.mark.parametrize("starts_within", [1.0, 10.0])
def test_no_herd_arrives_at_more_than_three_times_the_mean_rate(starts_within: float) -> None:
    jobs, end = 10_000, 60.0 * MINUTES
    simulation = Simulation(jobs, starts_within, seed=4)
    simulation.run(end)
    rates = simulation.rates(end - 60, end)
    mean = sum(rates) / len(rates)
    assert mean > 0.85 * jobs / INTERVAL, "the jobs are polled as often as they should be"
    assert max(rates) < 3 * mean
    # Ten messages in 100 ms, each at a moment of its own, leave gaps by chance. Over half a second
    # there are none.
    halves = [sum(rates[i : i + 5]) / 5 for i in range(0, len(rates), 5)]
    assert min(halves) > mean / 3


@pytest.mark.parametrize("shards", [2, 4, 16])
def test_shards_wake_at_moments_of_their_own(shards: int) -> None:
    due = 1_790_000_000.0123
    points = sorted(on_grid(due, shard) for shard in range(shards))
    assert all(due - 1e-6 <= point < due + GRID + 1e-6 for point in points), "never early, and soon"
    assert min(after - before for before, after in itertools.pairwise(points)) > GRID / (3 * shards)
