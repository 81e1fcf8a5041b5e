"""The layout: which folder is a package, and that imports run one way."""

import site
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_site_is_never_a_package() -> None:
    assert not (ROOT / "site" / "__init__.py").exists()
    assert Path(site.__file__).parent != ROOT / "site"


def test_imports_run_one_way_and_only_broker_knows_amqp() -> None:
    """In its own process, because import-linter configures logging and silences later tests."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_import_before_the_apps_are_loaded_says_what_to_do_in_asgi_py() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import progrock.consumers.routing"],
        env={"PYTHONPATH": str(ROOT / "site"), "DJANGO_SETTINGS_MODULE": "config.settings"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "In asgi.py, call get_asgi_application() first" in done.stderr


def test_pytest_loads_the_plugin_in_any_project_without_django() -> None:
    code = "import sys, progrock.testing.pytest; sys.exit('django' in sys.modules)"
    env = {"PYTHONPATH": str(ROOT / "site")}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, check=False)
    assert done.returncode == 0
