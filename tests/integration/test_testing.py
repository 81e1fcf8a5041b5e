"""`progrock.testing` on PostgreSQL, where a TestCase keeps one connection with a transaction."""

import os
import subprocess
import sys

from tests.services import ROOT, Postgres


def test_a_projects_tests_run_on_postgresql(postgres_url: Postgres) -> None:
    env = os.environ | {"DATABASE_URL": postgres_url.new_database()}
    command = [sys.executable, "-W", "error", "manage.py", "test", "tests.unit.test_testing"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nOK" in done.stderr
