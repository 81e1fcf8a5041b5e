"""`make demo` with real processes.

It runs a job, restarts what dies, leaves no process behind, and names a port that is taken.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from websockets.sync.client import connect

from deploy.demo.__main__ import PORTS
from deploy.demo.rabbitmq_node import free_port, installed
from tests.services import PATIENCE, ROOT, Process, http

DEMO = [sys.executable, "-m", "deploy.demo"]


@pytest.fixture
def demo_env(tmp_path: Path) -> dict[str, str]:
    """The environment of a demo that has free ports and its own data folder."""
    ports = {name: str(free_port()) for name in PORTS}
    kept = {name: value for name, value in os.environ.items() if name != "AMQP_URL"}
    return kept | ports | {"DEMO_DIRECTORY": str(tmp_path / "demo"), "DEBUG": "1"}


@pytest.fixture
def demo(demo_env: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    """A demo that is up."""
    if not installed():
        pytest.skip("RabbitMQ is not installed: `make test` installs it")
    process = Process("demo", DEMO, log=tmp_path / "demo.log", env=demo_env)
    try:
        yield process.start(lambda: "Ctrl-C stops everything" in process.output(), timeout=120)
    finally:
        process.stop(60)


def of_demo(env: dict[str, str], word: str = "") -> list[psutil.Process]:
    """The living processes of a demo, in no matter which process tree.

    `word` is part of their command line.
    """
    found = []
    for each in psutil.process_iter():
        try:
            ours = any(env["DEMO_DIRECTORY"] in value for value in each.environ().values())
            if ours and each.status() != psutil.STATUS_ZOMBIE and word in " ".join(each.cmdline()):
                found.append(each)
        except psutil.Error:
            continue  # It ended meanwhile, or belongs to another user.
    return found


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def run_a_job(env: dict[str, str], **params: float) -> list[float]:
    """Run a job as a client of 2017 did, which knows only start, progress and complete.

    Returns the values of progress that it was told. Such a client sends no params, and the job
    then takes 10 s.
    """
    port, seen = env["DEMO_WEB_PORT"], []
    with connect(
        f"ws://127.0.0.1:{port}/prog/",
        origin=f"http://127.0.0.1:{port}",
        proxy=None,
        open_timeout=PATIENCE,
    ) as socket_:
        socket_.send(json.dumps({"action": "start"} | ({"params": params} if params else {})))
        while True:
            frame = json.loads(socket_.recv(timeout=PATIENCE))
            if "complete" in frame:
                seen += [] if frame["progress"] is None else [frame["progress"]]
                if frame["complete"]:
                    return seen


def refused(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Start a demo that ends at once."""
    return subprocess.run(
        DEMO, env=env, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def names(env: dict[str, str]) -> list[str]:
    """The names of the demo's processes, of which some are short-lived."""
    found = []
    for each in of_demo(env):
        with suppress(psutil.Error):
            found.append(each.name())
    return found


def test_the_demo_runs_a_job_restarts_what_died_and_leaves_nothing_behind(
    demo: Process, demo_env: dict[str, str]
) -> None:
    assert "<html" in http("GET", f"http://127.0.0.1:{demo_env['DEMO_WEB_PORT']}/")
    assert "password" in demo.output()
    seen = run_a_job(demo_env)
    assert seen[-1] == 100
    assert len(seen) > 1
    assert seen == sorted(seen)

    worker, other = of_demo(demo_env, "runworker")
    worker.kill()
    until(lambda: len(alive := of_demo(demo_env, "runworker")) == 2 and worker not in alive)
    assert other.is_running(), "the other worker keeps running"

    (node,) = of_demo(demo_env, "rabbit boot")
    node.kill()
    until(lambda: (nodes := of_demo(demo_env, "rabbit boot")) and node not in nodes)
    until(lambda: names(demo_env).count("epmd") == 1)  # The old node's epmd has ended too.
    assert run_a_job(demo_env, seconds=1)[-1] == 100, "after RabbitMQ is back"

    os.kill(demo.pid, signal.SIGINT)
    assert demo.popen is not None
    assert demo.popen.wait(3 * PATIENCE) == 0, demo.output()
    until(lambda: of_demo(demo_env) == [])


def test_when_the_supervisor_is_killed_its_programs_end_too(
    demo: Process, demo_env: dict[str, str]
) -> None:
    os.kill(demo.pid, signal.SIGKILL)
    until(lambda: of_demo(demo_env) == [])


def test_a_port_that_is_taken_is_named_before_anything_starts(demo_env: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(demo_env["DEMO_WEB_PORT"])))
        taken.listen()
        done = refused(demo_env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"port {demo_env['DEMO_WEB_PORT']} is taken by " in line
    assert f"(process {os.getpid()})" in line
    assert "DEMO_WEB_PORT=" in line
    assert not Path(demo_env["DEMO_DIRECTORY"]).exists()


def test_a_port_that_is_no_number_is_named(demo_env: dict[str, str]) -> None:
    done = refused(demo_env | {"DEMO_AMQP_PORT": "rabbit"})
    assert done.returncode == 1
    assert done.stderr == "demo: DEMO_AMQP_PORT='rabbit': wanted a port, such as 5680\n"
