"""How soon all is as before when the workers were away and come back."""

import time
from collections.abc import Sequence

from tests.bench.lines import Line
from tests.bench.stand import BOUND, Stand, span
from tests.bench.tables import NOOP

#: So many good seconds in a row show that the lateness is normal again.
CALM = 10


def away(stand: Stand) -> list[Line]:
    """(k) The workers are stopped for 60 s and started again, at a load that they hold with ease.

    By then all leases have ended, so that each job's first look writes. We watch them for long
    enough that they end once more.
    """
    quick = stand.options.quick
    (jobs,) = stand.sizes("away", (4_000,) if quick else (20_000,))
    gone, watched = (20, 25) if quick else (60, 60)
    with stand.stack(NOOP.format(interval=1.0, changes=0.0)) as up:
        up.fill(str(jobs))
        time.sleep(4 if quick else 8)
        before = up.measure(stand.options.seconds)
        print(f"  {jobs:6} jobs {before}", flush=True)
        for worker in up.workers():
            up.stop_worker(worker)
        time.sleep(gone)
        begun = time.time()
        for _ in range(2):
            up.start_worker()
        rows = [up.written()["rows"]]
        for n in range(watched):
            time.sleep(max(0.0, begun + n + 1 - time.time()))
            rows.append(up.written()["rows"])
        time.sleep(0.6)  # By then the workers have written their records.
        records = list(up.directory.glob("*.record"))
        seconds = [span(records, begun + n, begun + n + 1) for n in range(watched)]
    late = [each.p99 for each in seconds]
    took = seconds_until_normal(late)
    written = [
        (after - now) / max(each.rate, 1)
        for each, now, after in zip(seconds, rows, rows[1:], strict=False)
    ]
    for n in range(min(watched, 24)):
        each = seconds[n]
        print(
            f"  second {n + 1:2}: {each.rate:6.0f}/s, {each.p99:6.3f} s p99,"
            f" {written[n]:.2f} rows written a look",
            flush=True,
        )
    again = sum(each > BOUND for each in late[took:]) if took is not None else watched
    print(f"  normal after {took} s, then {again} seconds with more than {BOUND} s p99", flush=True)
    detail = {**before.json(), "late": late, "rates": [each.rate for each in seconds]}
    detail |= {"written": written, "again": again}
    what = f"workers away for {gone} s, {jobs:,} jobs: until the lateness is as before"
    unit = "s" if before.held else "s, not held before"
    return [
        Line(
            what=what,
            value=watched if took is None else took,
            unit=unit if took is not None else f"{unit}, and not yet",
            goal=10,
            less=True,
            detail=detail,
        )
    ]


def seconds_until_normal(late: Sequence[float]) -> int | None:
    """After how many seconds CALM of them in a row are within BOUND; None where that never is.

    `late` has the 99th percentile of each second.
    """
    for n in range(len(late) - CALM + 1):
        if max(late[n : n + CALM]) <= BOUND:
            return n
    return None
