"""Fixtures: an environment that has the built wheel, as a project of somebody's own would install it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import ROOT


@pytest.fixture(scope="session")
def python(tmp_path_factory: Any) -> Path:
    """The Python of an environment that has the built wheel, and beside it what the lock file installs."""
    folder = tmp_path_factory.mktemp("embedded")
    uv = [sys.executable, "-m", "uv", "--quiet"]
    subprocess.run(
        [*uv, "build", "--wheel", "--out-dir", folder / "dist", ROOT], check=True, cwd=folder
    )
    subprocess.run([*uv, "venv", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    install = [*uv, "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*install, "--require-hashes", "-r", ROOT / "requirements.txt"], check=True)
    subprocess.run([*install, "--no-deps", next((folder / "dist").glob("*.whl"))], check=True)
    return python
