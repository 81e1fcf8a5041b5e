"""What the bench makes of its workers' records, and the jobs that it gives them."""

import sqlite3
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from progrock.backends import JobView, Options, Status
from tests.bench.away import CALM, seconds_until_normal
from tests.bench.lines import Line, table
from tests.bench.noop import Noop
from tests.bench.stand import BOUND, Bench, span
from tests.bench.worker import RECORD
from tests.bench.writes import Written, written

JOBS = [str(uuid.uuid4()) for _ in range(20_000)]


def record(directory: Path, *polls: tuple[float, float, float, int]) -> Path:
    path = directory / "worker1.record"
    path.write_bytes(b"".join(RECORD.pack(*each) for each in polls))
    return path


def test_a_span_counts_what_was_polled_in_it(tmp_path: Path) -> None:
    path = record(
        tmp_path, (9.9, 5.0, 5.0, 7), (10, 0.25, 0, 100), (11, 0.5, 0, 100), (12, 9, 9, 1)
    )
    found = span([path], 10, 12, {"worker": 0.01}, {"rows": 50})
    assert (found.rate, found.median, found.p99) == (100, 0.25, 0.5)
    assert found.cpu == {"worker": pytest.approx(50)}
    assert found.cores == pytest.approx(0.005)
    assert found.writes == {"rows": 0.25}
    assert "0.250 rows written a look" in f"{found}"


def test_a_span_in_which_nothing_is_counted_says_nothing_of_rows(tmp_path: Path) -> None:
    assert "written" not in f"{span([record(tmp_path)], 10, 12)}"


class Connection:
    """What Django's signal tells of a connection."""

    def __init__(self, vendor: str = "sqlite") -> None:
        self.vendor, self.connection = vendor, sqlite3.connect(":memory:")

    def write(self, rows: int) -> None:
        self.connection.execute("CREATE TABLE IF NOT EXISTS t (n)")
        self.connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(rows)])


def test_the_rows_of_all_connections_of_all_workers_count(tmp_path: Path) -> None:
    one, other = (Written(tmp_path / f"worker{n}.writes") for n in (1, 2))
    mine, spare, others, postgresql = (
        Connection(vendor) for vendor in ("sqlite", "sqlite", "sqlite", "postgresql")
    )
    for worker, connection in ((one, mine), (one, spare), (other, others), (other, postgresql)):
        worker.connected(connection=connection)
        connection.write(3)
    mine.connection.execute("UPDATE t SET n = 4 WHERE n > 0")
    assert written("sqlite:///any", tmp_path) == {"rows": 0}
    one.note()
    other.note()
    assert written("sqlite:///any", tmp_path) == {"rows": 3 + 2 + 3 + 3}
    spare.connection.close()
    mine.write(1)
    one.note()
    assert written("sqlite:///any", tmp_path) == {"rows": 12}, "a closed one keeps its count"
    for each in (mine, others, postgresql):
        each.connection.close()


def test_the_longest_wait_is_that_of_the_job_that_was_polled_first(tmp_path: Path) -> None:
    up = cast(Bench, type("Stack", (), {"directory": tmp_path})())
    (tmp_path / "worker1.jobs").write_text("100.0 a b\n103.0 a\n104.5 c d")
    (tmp_path / "worker2.jobs").write_text("104.0 c\n")
    assert Bench.longest_wait(up, 3, 1.0) == 104 - 100 - 1.0
    assert Bench.longest_wait(up, 4, 1.0) == 104 - 100 - 1.0
    (tmp_path / "worker1.jobs").write_text("100.0 a\n103.0 a b c\n")
    assert Bench.longest_wait(up, 3, 1.0) == 104 - 103 - 1.0
    assert Bench.longest_wait(up, 4, 1.0) == 104 - 100 - 1.0, "one was never polled"


@pytest.mark.parametrize(
    ("late", "took"),
    [
        ([0.0] * CALM, 0),
        ([60.0, 0.5, *[BOUND] * CALM], 2),
        ([60.0, *[0.0] * (CALM - 1), 0.2, *[0.0] * CALM, 0.2], CALM + 1),
        ([60.0, *[0.0] * (CALM - 1)], None),
        ([0.2] * 60, None),
    ],
)
def test_lateness_is_normal_again_when_it_stays_so_for_a_while(
    late: Sequence[float], took: int | None
) -> None:
    assert seconds_until_normal(late) == took


@pytest.mark.parametrize("part", [0, 0.02, 1, True, False])
async def test_so_large_a_part_of_the_jobs_has_news_at_each_poll(part: float) -> None:
    backend = Noop(Options(name="noop"), changes=part)
    jobs = [JobView(job, job, {}) for job in JOBS]
    first, second = [cast(dict[str, Status], await backend.poll(jobs)) for _ in range(2)]
    changed = {job for job in JOBS if first[job] != second[job]}
    assert len(changed) / len(JOBS) == pytest.approx(float(part), abs=part % 1 / 2)
    third = await backend.poll(jobs)
    assert {job for job in JOBS if third[job] != second[job]} == changed


def test_the_table_has_the_rows_that_a_look_wrote() -> None:
    lines = [
        Line(what="polls", value=9_000, unit="cycles/s", detail={"writes": {"rows": 0.0751}}),
        Line(what="late", value=3, unit="ms"),
    ]
    _, _, polls, late = table(lines)
    assert polls.endswith("| 0.075 |")
    assert late.endswith("|  |")
