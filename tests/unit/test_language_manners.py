"""How a worker treats a backend: pauses, rates, and when requests come back."""

from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, ConfigError
from progrock.backends.http.manners import Gate, retry_after
from tests.language import options


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def gate(rate: float | None, clock: Clock, draw: float = 0.5) -> Gate:
    return Gate(rate, clock, lambda: draw)


def sent_away(found: Gate, patience: float = 0.0) -> BackendError:
    with pytest.raises(BackendError) as raised:
        found.wait(patience)
    error = raised.value
    assert (error.asked, error.sent, error.final, error.status) == (False, False, False, None)
    return error


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("0.125", 0.125),
        (" 86400 ", 86400.0),
        ("999999999", 999999999.0),
        ("+7", None),
        ("7s", None),
        ("7, 8", None),
        ("1e3", None),
        ("-1", None),
        ("inf", None),
        ("\u0667", None),
        ("9" * 400, None),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
        ("Wed, 21 Oct 99999 07:28:00 GMT", None),
    ],
)
def test_retry_after_in_seconds_is_kept_exactly(text: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": text}, 0.0) == seconds
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        wanted = None if seconds is None else seconds / 1000
        assert retry_after({name: text}, 0.0) == wanted


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_date_is_so_many_seconds_after_the_answers_own(sent: int, wait: int) -> None:
    def date(seconds: int) -> str:
        return format_datetime(datetime.fromtimestamp(1.4e9 + seconds, UTC), usegmt=True)

    headers = {"retry-after": date(sent + wait), "date": date(sent)}
    assert retry_after(headers, 0.0) == wait


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_header_breaks_the_reading(one: str, other: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        found = retry_after({name: one, "date": other}, 1e9)
        assert found is None or found >= 0


def test_a_closed_backend_is_closed_for_exactly_so_long() -> None:
    clock = Clock()
    found = gate(None, clock)
    found.close(30.0)
    found.close(10.0)  # the longer pause counts
    clock.now += 29.99
    assert sent_away(found).retry_after == pytest.approx(0.51)
    clock.now += 0.02
    assert found.wait(0.0) == 0.0


@pytest.mark.parametrize("pause", [0.5, 5.0, 3600.0])
def test_those_who_are_sent_away_come_back_after_the_pause_and_spread_out(pause: float) -> None:
    waits = []
    for draw in (0.0, 0.5, 0.999):
        found = gate(None, Clock(), draw)
        found.close(pause)
        waits.append(sent_away(found).retry_after or 0.0)
    assert waits[0] == pytest.approx(pause)
    assert pause < waits[1] < waits[2] <= pause + 10.0


@pytest.mark.parametrize("rate", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("patience", [0.0, 1.0, 5.0])
def test_requests_leave_no_faster_than_the_rate(rate: float, patience: float) -> None:
    clock = Clock()
    found = gate(rate, clock)
    leaves: list[float] = []
    come_back: list[float] = [clock.now] * 60
    while come_back:
        come_back.sort()
        clock.now = max(clock.now, come_back.pop(0))
        try:
            leaves.append(clock.now + found.wait(patience))
        except BackendError as error:
            come_back.append(clock.now + (error.retry_after or 0.0))
    assert len(leaves) == 60
    gaps = [after - before for before, after in pairwise(sorted(leaves))]
    assert min(gaps) >= 1 / rate - 1e-6
    assert max(leaves) - 1000.0 <= 3 * 60 / rate + 10.0  # and the rate is nearly used


def test_a_rate_that_was_not_used_is_not_saved_up() -> None:
    clock = Clock()
    found = gate(10.0, clock)
    clock.now += 1000.0
    assert [round(found.wait(9.0), 6) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_a_pause_is_stronger_than_the_rate() -> None:
    clock = Clock()
    found = gate(10.0, clock)
    assert found.wait(1.0) == 0.0
    found.close(30.0)
    assert (sent_away(found, 1.0).retry_after or 0.0) >= 30.0
    with pytest.raises(BackendError):
        found.check()
    clock.now += 30.0
    found.check()


@pytest.mark.parametrize("rate", ["0", "-1", '"10"', "true", "inf", "nan"])
def test_a_wrong_rate_is_told(rate: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] rate"):
        options(rate=rate)
