"""`manage.py backend try` on the demo backend: a right table, a wrong one of each kind, Ctrl-C.

And on a server that repeats all that it is told, which must not bring a secret to light.
"""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from progrock.backends import load
from progrock.trial.run import try_backend
from tests.services import MANAGE, PATIENCE, ROOT, DemoBackend, free_port, http

TABLE = """
[render]
url = "{url}"
start = {{ path = "/tasks", headers = {{ Idempotency-Key = "{{job}}" }} }}
poll = {{ path = "/tasks/{{handle}}" }}
poll_many = {{ path = "/tasks?ids={{handles}}", items = "tasks", id = "id" }}
cancel = {{ path = "/tasks/{{handle}}" }}
handle = "id"
state = "status"
progress = "percent"
message = "stage"
result = "output"
error = "error.message"
interval = 0.1

[render.states]
running = ["running"]
succeeded = ["done"]
failed = ["failed"]
cancelled = ["cancelled"]
"""
LONG = {"seconds": 600}


class Tried:
    """A trial that has ended: whether the table works, and what was printed."""

    def __init__(
        self, file: Path, params: Mapping[str, Any], environ: Mapping[str, str] | None = None
    ) -> None:
        self.lines: list[str] = []
        options = load(file)["render"]
        self.works = try_backend(
            options, dict(params), environ=environ or {}, say=self.lines.append
        )
        self.text = "\n".join(self.lines)

    @property
    def looks(self) -> list[str]:
        """The names of the looks."""
        return [line for line in self.lines if line.startswith("look ")]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait less after a failure than the product does."""
    monkeypatch.setattr("progrock.trial.run.AFTER_A_FAILURE", 0.1)


@pytest.fixture
def table(demo_backend: DemoBackend, tmp_path: Path) -> Path:
    file = tmp_path / "backends.toml"
    file.write_text(TABLE.format(url=demo_backend.url))
    return file


def change(file: Path, before: str, after: str) -> None:
    """Make the table wrong."""
    text = file.read_text()
    assert text.count(before) == 1, before
    file.write_text(text.replace(before, after))


def tasks_that_run(lines: list[str], url: str) -> list[str]:
    """Of the tasks that a trial has started, those that still run at the demo backend."""
    handles = set(re.findall(r'"id":"([0-9a-f]{32})"', "\n".join(lines)))
    return [each for each in handles if http("GET", f"{url}/tasks/{each}")["status"] == "running"]


def test_a_right_table_is_told_step_by_step(table: Path, demo_backend: DemoBackend) -> None:
    tried = Tried(table, {"seconds": 0.5})
    assert tried.works
    assert "  > POST " + demo_backend.url + "/tasks" in tried.lines
    assert '    {"seconds":0.5}' in tried.lines
    assert any(line.startswith("  < 201 after ") for line in tried.lines)
    assert re.search(r'`handle` \("id"\) found "[0-9a-f]{32}"', tried.text)
    assert re.search(r'  = started, its handle is "[0-9a-f]{32}"; the next request in', tried.text)
    assert re.search(r"> GET \S+/tasks\?ids=[0-9a-f]{32}$", tried.text, re.M)
    assert re.search(r"> GET \S+/tasks/[0-9a-f]{32}$", tried.text, re.M)
    assert '`poll_many.items` ("tasks") found a list of 1' in tried.text
    assert '`state` ("status") found "running"' in tried.text
    assert re.search(r'  = running, [\d.]+ %, message "', tried.text)
    assert '`result` ("output") found {"file":"film-' in tried.text
    assert "  = succeeded, 100 %, result " in tried.text
    assert "works: the job has ended as succeeded by poll_many and by poll" in tried.lines[-1]
    assert "!!" not in tried.text


def test_a_job_that_fails_by_the_backends_word_is_no_fault_of_the_table(table: Path) -> None:
    tried = Tried(table, {"seconds": 0.1, "outcome": "fail"})
    assert tried.works
    assert 'error "The renderer ran out of memory' in tried.text
    assert "works: the job has ended as failed" in tried.lines[-1]


#: What is changed in the table, and the complaint that has to be there.
WRONG = {
    "items": (
        'items = "tasks"',
        'items = "jobs"',
        '`poll_many.items` ("jobs") found nothing; the answer has these keys: tasks;'
        " `tasks` is a list of objects",
    ),
    "items, no list": (
        'items = "tasks"',
        'items = "tasks[0].status"',
        '`poll_many.items` ("tasks[0].status") found "running", which is no list;'
        " `tasks` is a list of objects",
    ),
    "id": (
        'id = "id"',
        'id = "uid"',
        '`poll_many.id` ("uid") found nothing; the first item has these keys:'
        " id, status, percent, stage; `id` is the handle",
    ),
    "id, another key": (
        'id = "id"',
        'id = "status"',
        '`poll_many.id` ("status") found "running", and not the job\'s handle',
    ),
    "state": (
        'state = "status"',
        'state = "state"',
        '`state` ("state") found nothing; the job\'s item has these keys:'
        ' id, status, percent, stage; `status` holds "running", which stands in `states`',
    ),
    "state, another key": (
        'state = "status"',
        'state = "stage"',
        '`state` ("stage") found "Reading the scene", which stands in no list of `states`:'
        ' running = ["running"]',
    ),
    "states": (
        'running = ["running"]',
        'running = ["busy"]',
        '`state` ("status") found "running", which stands in no list of `states`:'
        ' running = ["busy"], succeeded = ["done"]',
    ),
    "handle": (
        'handle = "id"',
        'handle = "task_id"',
        '`handle` ("task_id") found nothing; the answer has these keys: id, status, percent, stage',
    ),
    "handle, another key": (
        'handle = "id"',
        'handle = "status"',
        '`handle` ("status") found "running" in the answer to the start: is that the job\'s id?',
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_key_is_named_within_three_looks(what: str, table: Path) -> None:
    before, after, complaint = WRONG[what]
    change(table, before, after)
    tried = Tried(table, LONG)
    assert not tried.works
    assert complaint in tried.text
    assert tried.lines[-1].startswith("render FAILED: ")
    assert complaint in tried.lines[-1]
    assert len([look for look in tried.looks if look.endswith("poll_many")]) <= 3


@pytest.mark.parametrize("what", ["items", "id", "state", "states"])
def test_a_job_that_nobody_looks_at_any_more_is_cancelled(
    what: str, table: Path, demo_backend: DemoBackend
) -> None:
    change(table, *WRONG[what][:2])
    tried = Tried(table, LONG)
    assert "cancel, because nobody looks at the job any more" in tried.lines
    assert "  = cancelled" in tried.lines
    assert tasks_that_run(tried.lines, demo_backend.url) == []


def test_a_state_that_fits_one_job_but_not_the_items_is_found_although_poll_ends_the_job(
    table: Path,
) -> None:
    """Such a table polled for ever unseen, because one job alone is looked at with `poll`."""
    change(table, 'items = "tasks"', 'items = "tasks[].{id: id, task: @}"')
    tried = Tried(table, {"seconds": 0.1})
    assert not tried.works
    assert (
        '`state` ("status") found nothing; the job\'s item has these keys: id, task' in tried.text
    )
    assert '`task.status` holds "' in tried.lines[-1]


def test_where_the_reason_of_a_failed_job_may_be_is_told(table: Path) -> None:
    change(table, 'error = "error.message"\n', "")
    tried = Tried(table, {"seconds": 0.1, "outcome": "fail"})
    assert tried.works
    for what in ("the job's item", "the answer"):
        told = rf"    without `error` the page cannot say why the job failed; {what} has .* error"
        assert re.search(told, tried.text), tried.text


def test_a_start_that_is_refused_is_told_with_the_backends_reason(table: Path) -> None:
    tried = Tried(table, {"seconds": "long"})
    assert not tried.works
    assert "seconds must be a number" in tried.lines[-1]
    assert tried.looks == []


def test_params_that_do_not_fit_the_schema_are_refused_before_anything_is_sent(
    table: Path,
) -> None:
    with table.open("a") as file:
        file.write('[render.params]\nrequired = ["seconds"]\n')
    tried = Tried(table, {})
    assert not tried.works
    assert "'seconds' is a required property, so nothing was sent" in tried.lines[-1]
    assert "  > " not in tried.text


def test_a_look_that_is_refused_is_told_with_the_backends_reason(
    table: Path, demo_backend: DemoBackend
) -> None:
    """An answer with an error has no state, and that is not what is wrong."""
    change(table, 'poll = { path = "/tasks/{handle}" }', 'poll = { path = "/_test/{handle}/x" }')
    change(table, 'poll_many = { path = "/tasks?ids={handles}", items = "tasks", id = "id" }', "")
    tried = Tried(table, LONG)
    assert not tried.works
    assert "render FAILED: the backend answered 404" in tried.lines[-1]
    assert "!!" not in tried.text


def test_a_server_that_is_not_there_is_told_with_the_request(table: Path) -> None:
    table.write_text(TABLE.format(url=f"http://127.0.0.1:{free_port()}"))
    tried = Tried(table, LONG)
    assert not tried.works
    assert tried.text.count("  > POST ") == 3
    assert tried.lines[-1] == "render FAILED: connection refused"


def test_the_page_shows_what_is_really_printed(demo_backend: DemoBackend, tmp_path: Path) -> None:
    """The blocks of "Try it", which leave lines out, with the first table of the page."""
    page = (ROOT / "docs/backends.md").read_text()
    table = re.search(r"```toml[^\n]*\n(.*?)^```$", page, re.M | re.S)
    blocks = re.findall(r"^```text\n(.*?)^```$", page, re.M | re.S)
    assert table
    file = tmp_path / "backends.toml"
    right = table[1].replace("https://render.internal/v1", demo_backend.url)
    printed = []
    for text in (right, right.replace('items = "tasks"', 'items = "jobs"')):
        file.write_text(text)
        printed += Tried(file, {"seconds": 3}, {"RENDER_TOKEN": "a-secret-token"}).lines
    shown = [line for block in blocks for line in block.splitlines() if "…" not in line]
    assert len(shown) > 20
    real = {alike(line.replace(demo_backend.url, "https://render.internal/v1")) for line in printed}
    assert [line for line in shown if alike(line) not in real] == []


def alike(line: str) -> str:
    """A line without what differs from trial to trial."""
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", line)
    line = re.sub(r'[\d.]+ (ms|%|looks?)|"percent":[\d.]+|[\d.]+$', "N", line)
    return re.sub(r'"(Reading|Placing|Rendering|Encoding|Uploading) [^"]*"', "STAGE", line)


# Ctrl-C


def interrupted(table: Path, url: str, *, when: str, times: int = 1) -> tuple[int, str]:
    """The command with Ctrl-C as soon as it has printed a line: its exit code and its output."""
    env = {**os.environ, "DEBUG": "1", "PROGROCK_BACKENDS": str(table), "PYTHONUNBUFFERED": "1"}
    env |= {"AMQP_URL": "amqp://127.0.0.1:1/", "DATABASE_URL": "postgres://127.0.0.1:1/none"}
    command = [*MANAGE, "backend", "try", "render", "--params", json.dumps(LONG)]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        assert process.stdout
        printed = []
        for line in process.stdout:
            printed.append(line)
            if times and when in line:
                times -= 1
                process.send_signal(signal.SIGINT)
        watchdog.cancel()
    return process.returncode, "".join(printed)


def test_ctrl_c_cancels_the_job(table: Path, demo_backend: DemoBackend) -> None:
    """The command as a program, with neither RabbitMQ nor a database."""
    code, printed = interrupted(table, demo_backend.url, when="look 2")
    assert "Interrupted: cancelling the job." in printed, printed
    assert re.search(r"> DELETE \S+/tasks/[0-9a-f]{32}$", printed, re.M)
    assert "works: the job has ended as cancelled" in printed
    assert code == 0
    assert tasks_that_run(printed.splitlines(), demo_backend.url) == []


def test_ctrl_c_without_a_cancel_in_the_table_says_that_the_job_runs_on(
    table: Path, demo_backend: DemoBackend
) -> None:
    change(table, 'cancel = { path = "/tasks/{handle}" }', "")
    code, printed = interrupted(table, demo_backend.url, when="look 1 by poll\n")
    assert "the table has no `cancel`, so the job runs on there" in printed, printed
    assert code == 0
    (handle,) = tasks_that_run(printed.splitlines(), demo_backend.url)
    http("DELETE", f"{demo_backend.url}/tasks/{handle}")


def test_a_second_ctrl_c_leaves_at_once(table: Path, demo_backend: DemoBackend) -> None:
    """This cancel never comes to an end by itself: the backend says that the job runs on."""
    change(table, "cancel = {", 'cancel = { method = "GET", wait = true,')
    code, printed = interrupted(table, demo_backend.url, when="look ", times=2)
    assert code == 130, printed
    assert "left at once; the job may run on" in printed
    (handle,) = tasks_that_run(printed.splitlines(), demo_backend.url)
    http("DELETE", f"{demo_backend.url}/tasks/{handle}")


# Secrets


class Echo(BaseHTTPRequestHandler):
    """Repeats each request in its answer. A job has ended at the first look."""

    def do_GET(self) -> None:
        """A look, and with DELETE a cancel."""
        self.answer(200, {"status": "done", "token": "t-1"})

    def do_POST(self) -> None:
        """A start."""
        self.answer(200, {"id": "job-1", "access_token": "given-by-oauth-0123"})

    do_DELETE = do_GET

    def answer(self, status: int, more: dict[str, Any]) -> None:
        """All that came, and this."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        told = {"path": self.path, "headers": dict(self.headers), "body": body}
        said = json.dumps({**more, "told": told, "long": f"{'x' * 590}{body * 3}"}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Location", f"http://127.0.0.1{self.path}")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


SECRETS = """
[render]
url = "${BASE}"
start.path = "/jobs/${IN_PATH}?key=${IN_QUERY}"
start.body = { params = "{params}", secret = "${IN_BODY}", deep = ["x-${file:FILE}-y"] }
poll = { path = "/jobs/{handle}?access_token=written-down", headers = { X-Own = "${IN_HEADER}" } }
cancel = { path = "/jobs/{handle}", form = { secret = "${IN_FORM}" }, method = "POST" }
handle = "id"
state = "status"
message = "told.headers"
result = "told"
error = "told.body"
headers.Authorization = "Bearer ${TOKEN}"
headers.X-Api-Key = "a-key-in-the-file"
headers.X-File = "${file:FILE}"
states = { running = ["busy"], succeeded = ["done"] }
interval = 0.1
"""


@pytest.mark.parametrize("succeeded", ["done", "elsewhere"])
def test_secrets_are_never_printed(echo: str, tmp_path: Path, succeeded: str) -> None:
    """Neither with a table that works nor with one that does not."""
    secrets = {
        "TOKEN": "tok-0123456789",
        "IN_PATH": "path-secret",
        "IN_QUERY": "query-s3cret",
        "IN_BODY": 'body"secret\\ü',
        "IN_HEADER": "header-secret",
        "IN_FORM": "form secret+é",
    }
    (tmp_path / "token").write_text("file-secret\n")
    file = tmp_path / "backends.toml"
    text = SECRETS.replace("FILE", str(tmp_path / "token"))
    file.write_text(text.replace('succeeded = ["done"]', f'succeeded = ["{succeeded}"]'))
    tried = Tried(file, {"a": 1}, {"BASE": echo, **secrets})
    assert tried.works is (succeeded == "done"), tried.text
    hidden = [*secrets.values(), "file-secret", "written-down", "a-key-in-the-file"]
    spellings = {spelling for each in hidden for spelling in (each, json.dumps(each)[1:-1])}
    for secret in spellings:
        assert secret not in tried.text, secret
    assert "  > POST ${BASE}/jobs/${IN_PATH}?key=${IN_QUERY}" in tried.lines
    assert "    Authorization: Bearer ${TOKEN}" in tried.lines
    assert "    X-Api-Key: ***" in tried.lines
    assert '"secret":"${IN_BODY}"' in tried.text
    assert "  > GET ${BASE}/jobs/job-1?access_token=***" in tried.lines


def test_a_token_that_was_given_is_hidden_also_in_answers(echo: str, tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    table = SECRETS.replace("${file:FILE}", "x").replace(
        '"Bearer ${TOKEN}"', '"Digest given-0123456789"'
    )
    file.write_text(table)
    names = ("IN_PATH", "IN_QUERY", "IN_BODY", "IN_HEADER", "IN_FORM")
    tried = Tried(file, {}, {"BASE": echo} | dict.fromkeys(names, "another-secret"))
    assert tried.works
    assert "    Authorization: Digest ***" in tried.lines
    assert "given-0123456789" not in tried.text


def test_a_token_of_oauth_is_hidden_in_requests_and_answers(echo: str, tmp_path: Path) -> None:
    file = tmp_path / "backends.toml"
    table = SECRETS.replace("${file:FILE}", "x").replace('"Bearer ${TOKEN}"', '"x"')
    auth = f'token_url = "{echo}/token", client_id = "me", client_secret = "${{SECRET}}"'
    file.write_text(f"{table}auth = {{ {auth} }}\n")
    names = ("IN_PATH", "IN_QUERY", "IN_BODY", "IN_HEADER", "IN_FORM", "SECRET")
    tried = Tried(file, {}, {"BASE": echo} | dict.fromkeys(names, "another-secret"))
    assert tried.works, tried.text
    assert "    Authorization: Bearer ***" in tried.lines
    assert '"Authorization":"Bearer ***"' in tried.text
    assert "given-by-oauth" not in tried.text
    assert "another-secret" not in tried.text


def test_an_answer_cannot_steer_the_terminal(table: Path) -> None:
    tried = Tried(table, {"seconds": "\x1b[2J"})
    assert not tried.works
    assert "\x1b" not in tried.text
