"""What people call a job: its backend's template with its params in it; and what browsers see."""

from pathlib import Path
from typing import Any

import pytest

from progrock import wire
from progrock.backends import load
from progrock.backends.labels import LONGEST_LABEL, label_of
from progrock.backends.templates import text
from tests.jobs import row


def label(template: str, **params: Any) -> str:
    """The label of a job with these params."""
    return label_of(text("label", template, ("params",), variables=False), params)


@pytest.mark.parametrize(
    ("template", "params", "expected"),
    [
        ("{params.kind} for {params.customer}", {"kind": "Film", "customer": 7}, "Film for 7"),
        ("{params.kind} for {params.customer}", {"customer": "Ann"}, "… for Ann"),
        ("{params.kind} for {params.customer}", {"kind": "Film", "customer": None}, "Film for …"),
        ("{params.kind} for {params.customer}", {}, ""),
        ("{params.kind} for {params.customer}", {"kind": " ", "customer": []}, ""),
        ("nightly", {}, "nightly"),
        ("{params.size.width} px", {"size": {"width": 0}}, "0 px"),
        ("draft: {params.draft}", {"draft": False}, "draft: false"),
        ("{params.files}", {"files": ["a", "b"]}, '["a","b"]'),
        ("{params.files.1}", {"files": ["a", "b"]}, "b"),
        ("<b>{params.name}</b>", {"name": "<i>&"}, "<b><i>&</b>"),
        ("{params.name}", {"name": "a {params.kind}"}, "a {params.kind}"),
        ("{params.name}", {"name": "two\r\n lines\tand\u2028more"}, "two lines and more"),
        ("{params.name}", {"name": "gpj.\u202eexe\u200b"}, "gpj. exe"),
        ("{params.name}", {"name": "👩\u200d🚀 é"}, "👩\u200d🚀 é"),
    ],
)
def test_a_label_is_one_line_of_plain_text(
    template: str, params: dict[str, Any], expected: str
) -> None:
    assert label(template, **params) == expected


def test_a_label_is_not_longer_than_the_ledger_holds() -> None:
    assert label("{params.name}", name="x" * LONGEST_LABEL) == "x" * LONGEST_LABEL
    cut = label("{params.name}", name="x" * 60_000)
    assert (len(cut), cut[-2:]) == (LONGEST_LABEL, "x…")


def test_a_job_without_a_label_has_null_in_its_frame() -> None:
    assert wire.job_frame(row())["label"] is None
    assert wire.job_frame(row(label="Film for Ann"))["label"] == "Film for Ann"
    assert label_of(None, {"kind": "Film"}) == ""


def test_a_snapshot_says_how_to_start_only_what_browsers_may_start(tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    table = """
        url = "http://127.0.0.1"
        start = { path = "/t" }
        poll = { path = "/t/{handle}" }
        handle = "id"
        state = "status"
        states = { succeeded = ["done"] }
        title = "Films"
        label = "{params.kind} for {params.customer.name}"
        params = { type = "object", required = ["kind"] }
    """
    file.write_text(f"[open]\nbrowser = true\n{table}\n[closed]\n{table}")
    seen, hidden = wire.snapshot_frame([], load(file))["backends"]
    assert seen["title"] == hidden["title"] == "Films"
    assert seen["label"] == "{params.kind} for {params.customer.name}"
    assert seen["params"] == {"type": "object", "required": ["kind"]}
    assert (hidden["start"], hidden["label"], hidden["params"]) == (False, None, None)
