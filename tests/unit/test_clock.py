"""The time by which all processes go: corrected where it is surely wrong, and loud about that."""

import logging
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from progrock import clock
from tests.logs import own


class Database:
    """A database whose clock and whose slowness a test sets; and the process's own clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = 1_800_000_000.0  # the database's time
        self.wrong = 0.0  # by how much this machine's clock is ahead
        self.slow = 0.0  # seconds that the question takes, and then the answer
        monkeypatch.setattr(clock, "connection", SimpleNamespace(ensure_connection=lambda: None))
        monkeypatch.setattr(clock.sql, "execute", self.execute)
        monkeypatch.setattr(clock.sql, "now_as_epoch", lambda: "")
        monkeypatch.setattr(clock, "elapsed", lambda: self.real - 1_700_000_000.0)
        monkeypatch.setattr(time, "time", lambda: self.real + self.wrong)
        monkeypatch.setattr(clock, "_measured", None)
        monkeypatch.setattr(clock, "_logged", 0.0)
        self.set: Callable[[str, Any], None] = lambda name, to: monkeypatch.setattr(clock, name, to)

    def own(self, ahead: float) -> None:
        """This process has begun with a clock that is so far ahead."""
        self.wrong = ahead
        self.set("_start", 1_700_000_000.0 + ahead)

    def execute(self, *statement: Any) -> Any:
        self.asked = getattr(self, "asked", 0) + 1
        self.real += self.slow
        answer = self.real
        self.real += self.slow
        return [[answer]]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Database:
    return Database(monkeypatch)


@pytest.mark.parametrize("ahead", [120.0, -120.0, 600.0, 0.5, -86_400.0])
def test_a_clock_that_is_off_is_corrected_and_goes_on_from_there(
    database: Database, ahead: float
) -> None:
    database.own(ahead)
    assert clock.now() == pytest.approx(database.real + ahead)
    clock.measure()
    assert clock.now() == pytest.approx(database.real, abs=0.01)
    assert clock.off_by() == pytest.approx(ahead, abs=0.01)
    database.real += 1000.0
    assert clock.now() == pytest.approx(database.real, abs=0.01)


def test_a_clock_that_somebody_sets_changes_nothing_once_it_was_measured(
    database: Database,
) -> None:
    database.own(0.0)
    clock.measure()
    database.wrong = 3600.0
    assert clock.now() == pytest.approx(database.real, abs=0.01)
    assert clock.trouble() == "the clock of this machine is 3600.0 s ahead of the database's"


def test_a_slow_answer_spoils_nothing(database: Database) -> None:
    database.own(0.0)
    database.slow = 4.0
    clock.measure()
    assert clock.now() == database.real, "all that was heard fits a clock that is right"
    database.own(120.0)
    clock.measure()
    assert abs(clock.now() - database.real) <= 4.01, "it may be off by the way of the answer"
    database.slow = 0.001
    clock.measure()
    assert abs(clock.now() - database.real) <= 0.01


def test_a_right_clock_is_left_alone_to_the_last_digit(database: Database) -> None:
    database.own(0.0)
    database.slow = 0.0004
    for _ in range(100):
        clock.measure()
        assert clock.now() == database.real


def test_the_database_is_asked_at_first_and_then_once_a_minute(database: Database) -> None:
    database.own(60.0)
    for _ in range(5):
        assert clock.measured() == pytest.approx(database.real, abs=0.01)
    assert database.asked == 1
    database.real += 61.0
    clock.measured()
    assert database.asked == 2


def test_a_clock_that_is_off_is_told_once_and_so_is_its_recovery(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    database.own(0.9)
    clock.measure()
    assert own(caplog) == []
    for ahead, lines in ((120.0, 1), (120.3, 1), (-30.0, 2), (0.2, 3), (0.0, 3), (-0.9, 3)):
        database.wrong = ahead
        clock.measure()
        assert len(own(caplog)) == lines, (ahead, caplog.messages)
    assert [record.levelname for record in own(caplog)] == ["ERROR", "ERROR", "WARNING"]
    messages = [record.getMessage() for record in own(caplog)]
    assert messages[0].startswith("the clock of this machine is 120.0 s ahead of the database's: ")
    assert "30.0 s behind the database's" in messages[1]


def test_the_span_of_a_suspended_machine_is_counted() -> None:
    assert getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) == clock._COUNTER
    assert clock.elapsed() == pytest.approx(time.clock_gettime(clock._COUNTER), abs=1.0)
