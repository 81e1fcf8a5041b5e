"""How a request says that it would wait, and for how long."""

import pytest

from progrock.consumers.waits import preferred


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([], 0),
        ([b"wait=30"], 30),
        ([b"WAIT = 7"], 7),
        ([b"respond-async, wait=10"], 10),
        ([b"respond-async", b"wait=10;x=y, handling=lenient"], 10),
        ([b"wait=10, wait=20"], 10),  # the first counts (RFC 7240, 2)
        ([b"wait=999999999"], 60),
        ([b"wait=0"], 0),
        ([b"wait"], 0),
        ([b"wait=-1"], 0),
        ([b"wait=1.5"], 0),
        ([b"wait=soon"], 0),
        ([b"wait=\xb2"], 0),  # a digit to Python, but not to RFC 7240
        ([b"await=30"], 0),
        ([b"\xff\xfe"], 0),
    ],
)
def test_a_preference_says_how_many_seconds_to_wait(values: list[bytes], seconds: int) -> None:
    headers = [(b"accept", b"wait=5"), *((b"prefer", value) for value in values)]
    assert preferred(headers) == seconds
