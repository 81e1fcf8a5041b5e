"""The README says what the code does: its settings table names what the settings read, its wire table the error codes."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SETTINGS = (ROOT / "site/config/settings.py").read_text()


def test_the_settings_table_names_each_variable_that_is_read() -> None:
    table = README.split("## Settings")[1].split("##")[0]
    told = re.findall(r"^\| `([A-Z_]+)` \|", table, re.M)
    read = re.findall(r'(?:environ\.get\(|environ\[|flag\(|number\()"([A-Z_]+)"', SETTINGS)
    assert sorted(told) == sorted(set(read))


def test_only_the_settings_read_the_environment() -> None:
    allowed = {
        "site/config/settings.py",
        "site/progrock/backends/config.py",
    }  # the latter: ${NAME} in backends.toml
    files = [
        *(ROOT / "broker").rglob("*.py"),
        *(ROOT / "consumers").rglob("*.py"),
        *(ROOT / "site").rglob("*.py"),
    ]
    reading = {
        str(file.relative_to(ROOT))
        for file in files
        if re.search(r"os\.environ(?!\.setdefault)", file.read_text())
    }
    assert reading - {"site/progrock/management/commands/topology.py"} == allowed


def test_the_wire_table_names_each_error_code() -> None:
    told = set(re.findall(r"`([a-z_]+)`", README.split("Codes: ")[1].split("|")[0]))
    sources = [*(ROOT / "consumers").rglob("*.py"), *(ROOT / "site/progrock").glob("*.py")]
    text = "".join(file.read_text() for file in sources)
    used = set(re.findall(r'(?:Refused|error_frame|_refuse)\(\s*(?:\w+, )?"([a-z_]+)"', text))
    assert told == used


def test_every_command_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.M))
    assert {"demo", "test"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.M), target
