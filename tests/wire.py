"""docs/asyncapi.yaml as a judge of frames: whatever a test receives must fit its schemas."""

from functools import cache
from typing import Any

import yaml
from jsonschema import Draft7Validator
from referencing import Registry
from referencing.jsonschema import DRAFT7

from tests.services import ROOT

WHERE = "urn:asyncapi"


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
    return found


@cache
def judge_of(message: str) -> Draft7Validator:
    """The judge of a message's payload, by its name. AsyncAPI's schemas are of draft 7."""
    registry: Registry[Any] = Registry().with_resource(WHERE, DRAFT7.create_resource(document()))
    at = f"{WHERE}#/components/messages/{message}/payload"
    return Draft7Validator({"$ref": at}, registry=registry)


def fits(message: str, payload: Any) -> None:
    """Assert that a payload fits the schema of a message."""
    error = next(judge_of(message).iter_errors(payload), None)
    assert error is None, f"docs/asyncapi.yaml: {error.message} in {payload}"


def checked(frame: dict[str, Any]) -> dict[str, Any]:
    """A frame from the server, which is as the document says."""
    kind = frame.get("type")
    assert kind in document()["channels"]["socket"]["messages"], f"no such frame: {frame}"
    fits(kind, frame)
    return frame
