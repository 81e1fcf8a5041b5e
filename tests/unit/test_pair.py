"""The comparison of two checkouts: whose code runs, what it reads, and the table it prints."""

from pathlib import Path

import pytest

from tests.bench.pair import LOADS, Run, check_imports, parts, table
from tests.bench.scenarios import SCENARIOS
from tests.services import ROOT


def run(worker: float, p99: float = 0.02, **writes: float) -> Run:
    cpu = {"RabbitMQ": 20.0, "worker": worker}
    return Run(rate=9_000, p99=p99, cpu=cpu, writes=writes)


def checkout(folder: Path) -> Path:
    """An old checkout: it has the product, and a bench without the new scenarios."""
    for package in ("site/config", "site/progrock/broker", "tests/bench"):
        (folder / package).mkdir(parents=True)
    for file in ("site/progrock/__init__", "site/progrock/broker/__init__", "site/config/settings"):
        (folder / f"{file}.py").touch()
    for file in ("site/config/__init__", "site/progrock/broker/tasks", "tests/services"):
        (folder / f"{file}.py").touch()
    return folder


def test_a_run_takes_the_product_of_its_side_and_the_bench_of_this_checkout(
    tmp_path: Path,
) -> None:
    check_imports(checkout(tmp_path))
    check_imports(ROOT)


def test_a_run_that_would_take_another_product_is_refused(tmp_path: Path) -> None:
    folder = checkout(tmp_path / "old")
    (folder / "site/progrock").rename(tmp_path / "progrock")
    (folder / "site/progrock").symlink_to(tmp_path / "progrock")
    with pytest.raises(SystemExit, match=r"would import .*tasks\.py"):
        check_imports(folder)


def test_what_is_compared_are_scenarios() -> None:
    assert LOADS.keys() < SCENARIOS.keys()


def test_the_table_has_medians_ranges_and_ratios() -> None:
    old, new = [run(50), run(60), run(52)], [run(50, p99=0.2), run(54), run(54)]
    heading, _, scenario, rabbitmq, worker, everything = table({"push": {"old": old, "new": new}})
    assert "old, us a cycle" in heading
    assert "p99 at most 200 ms" in scenario
    assert rabbitmq == "| | RabbitMQ | 20.0 (20.0–20.0) | 20.0 (20.0–20.0) | 1.000 |"
    assert worker == "| | worker | 52.0 (50.0–60.0) | 54.0 (50.0–54.0) | 1.038 |"
    assert everything == "| | all | 72.0 (70.0–80.0) | 74.0 (70.0–74.0) | 1.028 |"


def test_lines_of_one_measurement_are_one_part() -> None:
    thousand = {"pushes": 1_000.0, "p99": 0.01, "cpu": {"broker": 200.0}}
    many = {"pushes": 2_400.0, "p99": 0.03, "cpu": {"broker": 40.0}}
    lines = {"median": thousand, "p99": thousand, "pushes": many}
    figures = {name: [{"detail": detail}] for name, detail in lines.items()}
    assert dict(parts("push", figures)) == {
        "push, part 1": Run(rate=1_000, p99=0.01, cpu={"RabbitMQ": 200.0}),
        "push, part 2": Run(rate=2_400, p99=0.03, cpu={"RabbitMQ": 40.0}),
    }


def test_a_scenario_with_one_part_is_named_alone() -> None:
    detail = {"rate": 9_000.0, "p99": 0.02, "cpu": {"worker": 50.0}}
    assert list(parts("poll_sqlite", {"any": [{"detail": detail}]})) == [
        ("poll_sqlite", Run(rate=9_000, p99=0.02, cpu={"worker": 50.0}))
    ]


def test_what_a_look_wrote_has_rows_of_its_own() -> None:
    old, new = run(50, rows=1.0, log=180.4), run(30, rows=0.0751, log=50.2)
    *_, rows, log = table({"poll_postgres": {"old": [old], "new": [new]}})
    assert rows == "| | rows written a look | 1.000 (1.000–1.000) | 0.075 (0.075–0.075) | 0.075 |"
    assert log == "| | bytes of write-ahead log a look | 180 (180–180) | 50 (50–50) | 0.278 |"


def test_what_a_look_wrote_is_read_from_the_figures() -> None:
    detail = {"rate": 9_000.0, "p99": 0.02, "cpu": {"worker": 50.0}, "writes": {"rows": 0.1}}
    ((_, found),) = parts("poll_sqlite", {"any": [{"detail": detail}]})
    assert found.writes == {"rows": 0.1}
