"""Compares the CPU time of two checkouts: runs scenarios of the bench on both, by turns.

    python -m tests.bench.pair --old ../old poll_sqlite poll_single poll_http push --repeats 3

Each run is a process of its own: this checkout's `python -m tests.bench` with the `progrock` and
`config` of its side, a RabbitMQ of its own, and one fixed load that both sides hold. So an old side
runs scenarios that it does not have, and both meet the same load, backend and RabbitMQ; it must
have the same columns in the table of jobs. A load of your own is written behind the scenario:
`poll_sqlite=6000`. The order changes with each repeat (old new, new old, …), so that a machine that
slows down meanwhile favours neither side.

The table has microseconds of CPU a cycle (or a push) for each role, and the rows that a look wrote:
the medians of the repeats, from … to, and the ratio of the medians. Stop whatever else runs on the
machine: a run next to a busy neighbour costs more CPU a cycle.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.polls import CHANGES
from tests.bench.writes import NAMES
from tests.services import ROOT

_POLLS = {"poll_sqlite": 9_000, "poll_postgres": 6_000, "poll_http": 2_500, "poll_many": 8_000}
#: Jobs of a run, each polled once an interval. Of push: changes a second, after a part with 1,000.
LOADS = {
    **{name + form: load for name, load in _POLLS.items() for form in ("", *CHANGES)},
    "poll_single": 8_000,
    "push": 2_500,
    "steady": 4_000,
}
#: Seconds after which a run has failed.
LIMIT = 600.0
SIDES = ("old", "new")
#: How the table names a role of the stand, where another word is plainer.
ROLES = {"broker": "RabbitMQ"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run measured: `rate` a second, `p99` in seconds, microseconds of CPU by role.

    `writes`: what was written a look, by the keys of `writes.NAMES`.
    """

    rate: float
    p99: float
    cpu: dict[str, float]
    writes: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        costs = " ".join(f"{role} {cost:.1f}" for role, cost in self.cpu.items())
        said = f"{self.rate:,.0f}/s, p99 {self.p99 * 1e3:.0f} ms, us a cycle: {costs}"
        return said + "".join(f", {NAMES[key]} a look: {n:.3f}" for key, n in self.writes.items())


#: The runs of a side in one part of a scenario, such as `runs["push, part 1"]["old"]`.
Runs = dict[str, dict[str, list[Run]]]


def main() -> None:
    """Run the scenarios on both checkouts as often as asked for, and print the table."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a run is stopped with us
    folders = {"old": options.old.resolve(), "new": options.new.resolve()}
    for side, folder in folders.items():
        print(f"{side}: {_commit(folder)} in {folder}", flush=True)
        check_imports(folder)
    runs: Runs = defaultdict(lambda: {side: [] for side in SIDES})
    for turn in range(options.repeats):
        for scenario, load in options.scenarios:
            for side in SIDES if turn % 2 == 0 else reversed(SIDES):
                print(f"{scenario}, {turn + 1} of {options.repeats}, {side}", end="", flush=True)
                print(f" (load before: {os.getloadavg()[0]:.1f})", flush=True)
                for part, found in run(folders[side], scenario, load, options):
                    runs[part][side].append(found)
                    print(f"  {part}: {found}", flush=True)
    print("", *table(runs), sep="\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.pair",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = ", ".join(f"{name}={load}" for name, load in LOADS.items())
    parser.add_argument(
        "scenarios", nargs="+", type=_scenario, metavar="SCENARIO[=LOAD]", help=f"of {usual}"
    )
    parser.add_argument("--old", type=Path, required=True, help="the folder of a checkout")
    parser.add_argument("--new", type=Path, default=ROOT, help="another one (this one)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (3)")
    parser.add_argument("--seconds", type=float, default=20, help="of what is measured (20)")
    parser.add_argument(
        "--interval", type=float, default=1.0, help="of the polls, as in the bench (1)"
    )
    parser.add_argument("--quick", action="store_true", help="wait less before it is measured")
    return parser.parse_args()


def _scenario(text: str) -> tuple[str, int]:
    name, _, load = text.partition("=")
    if name not in LOADS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(LOADS)}")
    return name, int(load) if load else LOADS[name]


def _environment(folder: Path) -> dict[str, str]:
    """The product of a checkout and the bench of this one come first, before what is installed."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder / "site"), str(ROOT)])}


def _commit(folder: Path) -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.check_output(command, cwd=folder, text=True).strip()


def check_imports(folder: Path) -> None:
    """End the program where a run would not take the product of its own checkout."""
    owners = {"config.settings": folder, "progrock.broker.tasks": folder, "tests.services": ROOT}
    code = "import sys; from importlib.util import find_spec as find\n"
    code += "for name in sys.argv[1:]: print(find(name).origin)"
    command = [sys.executable, "-c", code, *owners]
    said = subprocess.check_output(command, cwd=ROOT, env=_environment(folder), text=True)
    for file, owner in zip(said.splitlines(), owners.values(), strict=True):
        if not Path(file).resolve().is_relative_to(owner):
            sys.exit(f"a run on {folder} would import {file}")


def run(
    folder: Path, scenario: str, load: int, options: argparse.Namespace
) -> Iterator[tuple[str, Run]]:
    """Run one scenario on the checkout at `folder`; gives each part's name and what it measured."""
    with tempfile.TemporaryDirectory(prefix="progrock-pair-") as place:
        figures = Path(place) / "figures.json"
        command = [sys.executable, "-m", "tests.bench", scenario, "--at", f"{scenario}={load}"]
        command += ["--repeats", "1", "--seconds", str(options.seconds), "--json", str(figures)]
        command += ["--interval", str(options.interval)] + ["--quick"] * options.quick
        with (Path(place) / "output").open("w+") as output:
            child = subprocess.Popen(
                command, cwd=ROOT, env=_environment(folder), stdout=output, stderr=output
            )
            try:
                code = child.wait(LIMIT)
            finally:
                child.terminate()
                child.wait()
            output.seek(0)
            said = output.read()
        if code:
            raise RuntimeError(f"{' '.join(command)} on {folder} failed:\n{said}")
        if "the log has errors" in said or "Traceback" in said:
            print(said, flush=True)
        yield from parts(scenario, json.loads(figures.read_text())["all"])


def parts(scenario: str, found: dict[str, list[dict[str, Any]]]) -> Iterator[tuple[str, Run]]:
    """The parts of a scenario in the figures that a run wrote; a part may have several lines."""
    seen: list[dict[str, Any]] = []
    for lines in found.values():
        detail = lines[0]["detail"]
        if detail not in seen:
            seen.append(detail)
    for number, detail in enumerate(seen, 1):
        name = scenario if len(seen) == 1 else f"{scenario}, part {number}"
        rate = detail["pushes"] if "pushes" in detail else detail["rate"]
        cpu = {ROLES.get(role, role): cost for role, cost in detail["cpu"].items()}
        yield name, Run(rate=rate, p99=detail["p99"], cpu=cpu, writes=detail.get("writes", {}))


def table(runs: Runs) -> list[str]:
    """The comparison as a Markdown table.

    A row a role, one for all roles together, and one for each thing that a look wrote.
    """
    rows = [
        "| scenario | role | old, us a cycle | new, us a cycle | new / old |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for part, by_side in runs.items():
        old, new = by_side["old"], by_side["new"]
        rates = " and ".join(f"{median(run.rate for run in each):,.0f}/s" for each in (old, new))
        late = max(run.p99 for run in [*old, *new])
        rows.append(f"| {part} | {rates}, p99 at most {late * 1e3:.0f} ms | | | |")
        rows += [
            _row(role, (run.cpu[role] for run in old), (run.cpu[role] for run in new))
            for role in old[0].cpu
        ]
        before, after = ([sum(run.cpu.values()) for run in each] for each in (old, new))
        rows.append(_row("all", before, after))
        rows += [
            _row(
                f"{NAMES[key]} a look",
                (run.writes[key] for run in old),
                (run.writes[key] for run in new),
                digits=3 if key != "log" else 0,
            )
            for key in old[0].writes
        ]
    return rows


def _row(what: str, old: Iterable[float], new: Iterable[float], digits: int = 1) -> str:
    sides = [sorted(old), sorted(new)]
    said = (
        f"{median(each):.{digits}f} ({each[0]:.{digits}f}–{each[-1]:.{digits}f})" for each in sides
    )
    ratio = median(sides[1]) / max(median(sides[0]), 1e-9)
    return f"| | {what} | {' | '.join(said)} | {ratio:.3f} |"


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"\nin {(time.monotonic() - began) / 60:.0f} minutes")
