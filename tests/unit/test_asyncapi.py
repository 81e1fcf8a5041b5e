"""docs/asyncapi.yaml names all that the wire has, and its examples and those of wire.md fit it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from progrock.models import State
from tests.services import ROOT
from tests.unit.test_docs import first_cells, section, text_of, text_of_consumer
from tests.wire import checked, document, fits

MESSAGES: dict[str, Any] = document()["components"]["messages"]
SCHEMAS: dict[str, Any] = document()["components"]["schemas"]


def references(part: Any) -> Iterator[str]:
    """All references in a part of the document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for each in part.values():
            yield from references(each)
    elif isinstance(part, list):
        for each in part:
            yield from references(each)


def test_each_reference_leads_somewhere_and_each_message_has_its_operation() -> None:
    for reference in references(document()):
        found = document()
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]
    channels = document()["channels"]
    used = {name: set[str]() for name in channels}
    for operation in document()["operations"].values():
        channel = operation["channel"]["$ref"].split("/")[-1]
        used[channel] |= {each["$ref"].split("/")[-1] for each in operation["messages"]}
    assert used == {name: set(channel["messages"]) for name, channel in channels.items()}


def test_each_frame_and_each_action_of_the_code_has_a_message_and_no_other() -> None:
    senders = [ROOT / "site/progrock/wire.py", ROOT / "consumers/notices.py"]
    text = "".join(file.read_text() for file in senders)
    frames = set(re.findall(r'"type": ?"([a-z]+)"', text))
    actions = set(re.findall(r'case "([a-z]+)":', text_of_consumer()))
    channels = document()["channels"]
    assert set(channels["socket"]["messages"]) == frames | actions == set(MESSAGES)
    assert set(channels["stream"]["messages"]) == frames


def test_the_codes_are_those_of_the_wire_page() -> None:
    rows = section("wire.md", "### error").splitlines()
    elsewhere = ("only over HTTP", "only `progrock.start`")
    told = [row for row in rows if not any(each in row for each in elsewhere)]
    assert SCHEMAS["Code"]["enum"] == sorted(first_cells("\n".join(told)))


def test_the_socket_tells_its_close_codes() -> None:
    rows = section("wire.md", "## Close codes")
    told = set(re.findall(r"\b\d{4}\b", document()["channels"]["socket"]["description"]))
    assert told == set(re.findall(r"^\| (\d{4}) \|", rows, re.M)) - {"1006"}  # which nobody sends


def test_the_states_are_those_of_a_job() -> None:
    assert SCHEMAS["State"]["enum"] == [state.value for state in State]


@pytest.mark.parametrize("name", MESSAGES)
def test_the_examples_of_a_message_fit_it(name: str) -> None:
    for example in MESSAGES[name]["examples"]:
        fits(name, example["payload"])


@pytest.mark.parametrize("heading", ["## To the server", "## From the server"])
def test_the_examples_of_the_wire_page_fit(heading: str) -> None:
    page = text_of("wire.md")
    part = re.split(r"^## ", page.partition(f"\n{heading}\n")[2], flags=re.M)[0]
    examples = [json.loads(each) for each in re.findall(r"```json\n(.*?)```", part, re.S)]
    assert {each.get("action") or each["type"] for each in examples} == {
        name for name in MESSAGES if f"\n### {name}\n" in part
    }
    for example in examples:
        fits(example.get("action") or example["type"], example)


@pytest.mark.parametrize(
    "change",
    [
        {"state": "paused"},
        {"progress": 101},
        {"version": 0},
        {"created": "2026-03-01 12:00"},
        {"complete": True},
        {"result": {"film": "x"}},
        {"surprise": 1},
        {"state": "succeeded", "complete": True, "ended": "2026-03-01T12:00:01.000Z"},
    ],
)
def test_a_frame_that_is_not_as_the_document_says_is_found(change: dict[str, Any]) -> None:
    frame = MESSAGES["job"]["examples"][0]["payload"]
    checked(frame)
    with pytest.raises(AssertionError, match="asyncapi"):
        checked(frame | change)
