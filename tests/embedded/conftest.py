"""Fixtures: the built wheel, and environments into which projects of somebody's own install it."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import ROOT

UV = [sys.executable, "-m", "uv", "--quiet"]


def build(folder: Path, *kind: str) -> list[Path]:
    """Build what `kind` says with the hatchling of the lock; returns the files."""
    command = [*UV, "build", "--no-build-isolation", "--python", sys.executable, *kind]
    subprocess.run([*command, "--out-dir", folder, ROOT], check=True)
    return sorted(folder.glob("django_progrock*"))


def install(folder: Path, *packages: str) -> None:
    """Make an environment with these packages, at the versions of the lock."""
    subprocess.run([*UV, "venv", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [*UV, "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*command, "-c", ROOT / "requirements-dev.txt", *packages], check=True)


def shared(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this name that one process of the run makes, and all use.

    What is in it is not changed by a test, but for a package more in an environment.
    """
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, whole = base / name, base / f"{name} is whole"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
        if not whole.exists():
            make(folder)
            whole.touch()
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the repository."""
    folder = shared(tmp_path_factory, "wheel", lambda folder: build(folder, "--wheel"))
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel with all its extras."""
    every = f"django-progrock[standalone,postgres] @ {wheel.as_uri()}"
    folder = shared(tmp_path_factory, "extras", lambda folder: install(folder, every))
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel without extras, and a host's own tools."""
    bare = f"django-progrock @ {wheel.as_uri()}"
    own = ["uvicorn", "websockets", "pytest", "pytest-django"]
    folder = shared(tmp_path_factory, "bare", lambda folder: install(folder, bare, *own))
    return folder / "bin" / "python"
