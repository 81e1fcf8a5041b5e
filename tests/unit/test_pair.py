"""The comparison of two checkouts: what it reads from a run's figures, and the table it prints."""

from tests.bench.pair import Run, parts, table


def run(worker: float, p99: float = 0.02) -> Run:
    return Run(rate=9_000, p99=p99, cpu={"RabbitMQ": 20.0, "worker": worker})


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
