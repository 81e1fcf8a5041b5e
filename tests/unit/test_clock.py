"""The time by which all processes go: corrected where it is surely wrong, and loud about that."""

import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from progrock import sql
from tests.fresh import fresh
from tests.logs import own


class Machine:
    """A database whose time and slowness a test sets, and the two clocks of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real = 1_800_000_000.0  # the database's time
        self.wrong = 0.0  # by how much this machine's clock is ahead
        self.slow = 0.0  # seconds that the question takes, and then the answer
        self.asked = 0
        self.counters: set[int] = set()  # which of the system's clocks were read
        monkeypatch.setattr(sql, "execute", self.execute)
        monkeypatch.setattr(sql, "now_as_epoch", lambda: "")
        monkeypatch.setattr(time, "clock_gettime", self.count)
        monkeypatch.setattr(time, "time", lambda: self.real + self.wrong)

    def process(self, ahead: float) -> Any:
        """The module `progrock.clock` of a process that begins with a clock so far ahead."""
        self.wrong = ahead
        clock = fresh("progrock.clock")
        clock.connection = SimpleNamespace(ensure_connection=lambda: None)
        return clock

    def count(self, counter: int) -> float:
        self.counters.add(counter)
        return self.real - 1_700_000_000.0

    def execute(self, *statement: Any) -> Any:
        self.asked += 1
        self.real += self.slow
        answer = self.real
        self.real += self.slow
        return [[answer]]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize("ahead", [120.0, -120.0, 600.0, 0.5, -86_400.0])
def test_a_clock_that_is_off_is_corrected_and_goes_on_from_there(
    machine: Machine, ahead: float
) -> None:
    clock = machine.process(ahead)
    assert clock.now() == pytest.approx(machine.real + ahead)
    clock.measure()
    assert clock.now() == pytest.approx(machine.real, abs=0.01)
    assert clock.off_by() == pytest.approx(ahead, abs=0.01)
    machine.real += 1000.0
    assert clock.now() == pytest.approx(machine.real, abs=0.01)


def test_a_clock_that_somebody_sets_changes_nothing_once_it_was_measured(
    machine: Machine,
) -> None:
    clock = machine.process(0.0)
    clock.measure()
    machine.wrong = 3600.0
    assert clock.now() == pytest.approx(machine.real, abs=0.01)
    assert clock.trouble() == "the clock of this machine is 3600.0 s ahead of the database's"


def test_a_slow_answer_spoils_nothing(machine: Machine) -> None:
    clock = machine.process(0.0)
    machine.slow = 4.0
    clock.measure()
    assert clock.now() == machine.real, "all that was heard fits a clock that is right"
    clock = machine.process(120.0)
    clock.measure()
    assert abs(clock.now() - machine.real) <= 4.01, "it may be off by the way of the answer"
    machine.slow = 0.001
    clock.measure()
    assert abs(clock.now() - machine.real) <= 0.01


def test_a_right_clock_is_left_alone_to_the_last_digit(machine: Machine) -> None:
    clock = machine.process(0.0)
    machine.slow = 0.0004
    for _ in range(100):
        clock.measure()
        assert clock.now() == machine.real


def test_the_database_is_asked_at_first_and_then_once_a_minute(machine: Machine) -> None:
    clock = machine.process(60.0)
    for _ in range(5):
        assert clock.measured() == pytest.approx(machine.real, abs=0.01)
    assert machine.asked == 1
    machine.real += 61.0
    clock.measured()
    assert machine.asked == 2


def test_a_clock_that_is_off_is_told_once_and_so_is_its_recovery(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    clock = machine.process(0.9)
    clock.measure()
    assert own(caplog) == []
    for ahead, lines in ((120.0, 1), (120.3, 1), (-30.0, 2), (0.2, 3), (0.0, 3), (-0.9, 3)):
        machine.wrong = ahead
        clock.measure()
        assert len(own(caplog)) == lines, (ahead, caplog.messages)
    assert [record.levelname for record in own(caplog)] == ["ERROR", "ERROR", "WARNING"]
    messages = [record.getMessage() for record in own(caplog)]
    assert messages[0].startswith("the clock of this machine is 120.0 s ahead of the database's: ")
    assert "30.0 s behind the database's" in messages[1]


def test_the_span_of_a_suspended_machine_is_counted(machine: Machine) -> None:
    machine.process(0.0).elapsed()
    assert machine.counters == {getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)}
