"""ProgRock as people use it: jobs that were started one by one, whose progress moves."""

import json
import subprocess
import sys
import time

from tests.bench.lines import Line
from tests.bench.stand import Stand
from tests.bench.tables import HTTP, MANY
from tests.services import DEMO_ANSWERS, ROOT, DemoBackend

PEOPLE = 20


def steady(stand: Stand) -> list[Line]:
    """(j) The CPU of 4,000 jobs of 20 browsers, an interval of 1 s and `poll_many`, in sum."""
    (jobs,) = stand.sizes("steady", (400,) if stand.options.quick else (4_000,))
    folder = stand.folder("backend")
    folder.mkdir()
    backend = DemoBackend(folder)
    try:
        backend.start()
        tables = HTTP.format(url=backend.url, many=MANY, answers=DEMO_ANSWERS, interval=1.0)
        limits = {"PROGROCK_MAX_ACTIVE_JOBS": "1000000", "PROGROCK_MAX_STARTS_AN_HOUR": "0"}
        others = {"backend": backend.process.pid}
        with stand.stack(tables, others=others, env=limits) as up:
            up.start_web()
            command = [sys.executable, "-m", "tests.bench.people", up.ws_url]
            command += ["--people", str(PEOPLE), "--jobs", str(jobs)]
            command += ["--seconds", str(stand.options.seconds)]
            client = subprocess.Popen(
                command, env=up.env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            assert client.stdin
            assert client.stdout
            try:
                started = json.loads(client.stdout.readline())
                print(f"  {jobs} jobs started in {started['seconds']:.1f} s", flush=True)
                time.sleep(4 if stand.options.quick else 16)
                client.stdin.write(b"\n")
                client.stdin.flush()
                found = up.measure(stand.options.seconds)
                seen = json.loads(client.stdout.readline())
            finally:
                client.kill()
                client.wait()
    finally:
        backend.stop()
    cores = {role: found.rate * cost / 1e6 for role, cost in found.cpu.items()}
    said = ", ".join(f"{role} {part:.3f}" for role, part in cores.items())
    print(f"  {jobs:6} jobs {found}", flush=True)
    print(f"  {found.cores:.2f} cores: {said}; {seen['frames']:.0f} frames/s", flush=True)
    what = f"{jobs:,} jobs of {PEOPLE} browsers, progress moving: CPU in sum"
    detail = {**found.json(), "cores": cores, **seen}
    return [Line(what=what, value=found.cores, unit="cores", less=True, detail=detail)]
