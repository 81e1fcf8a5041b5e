"""The admin on both databases: what it shows, what it asks the database, what it does."""

import html
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.urls import reverse

from progrock import api, ledger
from progrock.admin import LONGEST_RESULT
from progrock.dispatch import Outbound
from progrock.ledger import Row
from progrock.models import Job
from progrock.storable import storable_result
from tests.ledgers import at, make

LIST = reverse("admin:progrock_job_changelist")


@pytest.fixture(autouse=True)
def sent(database: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> list[Outbound]:
    """What is sent to RabbitMQ. There is no job of the test before, and no collected statics."""
    for model in (Job, LogEntry, User):
        model.objects.all().delete()
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    found: list[Outbound] = []
    monkeypatch.setattr(api.dispatch, "send_now", lambda url, outbound: found.append(outbound))
    return found


def staff(*permissions: str) -> Client:
    """Somebody of the staff with these permissions, signed in."""
    user = User.objects.create_user(f"staff {uuid.uuid4()}", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str = LIST, **query: str) -> str:
    answer = client.get(url, query)
    assert answer.status_code == 200
    return answer.content.decode()


def detail(row: Row) -> str:
    return reverse("admin:progrock_job_change", args=[row.id])


def act(client: Client, action: str, rows: Sequence[Row]) -> list[str]:
    """Do this with the chosen jobs; returns what the admin says of it."""
    chosen = {"action": action, "_selected_action": [row.id for row in rows]}
    answer = client.post(LIST, chosen, follow=True)
    assert answer.status_code == 200
    return [str(message) for message in answer.context["messages"]]


def queries(client: Client, url: str) -> list[str]:
    """The statements that a page takes."""
    said: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        said.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        page(client, url)
    return said


def test_the_list_names_the_owners_and_what_went_wrong() -> None:
    ada = User.objects.create_user("ada")
    make(audience=f"user:{ada.pk}", label="Solaris at 4K", progress=41.7)
    make(audience="user:99999999999999999999999", error="<b>" + "it broke " * 20, state="failed",
         created_at=at(3700), ended_at=at(100))  # fmt: skip
    text = page(staff("view_job"))
    for shown in (
        ">ada<",
        "Solaris at 4K",
        "42&nbsp;%",
        "&lt;b&gt;it broke",
        "user:999",
        "1 h 0 min",
    ):
        assert shown in text
    assert "<b>it" not in text


def test_the_list_asks_as_often_for_many_jobs_as_for_one_and_never_for_results() -> None:
    client = staff("view_job")
    make(audience=f"user:{User.objects.create_user('ada').pk}")
    one = queries(client, LIST)
    for n in range(12):
        make(audience=f"user:{User.objects.create_user(f'user {n}').pk}")
    many = queries(client, LIST)
    assert len(many) == len(one)
    for column in ("result", "params", "milestones", "handle"):
        assert not [each for each in many if f'"{column}"' in each]


def test_jobs_are_found_by_state_by_backend_and_by_a_text() -> None:
    client = staff("view_job")
    active = make(message="Rendering clouds", audience="team:blue")
    ended = make(state="failed", backend="report")

    def found(**query: str) -> list[bool]:
        text = page(client, **query)
        return [row.id[:8] in text for row in (active, ended)]

    assert found() == [True, True]
    assert found(state="active") == [True, False]
    assert found(state="ended") == [False, True]
    assert found(state="failed") == [False, True]
    assert found(backend="report") == [False, True]
    assert found(q=ended.id) == [False, True]
    assert found(q=ended.id[:8]) == [False, True]
    assert found(q="team:blue") == [True, False]
    assert found(q="clouds") == [True, False]


def test_a_job_is_shown_with_its_json_escaped_and_its_milestones() -> None:
    row = make(params={"film": "<script>alert(1)</script>", "size": [4, "ü"]}, state="queued")
    ledger.request_cancel(row.id, datetime.now(UTC).timestamp())
    text = page(staff("view_job"), detail(row))
    assert "<script>alert" not in text
    assert html.escape('"film": "<script>alert(1)</script>",\n', quote=True) in text
    assert "Cancellation asked for" in text
    assert "<td>Cancelled</td>" in text
    assert 'name="_save"' not in text
    assert reverse("progrock:job", args=[row.id]) in text


def test_a_large_result_is_not_read() -> None:
    client = staff("view_job")
    results = [{"url": "x & y"}, "x" * LONGEST_RESULT]
    rows = [
        make(state="succeeded", result=each, result_size=storable_result(each).size)
        for each in results
    ]
    assert "&quot;url&quot;: &quot;x &amp; y&quot;" in page(client, detail(rows[0]))
    assert "Too large to be shown here (64.0" in page(client, detail(rows[1])).replace("\xa0", " ")
    assert [each for each in queries(client, detail(rows[0])) if '"result"' in each]
    assert not [each for each in queries(client, detail(rows[1])) if '"result"' in each]


def test_many_jobs_are_cancelled_at_once_and_it_is_known_who_did_it(sent: list[Outbound]) -> None:
    running, queued, ended = make(), make(state="queued", handle=""), make(state="failed")
    client = staff("view_job", "change_job")
    said = act(client, "cancel_jobs", [running, queued, ended])
    assert said == ["Cancellation asked for: 2 of 3 jobs."]
    rows = ledger.load([running.id, queued.id, ended.id])
    assert rows[running.id].cancel_requested
    assert (rows[queued.id].state, rows[ended.id].state) == ("cancelled", "failed")
    [outbound] = sent
    assert [task.job_id for message in outbound.messages for task in message.tasks] == [running.id]
    assert {each.object_id for each in LogEntry.objects.all()} == {running.id, queued.id}
    history = page(client, reverse("admin:progrock_job_history", args=[running.id]))
    assert "Cancellation asked for" in history
    assert act(client, "cancel_jobs", [ended]) == ["Cancellation asked for: 0 of 1 job."]


def test_jobs_that_wait_are_looked_at_now(sent: list[Outbound]) -> None:
    waits, due, ended = make(due_at=at(-50)), make(due_at=at(1)), make(state="failed")
    said = act(staff("view_job", "change_job"), "look_now", [waits, due, ended])
    assert said == ["Looked at now: 1 of 3 jobs."]
    [outbound] = sent
    [message] = outbound.messages
    assert [(task.job_id, task.turn) for task in message.tasks] == [(waits.id, waits.turn)]
    assert outbound.feeds == {}


def test_jobs_run_again_for_the_same_audience_with_the_same_params(
    sent: list[Outbound], settings: Any
) -> None:
    settings.PROGROCK_MAX_ACTIVE_JOBS = 1
    failed = make(state="failed", audience="team:blue", params={"n": 7})
    other = make(state="failed", audience="team:blue", params={"n": 8})
    gone = make(state="failed", backend="gone")
    said = act(staff("view_job", "change_job"), "run_again", [failed, other, gone])
    assert said[0] == "Started again: 1 of 3 jobs."
    assert any("There is no backend 'gone'" in each for each in said[1:])
    assert any("1 of your jobs are active" in each for each in said[1:])
    [new] = Job.objects.filter(state="queued")
    assert (new.audience, new.backend, new.request) == ("team:blue", "render", None)
    again = [
        (event.text, new.params["n"])
        for row in ledger.load([failed.id, other.id], large=True).values()
        for event in row.story
        if event.what == "again"
    ]
    assert again == [(str(new.pk), new.params["n"])]
    [outbound] = sent
    assert [t.job_id for m in outbound.messages for t in m.tasks] == [str(new.pk)]


def test_the_page_of_a_job_has_buttons_and_comes_back_after_one() -> None:
    active, ended = make(due_at=at(-50)), make(state="failed")
    client = staff("view_job", "change_job")
    assert 'value="cancel_jobs"' in page(client, detail(active))
    text = page(client, detail(ended))
    assert 'value="cancel_jobs"' not in text
    assert 'value="run_again"' in text
    pressed = {"action": "cancel_jobs", "_selected_action": active.id, "_back": "1"}
    answer = client.post(LIST, pressed)
    assert (answer.status_code, answer.headers["Location"]) == (302, detail(active))
    assert ledger.load([active.id])[active.id].cancel_requested
    assert client.post(LIST, {"action": "cancel_jobs", "_back": "1"}).status_code == 200


def test_who_may_only_look_can_do_nothing(sent: list[Outbound]) -> None:
    row, client = make(due_at=at(-50)), staff("view_job")
    assert "cancel_jobs" not in page(client) + page(client, detail(row))
    for action in ("cancel_jobs", "look_now", "run_again", "delete_selected"):
        act(client, action, [row])
    assert ledger.load([row.id], results=True)[row.id] == row
    assert (Job.objects.count(), sent) == (1, [])
    assert client.post(detail(row), {"state": "failed"}).status_code == 403


def test_an_active_job_is_not_deleted_and_one_that_has_ended_is() -> None:
    client = staff("view_job", "delete_job")
    active, ended = make(), make(state="failed")
    chosen = {"action": "delete_selected", "_selected_action": [active.id, ended.id], "post": "yes"}
    assert "is running; cancel it first" in client.post(LIST, chosen).content.decode()
    assert Job.objects.count() == 2
    assert act(client, "delete_selected", [ended]) == []
    client.post(LIST, {**chosen, "_selected_action": [ended.id]})
    assert [str(job.pk) for job in Job.objects.all()] == [active.id]
