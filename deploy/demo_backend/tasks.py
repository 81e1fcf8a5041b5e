"""The demo backend's pretended jobs. Where a job stands follows from the clock alone."""

import math
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

STAGES = (
    "Reading the scene",
    "Placing the lights",
    "Rendering, first half of the frames",
    "Rendering, second half of the frames",
    "Encoding the film",
    "Uploading the film",
)
KEEP_ENDED = 600.0
LONGEST = 86_400.0
MOST_TASKS = 200_000
STALLS_AT, FAILS_AT = 60, 80.0


@dataclass(kw_only=True)
class Task:
    """One pretended job. `seconds` is how long it runs, other times are monotonic seconds.

    `forced` replaces parts of the task's answer.
    """

    id: str
    seconds: float
    outcome: str
    steps: int | None
    began: float = field(default_factory=time.monotonic)
    cancelled: float | None = None
    forced: dict[str, Any] = field(default_factory=dict)

    def percent(self) -> float:
        """Progress from 0 to 100, in steps where they were asked for.

        A task that stalls stops at 60, and one that fails ends at 80.
        """
        done = min(1.0, ((self.cancelled or time.monotonic()) - self.began) / self.seconds)
        if self.steps:
            done = math.floor(done * self.steps) / self.steps
        if self.outcome == "stall":
            return min(done * 100, STALLS_AT)
        return done * (FAILS_AT if self.outcome == "fail" else 100)

    def status(self) -> str:
        """running, done, failed or cancelled."""
        if self.cancelled:
            return "cancelled"
        if self.outcome == "stall" or time.monotonic() < self.began + self.seconds:
            return "running"
        return "failed" if self.outcome == "fail" else "done"

    def ends(self) -> float:
        """When it ends or has ended. A task that stalls counts as ended after a day."""
        return self.cancelled or self.began + (LONGEST if self.outcome == "stall" else self.seconds)

    def answer(self) -> dict[str, Any]:
        """The task as JSON, which answers each request about it."""
        status, percent = self.status(), self.percent()
        body: dict[str, Any] = {
            "id": self.id,
            "status": status,
            "percent": round(percent, 1),
            "stage": None,
        }
        if status == "running":
            body["stage"] = STAGES[min(len(STAGES) - 1, int(percent / 100 * len(STAGES)))]
        if status == "done":
            body["output"] = {
                "file": f"film-{self.id[:6]}.mp4",
                "frames": round(self.seconds * 24),
                "seconds": self.seconds,
            }
        if status == "failed":
            body["error"] = {"message": "The renderer ran out of memory while it encoded the film"}
        return body | self.forced


class Tasks:
    """All tasks, by id and by idempotency key. Forgets a task ten minutes after its end."""

    def __init__(self) -> None:
        self.by_id: dict[str, Task] = {}
        self.made = 0  # counts forgotten tasks as well
        self.by_key: dict[str, Task] = {}
        self._tidied = time.monotonic()

    def start(self, params: Any, key: str | None) -> Task:
        """A new task, or the one that this key has started before.

        Raises ValueError with a sentence for wrong params, and OverflowError when there are too
        many tasks.
        """
        if key and (known := self.by_key.get(key)):
            return known
        self._tidy()
        if len(self.by_id) >= MOST_TASKS:
            raise OverflowError
        task = Task(id=uuid.uuid4().hex, **_params(params))
        self.by_id[task.id] = task
        self.made += 1
        if key:
            self.by_key[key] = task
        return task

    def _tidy(self) -> None:
        now = time.monotonic()
        if now - self._tidied > KEEP_ENDED / 10:
            self._tidied = now
            self.by_id = {i: t for i, t in self.by_id.items() if now < t.ends() + KEEP_ENDED}
            self.by_key = {key: t for key, t in self.by_key.items() if t.id in self.by_id}


def _params(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise ValueError("The params must be an object")
    seconds, outcome = params.get("seconds", 10), params.get("outcome", "succeed")
    steps = params.get("steps")
    if type(seconds) not in (int, float) or not 0.05 <= seconds <= LONGEST:
        raise ValueError(f"seconds must be a number from 0.05 to {LONGEST:.0f}")
    if outcome not in ("succeed", "fail", "stall"):
        raise ValueError("outcome must be succeed, fail or stall")
    if steps is not None and (type(steps) is not int or not 1 <= steps <= 1000):
        raise ValueError("steps must be a whole number from 1 to 1000")
    return {"seconds": float(seconds), "outcome": outcome, "steps": steps}
