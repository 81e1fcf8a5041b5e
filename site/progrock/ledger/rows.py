"""The rows of the ledger: what a job looks like in the code, and how it is read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from progrock import clock, milestones, sql
from progrock.ledger.table import ATTENTION, TABLE
from progrock.milestones import Event, Milestone
from progrock.models import ACTIVE, Job

#: A result above so many bytes of compact JSON stays out of frames; `GET /jobs/<id>` gives it.
LARGE_RESULT = 16_384


@dataclass(slots=True)
class Row:
    """A job as the ledger holds it.

    `due_at` is when the next step is due at the latest. `params` is JSON text. Times are in seconds
    since the epoch, except `created` and `ended`, which are text in UTC. `missing_at` is since when
    the backend says that it does not know the job, or refuses to start it. `owed`: the job has
    ended, and its `job_finished`, or the last cancel at its backend, may not have been sent.
    `watched` is whether somebody watches the job; true where that was not asked for.

    The fields from `params` on have their defaults in a row that was read for a look. `result` is
    None where it was not asked for. `result_size` is its length in bytes of compact JSON, and None
    where there is no result. `milestones` is the column that `progrock.milestones` reads, and empty
    where it was not asked for.
    """

    id: str
    backend: str
    state: str
    handle: str
    progress: float | None
    message: str
    turn: int
    due_at: float
    deadline_at: float
    missing_at: float | None
    attempts: int
    crashes: int
    sweeps: int
    cancel_requested: bool
    cancel_taken: bool
    owed: bool
    watched: bool = True
    params: str = ""
    audience: str = ""
    request: str | None = None
    label: str = ""
    result: Any = None
    result_size: int | None = None
    error: str = ""
    version: int = 0
    created: str = ""
    ended: str | None = None
    milestones: str = ""

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE

    @property
    def story(self) -> list[Event]:
        """The job's milestones, for a row that was read with them."""
        return milestones.told(
            self.milestones,
            created=_utc(self.created),
            ended=_utc(self.ended) if self.ended else None,
            state=self.state,
            error=self.error,
        )


class Committed(NamedTuple):
    """A change of a job that stands in the ledger.

    `row` is the job after it. `delay` is how many seconds later the next poll task is due; None
    where no task follows. `visible` says whether browsers see a difference. `milestone` is which
    one the change is, if any. `due` is when the task is due (epoch seconds), where that is not the
    row's `due_at`.
    """

    row: Row
    delay: float | None
    visible: bool
    milestone: Milestone | None = None
    due: float | None = None


# Reading


def load(
    job_ids: Iterable[str],
    *,
    results: bool = False,
    large: bool = False,
    attention: bool = False,
) -> dict[str, Row]:
    """The jobs of these ids, by id; unknown ids are absent.

    `results` reads their results as well, but for large ones; `large` reads those, too, and the
    milestones. `attention` reads whether somebody watches them.
    """
    result = "result" if large else small_result() if results else "NULL"
    chosen = columns(sql.is_postgresql(), result, attention=attention, story=large)
    return _listed(chosen, job_ids, attention=attention)


def load_for_looks(
    job_ids: Iterable[str], *, params: bool = True, attention: bool = False
) -> dict[str, Row]:
    """What a look needs of these jobs, by id: each row has its fields up to `watched`.

    Most looks find nothing new, and nobody needs the rest. `commit` fills in what a browser sees of
    a job that has changed. `params` reads those as well, and `attention` whether somebody watches.
    """
    chosen = columns(sql.is_postgresql(), None, attention=attention, params=params)
    return _listed(chosen, job_ids, attention=attention)


def _listed(chosen: str, job_ids: Iterable[str], *, attention: bool) -> dict[str, Row]:
    rows = [[key] for key in sql.keys(job_ids)]
    return select(chosen, f"WHERE {sql.is_listed()}", rows, ("n_id",), attention=attention)


def beginning_with(digits: str) -> list[Row]:
    """Up to two jobs whose ids begin so, with their milestones.

    Raises ValueError for what is not the beginning of an id.
    """
    plain = digits.replace("-", "")
    first, last = (str(UUID(plain.ljust(32, each))) for each in "0f")
    found = Job.objects.filter(id__range=(first, last)).values_list("pk", flat=True)[:2]
    return list(load((str(key) for key in found), large=True).values())


# Columns


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def small_result() -> str:
    """The expression for a result that is NULL where it is large."""
    return f"CASE WHEN result_size <= {LARGE_RESULT} THEN result END"


def looked_at() -> list[str]:
    """The fields of a row that are read for each look."""
    names = [each.name for each in fields(Row)]
    return names[: names.index("watched") + 1]


@cache
def columns(
    postgresql: bool,
    result: str | None,
    *,
    attention: bool = False,
    story: bool = False,
    params: bool = True,
) -> str:
    """What is selected for a Row, in the order of its fields.

    The answer is kept for each kind of database. `result` is the expression for the results. With
    None, only the fields that a look needs are selected, and the params where they are asked for.
    With `attention` the text has a parameter: the time of reading. `story` adds the milestones.
    """
    names = [each.name for each in fields(Row)]
    if result is None:
        names = looked_at() + ["params"] * params
    elif not story:
        names.remove("milestones")
    given = {"result": result or "NULL"}
    if not attention:
        given["watched"] = "TRUE"
    return ", ".join(given.get(name) or expression(name) for name in names)


def expression(field: str) -> str:
    """How a field of Row is read. A field without a rule of its own is the column of its name."""
    match field:
        case "id":
            return sql.id_text()
        case "params":
            return sql.json_text("params")
        case "due_at" | "deadline_at" | "missing_at":
            return sql.epoch(field)
        case "created" | "ended":
            return sql.utc_text(f"{field}_at")
        case "owed":
            return "owed_at IS NOT NULL"
        case "watched":
            return (
                f"EXISTS (SELECT 1 FROM {ATTENTION} a"
                f" WHERE a.audience = {TABLE}.audience AND a.until > %s)"
            )
    return field


def select(
    chosen: str,
    where: str,
    rows: Sequence[Sequence[object]],
    names: Sequence[str],
    *,
    attention: bool = False,
) -> dict[str, Row]:
    """The jobs, by id, that a condition finds.

    `chosen` is of `columns`; `rows` and `names` are the table `v` (`progrock.sql`).
    """
    more = [sql.time_text(clock.now())] if attention else []
    jobs = {}
    for values in sql.execute(f"SELECT {chosen} FROM {TABLE} {where}", rows, names, more):
        row = Row(*values)
        row.id = sql.job_id(row.id)
        if row.result is not None:
            row.result = sql.loads(row.result)
        row.cancel_requested, row.cancel_taken = bool(row.cancel_requested), bool(row.cancel_taken)
        row.owed, row.watched = bool(row.owed), bool(row.watched)
        jobs[row.id] = row
    return jobs
