"""Fixtures: the built wheel, and environments into which projects of somebody's own install it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.services import ROOT

UV = [sys.executable, "-m", "uv", "--quiet"]


def build(folder: Path, *kind: str) -> list[Path]:
    """Build what `kind` says with the hatchling of the lock; returns the files."""
    command = [*UV, "build", "--no-build-isolation", "--python", sys.executable, *kind]
    subprocess.run([*command, "--out-dir", folder, ROOT], check=True)
    return sorted(folder.glob("django_progrock*"))


def install(folder: Path, *packages: str) -> Path:
    """An environment with these packages, at the versions of the lock; returns its Python."""
    subprocess.run([*UV, "venv", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    command = [*UV, "pip", "install", "--compile-bytecode", "--python", python]
    subprocess.run([*command, "-c", ROOT / "requirements-dev.txt", *packages], check=True)
    return python


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: Any) -> Path:
    """The wheel, built from the repository."""
    (wheel,) = build(tmp_path_factory.mktemp("wheel"), "--wheel")
    return wheel


@pytest.fixture(scope="session")
def python(wheel: Path, tmp_path_factory: Any) -> Path:
    """The Python of an environment that has the wheel with all its extras."""
    every = f"django-progrock[standalone,postgres] @ {wheel.as_uri()}"
    return install(tmp_path_factory.mktemp("extras") / "venv", every)


@pytest.fixture(scope="session")
def bare_python(wheel: Path, tmp_path_factory: Any) -> Path:
    """The Python of an environment that has the wheel without extras, and a host's own tools."""
    bare = f"django-progrock @ {wheel.as_uri()}"
    own = ["uvicorn", "websockets", "pytest", "pytest-django"]
    return install(tmp_path_factory.mktemp("bare") / "venv", bare, *own)
