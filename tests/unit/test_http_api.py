"""The HTTP API: its answers, without RabbitMQ."""

import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.test import Client

from progrock import api, doors, listing, own_code, problems
from progrock.attempts import NoAnswer
from progrock.errors import Refused
from progrock.ledger import Row
from progrock.models import Job
from tests.jobs import OPEN_AND_CLOSED
from tests.ledgers import at, make

JSON = "application/json"


@pytest.fixture(autouse=True)
def place(sqlite: None, settings: Any, tmp_path: Path) -> None:
    """No job is left of the test before, and there are two backends."""
    Job.objects.all().delete()
    file = tmp_path / "backends.toml"
    file.write_text(OPEN_AND_CLOSED)
    settings.PROGROCK_BACKENDS = str(file)
    settings.PROGROCK_ANONYMOUS = False
    settings.ALLOWED_HOSTS = ["testserver"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """What would go to RabbitMQ."""
    sent: list[Row] = []
    monkeypatch.setattr(api, "send_soon", sent.append)
    return sent


@pytest.fixture
def user(place: None) -> User:
    """A user of a test's own."""
    return User.objects.create_user(uuid.uuid4().hex)


@pytest.fixture
def client(user: User, sent: list[Row]) -> Client:
    """The user's browser, which sends the CSRF token by itself."""
    client = Client()
    client.force_login(user)
    return client


def mine(user: User, **changes: Any) -> Row:
    return make(**{"audience": f"user:{user.pk}", "backend": "open"} | changes)


def problem_of(answer: Any) -> tuple[int, str]:
    """The status and the code of a problem, which has all that RFC 9457 wants."""
    assert answer["Content-Type"] == "application/problem+json", answer.content
    told = answer.json()
    assert told.keys() == {"type", "title", "status", "detail", "code"}
    assert told["status"] == answer.status_code
    assert told["detail"].endswith(".")
    return answer.status_code, told["code"]


def test_a_start_is_accepted_and_says_where_to_look(
    client: Client, user: User, sent: list[Row]
) -> None:
    asked = {"backend": "open", "params": {"pages": 2}, "request": "once"}
    answer = client.post("/jobs", asked, JSON)
    frame = answer.json()
    assert (answer.status_code, frame["state"], frame["type"]) == (202, "queued", "job")
    assert answer["Location"] == f"http://testserver/jobs/{frame['job']}"
    assert answer["Operation-Location"] == answer["Location"]
    assert answer["Retry-After"] == "3", "the backend's interval"
    assert [row.id for row in sent] == [frame["job"]]
    assert Job.objects.get().audience == f"user:{user.pk}"
    assert client.post("/jobs", asked, JSON).json() == frame
    assert len(sent) == 1, "the same request starts one job"


def test_a_body_may_be_left_out(client: Client, sent: list[Row]) -> None:
    first = client.generic("POST", "/jobs").json()
    assert first["backend"] == "open"
    second = client.generic("POST", f"/jobs/{first['job']}/again")
    assert (second.status_code, len(sent)) == (202, 2)
    assert second.json()["job"] != first["job"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        ("{", JSON, 400, "bad_json"),
        ('{"params": {"x": "\\ud83d"}}', JSON, 400, "bad_json"),
        ('{"params": {"x": 123456789012345678901}}', JSON, 400, "bad_json"),
        ("[" * 2000 + "]" * 2000, JSON, 400, "bad_json"),
        ("[1]", JSON, 400, "bad_body"),
        ('{"parms": {}}', JSON, 400, "bad_body"),
        ('{"request": 7}', JSON, 400, "bad_request"),
        ('{"params": [1]}', JSON, 422, "bad_params"),
        ('{"params": {"pages": 10}}', JSON, 422, "bad_params"),
        ('{"backend": "nowhere"}', JSON, 422, "unknown_backend"),
        ('{"backend": "closed"}', JSON, 403, "forbidden"),
        ("{}", "text/plain", 415, "bad_type"),
        ("params=1", "application/x-www-form-urlencoded", 415, "bad_type"),
        ('{"params": {"x": "' + "y" * 65_536 + '"}}', JSON, 413, "too_large"),
    ],
)
def test_a_wrong_start_is_a_problem_and_starts_nothing(
    client: Client, sent: list[Row], body: str, kind: str, status: int, code: str
) -> None:
    assert problem_of(client.generic("POST", "/jobs", body, kind)) == (status, code)
    assert (Job.objects.count(), sent) == (0, [])


def test_too_many_starts_are_told_to_wait(client: Client, settings: Any) -> None:
    settings.PROGROCK_MAX_ACTIVE_JOBS = 1
    client.generic("POST", "/jobs")
    answer = client.generic("POST", "/jobs")
    assert problem_of(answer) == (429, "too_many_jobs")
    assert int(answer["Retry-After"]) > 0
    settings.PROGROCK_MAX_ACTIVE_JOBS, settings.PROGROCK_MAX_STARTS_AN_HOUR = 100, 1
    assert problem_of(client.generic("POST", "/jobs")) == (429, "too_many_starts")


def test_the_projects_own_refusal_is_a_403_and_its_mistake_a_500(
    client: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.PROGROCK_AUTHORIZE = "shop.jobs.authorize"
    scopes: list[Any] = []

    def own(scope: Any, backend: str, params: dict[str, Any]) -> dict[str, Any]:
        scopes.append(scope)
        if "pages" in params:
            raise Refused("over_quota", "Enough.")
        return None  # type: ignore[return-value]

    monkeypatch.setattr(doors, "import_string", lambda path: own)
    old = client.post("/jobs", {"params": {"pages": 1}}, JSON)
    assert problem_of(old) == (403, "over_quota")
    assert problem_of(client.generic("POST", "/jobs", headers={"X-Own": "ü"})) == (
        500,
        "misconfigured",
    )
    assert Job.objects.count() == 0
    for scope in scopes:
        assert (scope["type"], scope["path"], scope["method"]) == ("http", "/jobs", "POST")
        assert scope["user"].is_authenticated
        assert scope["session"].session_key == scope["cookies"]["sessionid"]
    assert (b"x-own", "ü".encode("latin-1")) in scopes[-1]["headers"]


def test_a_job_is_looked_at_with_all_that_is_known_of_it(client: Client, user: User) -> None:
    job = mine(user, params={"pages": 3})
    answer = client.get(f"/jobs/{job.id}")
    frame = answer.json()
    assert (answer.status_code, answer["ETag"], answer["Retry-After"]) == (200, '"1"', "3")
    assert (frame["params"], frame["status"], frame["version"]) == ({"pages": 3}, "Running", 1)
    assert "Accept" in answer["Vary"]
    again = client.get(f"/jobs/{job.id}", headers={"If-None-Match": '"1"'})
    assert (again.status_code, again.content, again["ETag"]) == (304, b"", '"1"')
    Job.objects.filter(pk=job.id).update(version=2, state="failed", error="No paper")
    answer = client.get(f"/jobs/{job.id}", headers={"If-None-Match": '"1"'})
    assert (answer.status_code, answer.json()["error"]) == (200, "No paper")
    assert "Retry-After" not in answer
    assert client.head(f"/jobs/{job.id}")["ETag"] == '"2"'


def test_a_browser_gets_the_page_of_a_job(client: Client, user: User) -> None:
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
    answer = client.get(f"/jobs/{mine(user).id}", headers={"Accept": accept})
    assert answer["Content-Type"].startswith("text/html")
    assert "Accept" in answer["Vary"]


@pytest.mark.parametrize("size", [10, 40_000])
def test_the_result_comes_by_itself_and_as_a_download(
    client: Client, user: User, size: int
) -> None:
    result = {"text": "x" * size, "<b>": None}
    size = len(json.dumps(result, separators=(",", ":")))
    job = mine(user, state="succeeded", result=result, result_size=size)
    answer = client.get(f"/jobs/{job.id}/result")
    assert (answer.json(), answer["Content-Type"]) == (result, JSON)
    assert "Content-Disposition" not in answer
    answer = client.get(f"/jobs/{job.id}/result?download")
    assert answer["Content-Disposition"] == f'attachment; filename="open-{job.id[:8]}.json"'
    assert client.get(f"/jobs/{job.id}/result", headers={"If-None-Match": '"1"'}).status_code == 304
    assert client.get(f"/jobs/{job.id}").json()["result"] == result


def test_a_job_without_a_result_has_none(client: Client, user: User) -> None:
    for state in ("running", "failed", "succeeded"):
        answer = client.get(f"/jobs/{mine(user, state=state).id}/result")
        assert problem_of(answer) == (404, "no_result")
        assert state in answer.json()["detail"]


def test_a_cancel_is_accepted_and_that_of_an_ended_job_changes_nothing(
    client: Client, user: User, sent: list[Row]
) -> None:
    job = mine(user)
    answer = client.delete(f"/jobs/{job.id}")
    assert (answer.status_code, answer.json()["cancelling"]) == (202, True)
    assert [row.id for row in sent] == [job.id]
    answer = client.delete(f"/jobs/{mine(user, state='failed').id}")
    assert (answer.status_code, answer.json()["state"], len(sent)) == (200, "failed", 1)


def test_a_list_has_pages_filters_and_an_etag(client: Client, user: User) -> None:
    jobs = [mine(user, created_at=at(100 - n)) for n in range(5)][::-1]
    mine(user, state="failed", backend="closed", message="No paper")
    make(audience="user:0")
    url, found = "/jobs?limit=2&state=active&backend=open", []
    while url:
        answer = client.get(url)
        assert answer.status_code == 200
        found += [frame["job"] for frame in answer.json()["jobs"]]
        url = answer.json()["next"]
    assert found == [job.id for job in jobs]
    assert len(client.get("/jobs").json()["jobs"]) == 6
    for query in ("q=paper", "state=failed&state=expired", "state=ended", "backend=closed"):
        [frame] = client.get(f"/jobs?{query}").json()["jobs"]
        assert frame["state"] == "failed"
    answer = client.get("/jobs?q=paper")
    known = client.get("/jobs?q=paper", headers={"If-None-Match": answer["ETag"]})
    assert (known.status_code, known.content) == (304, b"")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=201", "limit=x", "limit=", "limit=%C2%B2", "state=gone", "state=",
        "before=", "before=x", "q=%00", "backend=%00", "q=" + "x" * 201, "page=2",
    ],
)  # fmt: skip
def test_a_wrong_query_is_told(client: Client, query: str) -> None:
    assert problem_of(client.get(f"/jobs?{query}")) == (400, "bad_query")


def test_the_backends_are_those_of_the_snapshot(client: Client) -> None:
    found = client.get("/backends").json()["backends"]
    assert [(each["name"], each["start"]) for each in found] == [("open", True), ("closed", False)]
    assert found[0]["params"] == {"properties": {"pages": {"type": "integer", "maximum": 9}}}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("POST", "/again"), ("GET", "/result")],
)
def test_the_job_of_somebody_else_is_no_other_than_none(
    client: Client, sent: list[Row], method: str, path: str
) -> None:
    theirs = make(audience="user:0", state="succeeded", result=[1], result_size=3)
    answers = [
        client.generic(method, f"/jobs/{job}{path}") for job in (theirs.id, uuid.UUID(int=7))
    ]
    assert problem_of(answers[0]) == (404, "unknown_job")
    assert answers[0].content == answers[1].content
    assert sent == []


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("jobs", "GET, POST, HEAD"),
        ("jobs/{}", "GET, DELETE, HEAD"),
        ("jobs/{}/again", "POST"),
        ("jobs/{}/result", "GET, HEAD"),
        ("backends", "GET, HEAD"),
    ],
)
def test_a_method_that_means_nothing_is_told(client: Client, path: str, allowed: str) -> None:
    answer = client.generic("PUT", "/" + path.format(uuid.UUID(int=7)))
    assert problem_of(answer) == (405, "bad_method")
    assert answer["Allow"] == allowed


# Who asks


def test_who_is_nobody_is_told_to_sign_in(place: None) -> None:
    for path in ("/jobs", "/backends", f"/jobs/{uuid.UUID(int=7)}"):
        answer = Client().get(path)
        assert problem_of(answer) == (401, "login_required")
        assert answer["WWW-Authenticate"] == "Bearer"


def test_a_visitor_without_a_login_gets_an_id_where_that_is_allowed(
    settings: Any, sent: list[Row]
) -> None:
    settings.PROGROCK_ANONYMOUS = True
    client = Client()
    assert problem_of(client.get(f"/jobs/{uuid.UUID(int=7)}")) == (404, "unknown_job")
    assert "sessionid" not in client.cookies
    assert client.get("/jobs").json() == {"jobs": [], "next": None}
    assert "sessionid" in client.cookies
    job = client.generic("POST", "/jobs").json()["job"]
    assert client.get(f"/jobs/{job}").status_code == 200
    assert [frame["job"] for frame in client.get("/jobs").json()["jobs"]] == [job]
    assert Client().get("/jobs").json()["jobs"] == []


def test_a_session_needs_the_csrf_token_for_what_changes_something(
    user: User, sent: list[Row]
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(user)
    job = mine(user)
    for method, path in (
        ("POST", "/jobs"), ("DELETE", f"/jobs/{job.id}"), ("POST", f"/jobs/{job.id}/again"),
    ):  # fmt: skip
        for headers in ({}, {"X-CSRFToken": "x" * 32}, {"Authorization": "Bearer of-the-build"}):
            answer = client.generic(method, path, headers=headers)
            assert problem_of(answer) == (403, "csrf"), (method, path, headers)
    assert (Job.objects.count(), sent) == (1, [])
    client.get("/backends")  # brings the cookie
    token = {"X-CSRFToken": client.cookies["csrftoken"].value}
    assert client.generic("POST", "/jobs", headers=token).status_code == 202
    evil = {**token, "Origin": "https://evil.example"}
    assert problem_of(client.generic("POST", "/jobs", headers=evil)) == (403, "csrf")


@pytest.mark.parametrize(
    "authorization", ["", "Basic Ym9iOmJvYg==", "Digest x", "Negotiate x", "BearerX", "Token x"]
)
def test_what_a_browser_sends_by_itself_is_no_token(
    place: None, settings: Any, authorization: str
) -> None:
    settings.PROGROCK_AUDIENCES = "tests.bearer.audiences"
    client = Client(enforce_csrf_checks=True, headers={"Authorization": authorization})
    assert problem_of(client.generic("POST", "/jobs")) == (403, "csrf")


def test_a_bearer_of_a_token_needs_neither_session_nor_csrf_token(
    place: None, settings: Any, sent: list[Row]
) -> None:
    settings.PROGROCK_AUDIENCES, settings.PROGROCK_ANONYMOUS = "tests.bearer.audiences", True
    client = Client(enforce_csrf_checks=True, headers={"Authorization": "Bearer of-the-build"})
    job = client.generic("POST", "/jobs").json()["job"]
    assert Job.objects.get(pk=job).audience == "service:build"
    assert client.get("/jobs").json()["jobs"][0]["job"] == job
    assert client.delete(f"/jobs/{job}").status_code == 202
    assert dict(client.cookies) == {}
    unknown = Client(enforce_csrf_checks=True, headers={"Authorization": "bearer of-somebody"})
    assert problem_of(unknown.generic("POST", "/jobs")) == (401, "login_required")
    assert dict(unknown.cookies) == {}, "a wrong token makes no visitor"


def test_a_mistake_in_the_audiences_function_is_told_and_logged(
    client: Client,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(own_code, "LOG_EVERY", 0.0)
    settings.PROGROCK_AUDIENCES = "json.dumps"
    assert problem_of(client.get("/jobs")) == (500, "misconfigured")
    assert "the function of PROGROCK_AUDIENCES failed" in caplog.text


def test_a_host_that_is_not_ours_starts_nothing(client: Client, settings: Any) -> None:
    settings.MIDDLEWARE = [each for each in settings.MIDDLEWARE if "Common" not in each]
    settings.ALLOWED_HOSTS = ["other.example"]
    assert problem_of(client.generic("POST", "/jobs")) == (400, "bad_host")
    assert Job.objects.count() == 0


def test_a_database_that_is_away_or_silent_is_told(
    client: Client, sent: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: Exception) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            raise error

        return call

    monkeypatch.setattr(listing, "page", fail(OperationalError("gone")))
    answer = client.get("/jobs")
    assert problem_of(answer) == (503, "unavailable")
    assert int(answer["Retry-After"]) > 0
    monkeypatch.setattr(doors, "start", fail(NoAnswer("the answer was lost")))
    answer = client.generic("POST", "/jobs")
    assert problem_of(answer) == (504, "outcome_unknown")
    assert "Retry-After" not in answer, "who repeats it blindly may start it twice"


def test_each_code_of_the_wire_has_a_status_of_its_own() -> None:
    """A code that is not among them is a project's own, and is answered with 403."""
    page = (Path(__file__).parents[2] / "docs/wire.md").read_text()
    table = page.partition("### error\n")[2].partition("\n### ")[0]
    codes = set(re.findall(r"^\| `(\w+)` \|", table, re.M))
    known = problems.STATUS.keys() | problems.BAD_REQUEST
    assert codes - known == {"bad_audience", "bad_frame", "session_ended"}, "they are not for HTTP"
