"""What poll cycles cost, and how many a second are held: on both databases, and over HTTP.

Each of these scenarios comes in three forms, because a look that finds nothing new costs less. In
`poll_sqlite` no look does, in `poll_sqlite_some_change` 2 % of the jobs have something new at each
look, and in `poll_sqlite_all_change` all have.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.bench.lines import Line
from tests.bench.stand import Span, Stand
from tests.bench.tables import HTTP, MANY, NOOP
from tests.services import DEMO_ANSWERS, DemoBackend, Postgres

#: Which part of the jobs has something new at each look, by the end of a scenario's name.
CHANGES = {"_some_change": 0.02, "_all_change": 1.0}


def poll_line(what: str, found: Span, goal: float | None, **more: Any) -> Line:
    """The line of a rate. One that was not held says so."""
    unit = "cycles/s" if found.held else f"cycles/s, p99 {found.p99 * 1e3:.0f} ms"
    return Line(what=what, value=found.rate, unit=unit, goal=goal, detail=found.json(), **more)


def _sqlite(stand: Stand, sizes: Sequence[int], news: float) -> Span:
    """Of jobs that are started in bulk, with the ledger on SQLite."""
    with stand.stack(NOOP.format(interval=stand.options.interval, changes=news)) as up:
        return stand.climb(sizes, lambda n: up.fill(str(n)), up.measure)


def _postgres(stand: Stand, sizes: Sequence[int], news: float) -> Span:
    """The same on PostgreSQL with its own defaults for durability."""
    postgres = Postgres(durable=True)
    try:
        postgres.start()
        others = {"database": postgres.process.pid}
        tables = NOOP.format(interval=stand.options.interval, changes=news)
        with stand.stack(tables, database_url=postgres.new_database(), others=others) as up:
            return stand.climb(sizes, lambda n: up.fill(str(n)), up.measure)
    finally:
        postgres.stop()


def _over_http(stand: Stand, sizes: Sequence[int], news: float, *, many: str = "") -> Span:
    """Over HTTP, with the demo backend on the same cores."""
    folder = stand.folder("backend")
    folder.mkdir()
    backend = DemoBackend(folder)
    try:
        backend.start()
        others = {"backend": backend.process.pid}
        interval = stand.options.interval
        tables = HTTP.format(url=backend.url, many=many, answers=DEMO_ANSWERS, interval=interval)
        with stand.stack(tables, others=others) as up:

            def add(count: int) -> None:
                up.fill(str(count), "--backend", "demo", "--queued", "--moving", str(news))
                until = time.monotonic() + 120
                while up.count("queued", "starting") and time.monotonic() < until:
                    time.sleep(0.5)

            return stand.climb(sizes, add, up.measure)
    finally:
        backend.stop()


def poll_single(stand: Stand) -> list[Line]:
    """Jobs that are started one by one, measured after a minute."""
    best = None
    for size in stand.sizes("poll_single", (15_700, 18_000)):
        with stand.stack(NOOP.format(interval=1.0, changes=0.0)) as up:
            print("  " + up.fill(str(size), "--starts", "800"), flush=True)
            time.sleep(10 if stand.options.quick else 60)
            found = up.measure(stand.options.seconds)
            print(f"  {size:6} jobs {found}", flush=True)
            if best is None or found.held:
                best = found
            if not found.held:
                break
    assert best
    return [poll_line("… started one by one, after a minute", best, 15_000, group="poll")]


@dataclass(frozen=True, kw_only=True)
class Poll:
    """A scenario that climbs to the rate that is held.

    `sizes`: numbers of jobs. `news`: which part of them has something new at each look.
    """

    name: str
    run: Callable[[Stand, Sequence[int], float], Span]
    sizes: range
    what: str
    goal: float | None
    group: str
    news: float = 0.0

    def __call__(self, stand: Stand) -> list[Line]:
        """Run it."""
        found = self.run(stand, stand.sizes(self.name, self.sizes), self.news)
        return [poll_line(self.what, found, self.goal, group=self.group)]

    def changing(self) -> list["Poll"]:
        """The other forms, which have no goals and no peers. Where all is new it holds less."""
        lower = range(self.sizes.start * 2 // 3, self.sizes.stop, self.sizes.step)
        return [
            replace(
                self,
                name=self.name + end,
                what=f"{self.what}, {news:.0%} change",
                sizes=self.sizes if news < 1 else lower,
                goal=None,
                group="",
                news=news,
            )
            for end, news in CHANGES.items()
        ]


SQLITE = Poll(
    name="poll_sqlite",
    run=_sqlite,
    sizes=range(15_000, 60_001, 3_000),
    what="poll cycles, no-op backend, SQLite",
    goal=20_000,
    group="poll",
)
POSTGRES = Poll(
    name="poll_postgres",
    run=_postgres,
    sizes=range(10_000, 60_001, 3_000),
    what="poll cycles, no-op backend, PostgreSQL",
    goal=12_000,
    group="poll",
)
ONE_A_JOB = Poll(
    name="poll_http",
    run=_over_http,
    sizes=range(4_600, 12_001, 800),
    what="poll cycles over HTTP, one request a job",
    goal=5_000,
    group="http",
)
MANY_JOBS = Poll(
    name="poll_many",
    run=partial(_over_http, many=MANY),
    sizes=range(12_800, 40_001, 3_000),
    what="poll cycles over HTTP, poll_many",
    goal=15_000,
    group="many",
)
