"""Answers that are not JSON in the strict sense are read, and nothing changes without a word."""

import json
from datetime import date
from typing import Any

import orjson
import pytest

from progrock.backends import BackendError
from progrock.backends.http.answers import parse
from progrock.storable import storable_result

LONG = 12345678901234567890123


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\udf89"', "\ufffd"),
        (rb'"\ud83d\ud83c\udf89"', "\ufffd\U0001f389"),
        (rb'"\ud83c\udf89"', "\U0001f389"),
        (rb'"\\ud83d \ud83d"', "\\ud83d \ufffd"),
        (rb'{"status": "done", "\ud83d": [NaN]}', {"status": "done", "\ufffd": [None]}),
        (str(LONG).encode(), str(LONG)),
        (str(-LONG).encode(), str(-LONG)),
        (b"18446744073709551615", 18446744073709551615),
        (b"18446744073709551616", "18446744073709551616"),
        (b"-9223372036854775808", -9223372036854775808),
        (b"-9223372036854775809", "-9223372036854775809"),
        (b"9" * 5000, "9" * 5000),
        (b'["12345678901234567890123", 1e3]', ["12345678901234567890123", 1000.0]),
        (b"0.12345678901234567890123", 0.12345678901234567890123),
        (b"[1e999, 1]", [None, 1]),
    ],
)
def test_an_answer_is_read_and_mended(body: bytes, wanted: Any) -> None:
    assert parse(body) == wanted
    assert type(parse(body)) is type(wanted)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 5000, b"<html>", b"12345678901234567890x"]
)
def test_an_answer_that_is_no_json_is_an_error_of_the_backend(body: bytes) -> None:
    with pytest.raises(BackendError, match="not JSON"):
        parse(body)


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        (["ok \ud83d"], ["ok \ufffd"]),
        ({"n": LONG}, {"n": str(LONG)}),
        ({"n": LONG, "day": date(2026, 1, 2)}, {"n": str(LONG), "day": "2026-01-02"}),
        ({"n": LONG, "text": "\ud83d\0"}, {"n": str(LONG), "text": "\ufffd"}),
    ],
)
def test_the_result_of_a_class_is_mended_in_the_same_way(result: Any, kept: Any) -> None:
    found = storable_result(result)
    assert found.value == kept
    assert found.size == len(orjson.dumps(kept))


def circle() -> list[Any]:
    """A list that holds itself."""
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize("result", [{1, 2}, object(), circle(), json.loads("[" * 900 + "]" * 900)])
def test_a_result_that_json_cannot_hold_is_a_type_error(result: object) -> None:
    with pytest.raises(TypeError):
        storable_result(result)
