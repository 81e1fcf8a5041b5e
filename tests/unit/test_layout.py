"""The layout: which folder is a package, and that imports run one way."""

import site
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]


def test_the_folder_site_is_never_a_package() -> None:
    assert not (ROOT / "site" / "__init__.py").exists()
    assert Path(site.__file__).parent != ROOT / "site"


def test_imports_run_one_way_and_only_broker_knows_amqp() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0
