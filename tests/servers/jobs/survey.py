"""A process of pygeoapi whose input `kind` says how its job goes. It runs in pygeoapi's venv."""

import time

from pygeoapi.process.base import BaseProcessor, ProcessorExecuteError

METADATA = {
    "version": "1.0.0",
    "id": "survey",
    "title": "Survey",
    "description": "Says how large an area is, or fails, or takes long.",
    "jobControlOptions": ["sync-execute", "async-execute"],
    "keywords": [],
    "links": [],
    "inputs": {"kind": {"title": "Kind", "schema": {"type": "string"}, "minOccurs": 1}},
    "outputs": {"points": {"title": "Points", "schema": {"type": "object"}}},
    "example": {"inputs": {"kind": "fine"}},
}


class Survey(BaseProcessor):
    """The process."""

    def __init__(self, definition):
        super().__init__(definition, METADATA)

    def execute(self, data, outputs=None):
        """Do what `kind` says; returns the MIME type and the output."""
        kind = data.get("kind")
        if kind == "broken":
            raise ProcessorExecuteError("the area has no edge")
        if kind == "slow":
            time.sleep(600)
        return "application/json", {"points": "x" * (100_000 if kind == "large" else 10)}
