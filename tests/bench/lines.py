"""The lines of the bench's table, and the table."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Line:
    """One line of the table.

    `peer`: measured on something else than ProgRock. `less`: less is better. Lines of one `group`
    are compared with its best peer. `detail` goes into the JSON file.
    """

    what: str
    value: float
    unit: str
    goal: float | None = None
    less: bool = False
    peer: bool = False
    group: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def middle(lines: list[Line]) -> Line:
    """The line with the median value; of an even number, the lower one of the middle.

    A rate that was not held counts as less than all rates that were.
    """
    ordered = sorted(lines, key=lambda line: ("p99" not in line.unit, line.value))
    return ordered[(len(ordered) - 1) // 2]


def table(lines: list[Line]) -> list[str]:
    """The table as Markdown: each value, its goal, and its ratio to the best peer."""
    rows = [
        "| what | measured | goal | to the best peer | rows written a look |",
        "| --- | --- | --- | --- | --- |",
    ]
    for line in lines:
        best = max(
            (peer.value for peer in lines if peer.peer and peer.group and peer.group == line.group),
            default=0.0,
        )
        ratio = f"{line.value / best:.1f} ×" if best and not line.peer else ""
        goal = f"{'≤' if line.less else '≥'} {line.goal:,g}" if line.goal else ""
        value = f"{line.value:,.0f}" if line.value >= 100 else f"{line.value:.2f}"
        written = line.detail.get("writes")
        writes = f"{written['rows']:.3f}" if written else ""
        rows.append(f"| {line.what} | {value} {line.unit} | {goal} | {ratio} | {writes} |")
    return rows
