"""What people install: the wheel's files, what it says of itself, and what it needs."""

import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

from tests.embedded.conftest import build
from tests.services import ROOT

# Imports every module of the package in a project without any of its extras.
IMPORT_ALL = """
import importlib.util, pkgutil
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["progrock", "channels", "django.contrib.admin",
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"])
django.setup()
import progrock
names = [each.name for each in pkgutil.walk_packages(progrock.__path__, "progrock.")]
for name in names:
    importlib.import_module(name)
assert "progrock.broker.topology" in names and "progrock.consumers.hub" in names
for extra in ("csp", "dj_database_url", "psycopg", "servestatic", "uvloop"):
    assert not importlib.util.find_spec(extra), extra
"""


def files_of(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = files_of(wheel)
    assert {name.split("/")[0] for name in files} == {
        "progrock",
        "django_progrock-0.1.0.dist-info",
    }
    folders = {"progrock": ROOT / "site" / "progrock"}
    folders |= {f"progrock/{name}": ROOT / name for name in ("broker", "consumers")}
    shipped = ("site/config", "deploy/demo", "deploy/demo_backend")  # what `progrock demo` runs
    folders |= {f"progrock/_standalone/{name}": ROOT / name for name in shipped}
    written = {
        f"{name}/{path.relative_to(folder)}"
        for name, folder in folders.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    single = ("manage.py", "deploy/backends.toml", "deploy/rabbitmq/advanced.config")
    written |= {f"progrock/_standalone/{name}" for name in single}
    assert {name for name in files if name.startswith("progrock/")} == written
    assert "progrock/py.typed" in written
    assert "progrock/static/progrock/progrock.js" in written


def test_the_wheel_says_whose_it_is_and_who_may_use_it(wheel: Path) -> None:
    files = files_of(wheel)
    about = Parser().parsestr(files["django_progrock-0.1.0.dist-info/METADATA"].decode())
    assert about["Name"] == "django-progrock"
    assert about["License-Expression"] == "BSD-3-Clause"
    assert files["django_progrock-0.1.0.dist-info/licenses/LICENSE"] == (
        (ROOT / "LICENSE").read_bytes()
    )
    assert about.get_all("Provides-Extra") == ["postgres", "standalone"]


def test_a_wheel_from_the_sdist_is_the_same(wheel: Path, tmp_path: Path) -> None:
    sdist, from_sdist = sorted(build(tmp_path), key=lambda path: path.suffix)
    assert files_of(from_sdist) == files_of(wheel)
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() for member in archive), "no link that leads out of it"


def test_everything_can_be_imported_without_any_extra(bare_python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [bare_python, "-W", "error", "-c", IMPORT_ALL],
        cwd=tmp_path,
        env={"PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
