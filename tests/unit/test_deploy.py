"""Generated files agree with their sources and name no machine."""

import json
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from progrock import command
from progrock.backends import load
from progrock.broker.operate.definitions import definitions
from progrock.broker.topology import Topology

ROOT = Path(__file__).resolve().parents[2]


def test_the_definitions_are_those_of_the_backends_and_of_the_demo_passwords() -> None:
    """`make topology-definitions` writes them."""
    found = re.findall(r"RABBITMQ_(\w+)_PASSWORD:-([\w-]+)", (ROOT / "compose.yaml").read_text())
    passwords = {user.lower(): password for user, password in found}
    assert passwords.keys() == {"web", "worker"}, (
        "the operator is a person: no program of ours logs in as one"
    )
    passwords["operator"] = "operator-demo"
    topology = Topology(
        {name: options.shards for name, options in load(ROOT / "deploy" / "backends.toml").items()}
    )
    written = json.loads((ROOT / "deploy" / "rabbitmq" / "definitions.json").read_text())
    assert written == definitions(topology, passwords)


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-dev.txt",
        "requirements-bench.txt",
        "requirements-servers.txt",
    ],
)
def test_a_lock_pins_everything_by_hash_and_names_no_machine(name: str) -> None:
    text = (ROOT / name).read_text()
    entries = re.findall(r"^[a-z].*(?:\n .*)*", text, re.MULTILINE)
    assert len(entries) > 20
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[\w.]+(?: ; .+)? \\\n    --hash=sha256:", entry), entry
    assert not re.search(r"://|index-url|find-links| @ |(?:^|[\s=])/", text)


def test_the_lock_of_the_test_pages_pins_everything_by_hash_and_names_no_machine() -> None:
    folder = ROOT / "tests" / "browser" / "frameworks"
    lock = json.loads((folder / "package-lock.json").read_text())
    about = json.loads((folder / "package.json").read_text())
    packages = lock["packages"]
    assert packages.pop("")["devDependencies"] == about["devDependencies"]
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name


def test_the_demo_asks_for_all_that_the_extra_of_the_package_brings() -> None:
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = extra["project"]["optional-dependencies"]["standalone"]
    of = packages_distributions()
    found = {name.lower() for module in command.NEEDED for name in of[module]}
    assert found == {re.split("[<>=~]", each)[0] for each in listed}
