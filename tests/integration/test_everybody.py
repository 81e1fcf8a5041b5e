"""The list of everybody's jobs on both databases: filters, owners, and pages."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User

from progrock import everybody
from progrock.everybody import Place
from progrock.models import Job
from progrock.owners import names_of
from tests.ledgers import make

pytestmark = pytest.mark.usefixtures("database")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _empty(database: str) -> None:
    Job.objects.all().delete()


def job(minutes: float = 0, **fields: Any) -> str:
    """A job that changed so long ago; returns its id."""
    made = make(**fields).id
    Job.objects.filter(pk=made).update(changed_at=NOW - timedelta(minutes=minutes))
    return made


def listed(before: Place | None = None, **wanted: str) -> list[str]:
    """The ids of a page."""
    return [str(each.pk) for each in everybody.page(wanted, before).jobs]


def test_the_filter_finds_state_backend_owner_and_text() -> None:
    ada = User.objects.create_user(f"Ada {uuid.uuid4().hex[:6]}")
    running = job(1, label="100 % of_it", audience=f"user:{ada.pk}")
    failed = job(2, state="failed", error="No paper", backend="print", audience="team:blue")
    assert listed() == [running, failed]
    assert listed(state="active") == listed(state="running") == [running]
    assert listed(state="ended") == listed(state="failed") == [failed]
    assert listed(state="nonsense") == [running, failed]
    assert listed(backend="print") == [failed]
    assert listed(owner=ada.username.lower()) == listed(owner=f"user:{ada.pk}") == [running]
    assert listed(owner="TEAM") == [failed]
    assert listed(owner="blue") == []
    assert listed(q="no PAPER") == [failed]
    assert listed(q="% of_") == [running]
    assert listed(q="_% of") == []
    assert listed(q=running[:13]) == listed(q=running.upper()) == [running]
    assert listed(q="paper", state="active") == []


def test_pages_have_each_job_once_also_where_several_changed_in_one_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(everybody, "A_PAGE", 3)
    made = {job(minutes) for minutes in (1, 1, 1, 1, 1, 2, 3)}
    seen: list[str] = []
    place: Place | None = None
    for _ in range(3):
        found = everybody.page({}, place)
        seen += [str(each.pk) for each in found.jobs]
        place = Place.read(str(found.after)) if found.after else None
        assert found.after == place
    assert place is None
    assert len(seen) == 7
    assert set(seen) == made


def test_a_page_with_a_filter_looks_at_a_window_and_the_next_one_looks_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(everybody, "WINDOW", 3)
    wanted = [job(5, backend="print"), job(9, backend="print")]
    for minutes in (1, 2, 3, 6, 7, 8):
        job(minutes)
    found = everybody.page({"backend": "print"}, None)
    assert found.jobs == []
    seen: list[str] = []
    while found.after:
        found = everybody.page({"backend": "print"}, found.after)
        seen += [str(each.pk) for each in found.jobs]
    assert seen == wanted


@pytest.mark.parametrize(
    "text", ["", "x", "2026-03-01T12:00:00Z", f"2026-03-01T12:00:00_{uuid.UUID(int=7)}", "_", "a_b"]
)
def test_what_names_no_place_is_the_first_page(text: str) -> None:
    assert Place.read(text) is None


def test_owners_are_called_by_their_login_names() -> None:
    ada = User.objects.create_user(f"ada {uuid.uuid4().hex[:6]}")
    audiences = [f"user:{ada.pk}", "user:0", "user:x", "team:blue", "visitor:3f2a-1"]
    assert names_of(audiences) == {
        f"user:{ada.pk}": ada.username,
        "user:0": "user:0",
        "user:x": "user:x",
        "team:blue": "team:blue",
        "visitor:3f2a-1": "visitor 3f2a",
    }
