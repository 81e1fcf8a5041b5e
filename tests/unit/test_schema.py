"""The JSON Schema of the backends' file, for editors: it says what the reader says."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from progrock.backends import ConfigError, load
from progrock.backends.config import COMMON, OF_A_CLASS
from progrock.backends.http.table import http_keys
from progrock.backends.keys import REQUIRED, Key

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "site/progrock/backends/backends.schema.json"
SCHEMA: dict[str, Any] = json.loads(FILE.read_text())
FILES = [ROOT / "deploy/backends.toml", *sorted((ROOT / "site/progrock/recipes").glob("*.toml"))]
LEAST = """
[render]
url = "https://render.internal"
start.path = "/tasks"
poll.path = "/tasks/{handle}"
handle = "id"
state = "status"
states = { running = ["busy"], succeeded = ["ok"] }
"""


def complaints(text: str) -> list[str]:
    """What is wrong with a file by the schema."""
    errors = Draft7Validator(SCHEMA).iter_errors(tomllib.loads(text))
    return [error.message for error in errors]


def test_it_is_a_schema_and_describes_each_key() -> None:
    Draft7Validator.check_schema(SCHEMA)

    def described(properties: Mapping[str, Any]) -> None:
        for name, each in properties.items():
            assert each.get("description") or "$ref" in each, name
            described(each.get("properties", {}))

    for kind in ("http", "class"):
        described(SCHEMA["definitions"][kind]["properties"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_accepts_what_ships(file: Path) -> None:
    assert load(file)
    assert complaints(file.read_text()) == []


def levels(keys: Mapping[str, Key], schema: Any, at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Each table of the reader beside the same table of the schema: keys, and those required."""
    properties = schema["properties"]
    required = {name for name, key in keys.items() if key.default is REQUIRED}
    if at == ".states":
        required = {"succeeded"}  # its key wants it
    yield at, (set(keys), required), (set(properties), set(schema.get("required", [])))
    for name, key in keys.items():
        if key.keys:
            yield from levels(key.keys, properties[name], f"{at}.{name}")
            assert properties[name]["additionalProperties"] is False, name


def test_it_knows_exactly_the_keys_of_the_reader() -> None:
    http, of_a_class = (SCHEMA["definitions"][kind] for kind in ("http", "class"))
    for at, ours, theirs in levels(COMMON | http_keys(""), http):
        assert theirs == ours, at
    assert http["additionalProperties"] is False
    assert of_a_class["properties"].keys() == (OF_A_CLASS | http_keys("")).keys()
    assert of_a_class["required"] == ["class"]


def test_the_defaults_and_limits_are_those_of_the_reader(tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    properties = SCHEMA["definitions"]["http"]["properties"]
    for name, key in (COMMON | http_keys("")).items():
        least = LEAST if name == "interval" else f"{LEAST}\ninterval = 0.1"  # for `unwatched`
        if "default" in properties[name]:
            found = properties[name]["default"]
            assert (tuple(found) if isinstance(found, list) else found) == key.default, name
        for limit in ("minimum", "maximum"):
            if (value := properties[name].get(limit)) is not None:
                file.write_text(f"{least}\n{name} = {value:.10g}")
                load(file)
                beyond = value * 2 if limit == "maximum" else value - 1 if value > 1 else -1
                file.write_text(f"{least}\n{name} = {beyond:.10g}")
                assert complaints(file.read_text()), (name, limit)
                with pytest.raises(ConfigError):
                    load(file)


@pytest.mark.parametrize(
    "line",
    [
        "timeot = 5",
        'starts = { path = "/x" }',
        'poll_many = { path = "/t?i={handles}", itmes = "jobs", id = "id" }',
        'poll_many = { path = "/t?i={handles}" }',
        'cancel = { path = "/t/{handle}", repeat = true }',
        'fetch = { path = "/t/{handle}", read = "xml" }',
        'progress = { done = "a" }',
        'message = { headr = "X" }',
        'states.finished = ["x"]',
        "states.failed = [77]",
        'interval = "5"',
        "shards = 1.5",
        "repeat = false",
        'auth = { token_url = "https://x" }',
    ],
)
def test_it_refuses_what_the_reader_refuses(line: str, tmp_path: Path) -> None:
    text = f"{LEAST}{line}\n".replace("states = {", "states = {" if "states." not in line else "#")
    if line.startswith("states."):
        text += 'states.running = ["busy"]\nstates.succeeded = ["ok"]\n'
    file = tmp_path / "backends.toml"
    file.write_text(LEAST)
    assert load(file)
    assert complaints(LEAST) == []
    file.write_text(text)
    with pytest.raises(ConfigError):
        load(file)
    assert complaints(text)


def test_it_leaves_the_keys_of_a_class_alone() -> None:
    assert complaints('[gpu]\nclass = "mysite.gpu.Gpu"\nzone = "eu-1"\ninterval = 2') == []
    assert complaints('[gpu]\nclass = "mysite.gpu.Gpu"\ninterval = "2"')
    assert complaints('[Gpu]\nclass = "mysite.gpu.Gpu"')
