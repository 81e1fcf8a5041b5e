"""What the statements of the ledger have in common: names, conditions, and how times are kept."""

from progrock import sql
from progrock.models import ACTIVE, ENDED, State

TABLE = "progrock_job"
ATTENTION = "progrock_attention"


def _is_one_of(states: tuple[str, ...]) -> str:
    return f"state IN ({', '.join(repr(state) for state in states)})"


#: The conditions that a job is active, and that it has ended.
IS_ACTIVE = _is_one_of(ACTIVE)
HAS_ENDED = _is_one_of(ENDED)
#: The condition that an active job waits for a worker: one that is being started has its worker.
WAITS = _is_one_of((State.QUEUED.value, State.RUNNING.value))

#: The index of the sweep holds `due_at` rounded down to so many seconds (`due_slot`), so that steps
#: which follow each other closely do not touch it. A sweep finds candidates by it and then compares
#: `due_at`. It must be shorter than the least grace.
_SLOT = 5


def slot(seconds: float) -> int:
    """The `due_slot` of a time, given in seconds since the epoch."""
    return int(seconds // _SLOT)


def same_time(one: float, other: float) -> bool:
    """Whether two times are the same one. The database keeps microseconds."""
    return abs(one - other) < 2e-6


def contains(mark: str) -> str:
    """The condition that a line with this mark stands among the milestones."""
    return f"milestones LIKE '%%' || {mark} || '%%'"


def line(mark: str, text: str) -> str:
    """A line of the milestones, with the database's time. Both are columns or literals."""
    return f"{mark} || {sql.utc_text(sql.now())} || ' ' || {text}"
