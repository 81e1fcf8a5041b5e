"""Tells in words what was decided about a job after a call."""

from collections.abc import Callable
from typing import Any

from progrock.backends import BackendError, Status
from progrock.lifecycle import Decision
from progrock.models import State
from progrock.trial.hints import written


def decided(decision: Decision, outcome: object, clean: Callable[[Any], Any]) -> str:
    """What happens to the job now, and why. `clean` makes a copy of a value without secrets."""
    if isinstance(outcome, BackendError):
        return _after_an_error(decision, outcome)
    if isinstance(outcome, Status):
        told = [_state(decision, outcome)]
        if decision.progress is not None:
            told.append(f"{decision.progress:g} %")
        values = {name: getattr(outcome, name) for name in ("message", "error", "result")}
        told += [f"{name} {written(clean(each))}" for name, each in values.items() if each]
        if decision.error and not (outcome.error or "").startswith(decision.error):
            told.append(decision.error)
        return ", ".join(told) + _next(decision)
    if decision.delay is None:
        return f"{decision.state}{f': {decision.error}' if decision.error else ''}"
    return f"started, its handle is {written(clean(decision.handle))}{_next(decision)}"


def _state(decision: Decision, status: Status) -> str:
    if decision.delay is None or status.state != "running":
        return str(decision.state)
    if status.cancelling:
        return "the backend has taken the cancel and needs time"
    if decision.attempts:
        return "still running, since the backend refused to cancel it"
    if status.handle is not None:
        return f"running, with the new handle {written(decision.handle)}"
    return "running"


def _after_an_error(decision: Decision, error: BackendError) -> str:
    if decision.delay is None:
        return f"{decision.state}: {decision.error}"
    if not error.asked:
        return f"nothing was sent: {error.sentence}{_next(decision)}"
    if decision.state == State.RUNNING:
        return f"nobody can say where the job stands: {error.sentence}"
    return f"not started: {error.sentence}"


def _next(decision: Decision) -> str:
    return "" if decision.delay is None else f"; the next request in {decision.delay:.3g} s"
