"""Finds the jobs of some audiences in pages, newest first, for lists over HTTP.

The work for a page has a bound, however many jobs there are. A filter reads the next `WINDOW` jobs
of each audience and no more. If these hold too few, the next page reads on from there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Self

from django.db import connection

from progrock import ledger, sql
from progrock.ledger import Row
from progrock.ledger.table import TABLE
from progrock.models import ACTIVE

#: How many jobs of each audience are read to find those of a page with filters.
WINDOW = 5_000
#: Up to so many audiences get a query each, which follows the index. More share one query.
ONE_BY_ONE = 100

_CURSOR = re.compile(
    r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d{1,6})?)_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})",
    re.ASCII,
)


class Cursor(NamedTuple):
    """A place in the list: a job's time of creation, as text in UTC, and its id."""

    created: str
    job_id: str

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor that was written as this text by `str`. Raises ValueError for other texts."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError("it is no cursor")
        datetime.fromisoformat(f"{found[1]} {found[2]}")  # it refuses the 30th of February
        return cls(f"{found[1]} {found[2]}", found[3])

    def __str__(self) -> str:
        return f"{self.created.replace(' ', 'T')}_{self.job_id}"


@dataclass(frozen=True, kw_only=True)
class Query:
    """Which jobs are wanted. An empty field lets all of them through.

    `text` is a part of the label, the message or the id. `before` is the `after` of the page
    before. `limit` is how many jobs a page has.
    """

    states: frozenset[str] = frozenset()
    backend: str = ""
    text: str = ""
    before: Cursor | None = None
    limit: int = 50


class Page(NamedTuple):
    """Up to `limit` jobs, perhaps none. The next page is behind `after`; None: this is the last."""

    rows: list[Row]
    after: Cursor | None


def page(audiences: Sequence[str], query: Query) -> Page:
    """A page of the audiences' jobs. Large results are left out."""
    alone = [[each] for each in audiences]
    groups = alone if len(audiences) <= ONE_BY_ONE else [list(audiences)]
    found: list[Cursor] = []
    floor: Cursor | None = None  # jobs older than this have not been read in every audience
    for group in groups:
        places, last_read = _search(group, query)
        found += places
        floor = max(filter(None, (floor, last_read)), default=None)
    found = sorted((each for each in found if floor is None or each >= floor), reverse=True)
    shown = found[: query.limit]
    after = shown[-1] if len(found) > query.limit else floor
    rows = ledger.load([each.job_id for each in shown], results=True)
    return Page([rows[each.job_id] for each in shown if each.job_id in rows], after)


def _search(audiences: Sequence[str], query: Query) -> tuple[list[Cursor], Cursor | None]:
    """The places of the first jobs that fit: one more than the limit, if there are so many.

    The second value is the last place that was read, or None where the search came to the end.
    """
    wanted, values = _wanted(query)
    before, place = _before(query.before)
    names = ", ".join(["%s"] * len(audiences))
    mine, floor = f"audience IN ({names})", None
    if query.states and query.states <= frozenset(ACTIVE):
        # This condition leads the database to the index of active jobs, which is short.
        mine = f"{sql.unindexed('audience')} IN ({names}) AND due_slot >= 0"
    elif wanted:
        last = _places(f"{mine}{before}", [*audiences, *place], 1, skip=WINDOW - 1)
        floor = last[0] if last else None
    above, ground = _not_below(floor)
    condition, parameters = f"{mine}{before}{above}{wanted}", [*audiences, *place, *ground, *values]
    return _places(condition, parameters, query.limit + 1), floor


def _wanted(query: Query) -> tuple[str, list[str]]:
    """The condition of the filters, and its parameters."""
    parts: list[str] = []
    values: list[str] = []
    if query.states:
        parts.append(f"state IN ({', '.join(['%s'] * len(query.states))})")
        values += sorted(query.states)
    if query.backend:
        parts.append("backend = %s")
        values.append(query.backend)
    if query.text:
        like = "ILIKE" if sql.is_postgresql() else "LIKE"
        columns = ("label", "message", sql.id_text())
        parts.append(f"({' OR '.join(rf'{each} {like} %s ESCAPE %s' for each in columns)})")
        text = re.sub(r"([\\%_])", r"\\\1", query.text)
        id_text = text if sql.is_postgresql() else text.replace("-", "")
        values += [f"%{text}%", "\\", f"%{text}%", "\\", f"%{id_text or text}%", "\\"]
    return "".join(f" AND {part}" for part in parts), values


def _before(place: Cursor | None) -> tuple[str, list[str]]:
    return _beyond("<", place)


def _not_below(place: Cursor | None) -> tuple[str, list[str]]:
    return _beyond(">=", place)


def _beyond(operator: str, place: Cursor | None) -> tuple[str, list[str]]:
    """The condition for the jobs on one side of a place, and its parameters.

    "<" is for the jobs behind the place in the list, ">=" for those up to it.
    """
    if place is None:
        return "", []
    time, key = ("%s::timestamptz", "%s::uuid") if sql.is_postgresql() else ("%s", "%s")
    # The index holds only the times. A comparison of pairs alone would not always use it.
    condition = (
        f" AND created_at {operator[0]}= {time} AND (created_at, id) {operator} ({time}, {key})"
    )
    created = f"{place.created}+00" if sql.is_postgresql() else place.created
    return condition, [created, created, *sql.keys([place.job_id])]


def _places(condition: str, parameters: Sequence[Any], limit: int, skip: int = 0) -> list[Cursor]:
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {sql.utc_text('created_at')}, {sql.id_text()} FROM {TABLE}"
            f" WHERE {condition} ORDER BY created_at DESC, id DESC LIMIT {limit} OFFSET {skip}",
            parameters,
        )
        return [Cursor(created, sql.job_id(key)) for created, key in cursor.fetchall()]
