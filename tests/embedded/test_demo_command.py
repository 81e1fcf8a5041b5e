"""`progrock demo` where somebody has installed the wheel, far from the repository."""

import os
import signal
import subprocess
from pathlib import Path

from deploy.demo.__main__ import PORTS
from deploy.demo.rabbitmq_node import free_port
from tests.integration.test_demo import of_demo, run_a_job, until
from tests.services import PATIENCE, Process


def test_the_demo_runs_a_job_and_leaves_no_process_and_no_file_in_the_package(
    python: Path, tmp_path: Path
) -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    env = kept | {name: str(free_port()) for name in PORTS}
    [package] = python.parent.parent.glob("lib/python*/site-packages/progrock")
    before = files(package)
    command = ["env", "-C", str(tmp_path), str(python.with_name("progrock")), "demo"]
    demo = Process("demo", command, log=tmp_path / "demo.log", env=env)
    try:
        demo.start(lambda: "Ctrl-C stops everything" in demo.output(), timeout=120)
        assert run_a_job(env, seconds=1)[-1] == 100
        os.kill(demo.pid, signal.SIGINT)
        assert demo.popen
        assert demo.popen.wait(PATIENCE) == 0, demo.output()
    finally:
        demo.stop(60)
    until(lambda: not of_demo({"DEMO_DIRECTORY": str(tmp_path / ".progrock")}))
    assert (tmp_path / ".progrock" / "db.sqlite3").exists()
    assert files(package) == before


def files(folder: Path) -> set[Path]:
    """The files of a folder, but for what Python compiles."""
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_it_says_what_is_missing(bare_python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [bare_python.with_name("progrock"), "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "csp, dj_database_url, servestatic, uvloop cannot be imported" in done.stderr
    assert "pip install 'django-progrock[standalone]'" in done.stderr
