"""`make bench`: measures ProgRock beside what people would pick instead, and prints one table.

All of them run on one private RabbitMQ, one after another.
"""

import argparse
import json
import os
import platform
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from tests.bench.chart import chart
from tests.bench.lines import Line, middle, table
from tests.bench.scenarios import SCENARIOS, USUAL
from tests.bench.stand import Stand
from tests.services import private_broker


def main() -> None:
    """Run the scenarios that the options ask for, and print the medians."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"of {', '.join(SCENARIOS)} (all but those whose name ends in _change)",
    )
    parser.add_argument(
        "--repeats", type=int, default=3, help="of which the table has the medians (3)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="length of what is measured (10)")
    parser.add_argument(
        "--interval",
        type=float,
        default=1.0,
        help="seconds between two polls of a job in poll_sqlite, poll_postgres, poll_http and"
        " poll_many (1)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer jobs and sockets, and shorter waits, to try it out",
    )
    parser.add_argument(
        "--at",
        type=_sizes,
        action="append",
        default=[],
        metavar="SCENARIO=SIZE,…",
        help="how many jobs, step by step, such as poll_http=5000,6000; otherwise it climbs until "
        "the polls come too late. push= leaves out all but its 1,000/s",
    )
    parser.add_argument("--json", type=Path, help="write the figures into this file")
    parser.add_argument("--svg", type=Path, help="draw the chart into this file")
    options = parser.parse_args()
    if unknown := {*options.scenarios, *dict(options.at)} - SCENARIOS.keys():
        parser.error(f"there is no scenario {', '.join(unknown)}; there is: {', '.join(SCENARIOS)}")
    if empty := [scenario for scenario, sizes in options.at if not sizes and scenario != "push"]:
        parser.error(f"no sizes for {', '.join(empty)}; only push has a part without them")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that all processes are stopped.
    found: dict[str, list[Line]] = {}
    prefix = "progrock-bench-"
    with (
        tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder,
        private_broker(Path(folder) / "rabbitmq", "bench") as broker,
    ):
        about = machine(broker.api("GET", "overview")["rabbitmq_version"])
        print(about["machine"], about["versions"], sep="\n", flush=True)
        stand = Stand(Path(folder), broker, options)
        for turn in range(options.repeats):
            for name in options.scenarios or USUAL:
                load = os.getloadavg()[0]
                print(f"{name}, {turn + 1} of {options.repeats}", end="", flush=True)
                print(f" (load before: {load:.1f})", flush=True)
                for line in SCENARIOS[name](stand):
                    detail = {**line.detail, "load": load}
                    lines = found.setdefault(f"{name}: {line.what}", [])
                    lines.append(replace(line, detail=detail))
    lines = [middle(each) for each in found.values()]
    print("", *table(lines), sep="\n")
    if options.json:
        figures = {name: [asdict(line) for line in each] for name, each in found.items()}
        options.json.write_text(
            json.dumps(
                {**about, "medians": [asdict(line) for line in lines], "all": figures}, indent=1
            )
            + "\n"
        )
    if options.svg:
        options.svg.write_text(chart(lines, about["machine"]))


def _sizes(text: str) -> tuple[str, Sequence[int]]:
    scenario, given, sizes = text.partition("=")
    if not given:
        raise ValueError("no =")
    return scenario, [int(each) for each in sizes.split(",")] if sizes else []


def machine(rabbitmq: str) -> dict[str, str]:
    """The machine and the versions of what ran on it; `rabbitmq` is RabbitMQ's."""
    names = [
        line.split(":")[1].strip()
        for line in _read("/proc/cpuinfo")
        if line.startswith("model name")
    ]
    postgres = sorted(path.name for path in Path("/usr/lib/postgresql").glob("*"))
    memory = psutil.virtual_memory().total / 2**30
    packages = ["django", "channels", "channels-rabbitmq", "aio-pika", "aiohttp", "uvicorn"]
    packages += ["celery", "requests"]
    programs = {
        "Python": platform.python_version(),
        "RabbitMQ": rabbitmq,
        "SQLite": sqlite3.sqlite_version,
        "PostgreSQL": " ".join(postgres) or "none",
        **{name: _version(name) for name in packages},
    }
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    processor = names[0] if names else platform.machine()
    return {
        "machine": f"{psutil.cpu_count()} cores ({processor}), {memory:.0f} GiB, {system}",
        "versions": ", ".join(f"{name} {number}" for name, number in programs.items()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # Only the scenarios of the peers need it.
        return "none"


def _read(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


if __name__ == "__main__":
    main()
