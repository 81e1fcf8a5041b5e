"""Pages of jobs on both databases: filters, cursors, and the bound of the work for a page."""

import random
import re
import uuid
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from progrock import listing, sql
from progrock.ledger import Row
from progrock.listing import Cursor, Query
from progrock.models import ACTIVE, Job
from tests.ledgers import at, make

MINE = ["user:1", "visitor:1"]


@pytest.fixture(autouse=True)
def empty(database: str) -> None:
    """No job is left of the test before."""
    Job.objects.all().delete()


def made(count: int, **changes: Any) -> list[Row]:
    """Jobs of both audiences, newest first."""
    jobs = [
        make(audience=random.choice(MINE), created_at=at(100 - n), **changes) for n in range(count)
    ]
    return jobs[::-1]


def ids(rows: list[Row]) -> list[str]:
    return [row.id for row in rows]


def walk(**wanted: Any) -> list[list[str]]:
    """The ids of page after page, to the end."""
    pages, before = [], None
    while True:
        found = listing.page(MINE, Query(before=before, **wanted))
        pages.append(ids(found.rows))
        if found.after is None:
            return pages
        before = Cursor.read(str(found.after))


def test_pages_follow_each_other_without_a_gap_or_a_repeat() -> None:
    jobs = made(7)
    make(audience="user:2")
    assert walk(limit=3) == [ids(jobs[:3]), ids(jobs[3:6]), ids(jobs[6:])]
    assert walk(limit=7) == [ids(jobs)]
    assert walk(limit=200) == [ids(jobs)]


def test_jobs_that_were_created_at_once_stand_in_the_order_of_their_ids() -> None:
    """The database's own clock has milliseconds on SQLite, and its text is shorter."""
    jobs = [make(audience=random.choice(MINE)) for _ in range(9)]
    now = sql.now().replace("%%", "%")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE progrock_job SET created_at = (SELECT {now})")
    newest = sorted(ids(jobs), reverse=True)
    assert walk(limit=2) == [newest[n : n + 2] for n in range(0, 9, 2)]


def test_jobs_that_come_meanwhile_move_no_page() -> None:
    jobs = made(4)
    first = listing.page(MINE, Query(limit=2))
    make(created_at=at(0))
    assert ids(listing.page(MINE, Query(limit=2, before=first.after)).rows) == ids(jobs[2:])


def test_filters_can_be_joined() -> None:
    failed, running = make(state="failed", message="No 100% today"), make(state="running")
    other = make(state="failed", backend="report", label="Invoice_7")
    failing = frozenset(["failed"])
    for query, wanted in [
        (Query(), {failed.id, running.id, other.id}),
        (Query(states=failing), {failed.id, other.id}),
        (Query(states=failing, backend="report"), {other.id}),
        (Query(states=frozenset(ACTIVE)), {running.id}),
        (Query(states=frozenset([*ACTIVE, "failed"]), backend="render"), {failed.id, running.id}),
        (Query(text="100% T"), {failed.id}),
        (Query(text="invoice_"), {other.id}),
        (Query(text="e%7"), set()),
        (Query(text="\\"), set()),
        (Query(text=running.id), {running.id}),
        (Query(text=running.id[4:15]), {running.id}),
        (Query(text="'; DROP TABLE progrock_job; --"), set()),
    ]:
        assert set(ids(listing.page(MINE, query).rows)) == wanted, query


def test_a_filter_looks_no_further_than_its_window_and_the_next_page_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "WINDOW", 4)
    jobs = made(30)
    for old in jobs[-3:]:
        Job.objects.filter(pk=old.id).update(state="failed")
    wanted = ids(jobs[-3:])
    pages = walk(limit=2, states=frozenset(["failed"]))
    assert [each for page in pages for each in page] == wanted
    assert len(pages) > 2
    assert pages[0] == [], "they are beyond the first window"
    assert walk(limit=50) == [ids(jobs)], "without a filter there is none"
    make(created_at=at(900))
    active = walk(limit=50, states=frozenset(ACTIVE))
    assert [len(page) for page in active] == [28], "active jobs have an index of their own"


def test_the_index_of_the_audience_leads_to_a_page() -> None:
    """It reads no more than what is shown, however many jobs there are."""
    if connection.vendor != "postgresql":
        return  # SQLite's plans tell no rows
    make()
    columns = [field.column for field in Job._meta.fields]
    new = {"id": "gen_random_uuid()", "created_at": "created_at - g * interval '1 second'"}
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO progrock_job ({', '.join(columns)})"
            f" SELECT {', '.join(new.get(each, each) for each in columns)}"
            " FROM progrock_job, generate_series(1, 5000) g"
        )
        cursor.execute("ANALYZE progrock_job")
        before = listing.page(MINE, Query(limit=200)).after
        for query in (Query(), Query(before=before)):
            with CaptureQueriesContext(connection) as asked:
                listing.page(MINE, query)
            for each in asked.captured_queries[:2]:
                cursor.execute(f"EXPLAIN ANALYZE {each['sql']}")
                plan = "\n".join(line for (line,) in cursor.fetchall())
                assert "Index Scan using progrock_audience" in plan, plan
                read = [int(rows) for rows in re.findall(r"actual time=\S+ rows=(\d+)", plan)]
                assert max(read) < 100, plan


def test_many_audiences_are_asked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ONE_BY_ONE", 20)
    jobs = [make(audience=f"team:{n}", created_at=at(100 - n)) for n in range(30)][::-1]
    teams = [f"team:{n}" for n in range(30)]
    first = listing.page(teams, Query(limit=20))
    assert ids(first.rows) == ids(jobs[:20])
    rest = listing.page(teams, Query(limit=20, before=first.after))
    assert (ids(rest.rows), rest.after) == (ids(jobs[20:]), None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2026-02-30T00:00:00_" + str(uuid.UUID(int=1)),
        "2026-01-01T00:00:00.1234567_" + str(uuid.UUID(int=1)),
        "2026-01-01T00:00:00_" + "g" * 36,
        "2026-01-01 00:00:00_" + str(uuid.UUID(int=1)),
        "2026-01-01T00:00:00_" + str(uuid.UUID(int=1)) + "\n",
        "٢٠٢٦-01-01T00:00:00_" + str(uuid.UUID(int=1)),
    ],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Cursor.read(text)
