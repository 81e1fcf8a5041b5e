"""What `manage.py backend` prints: secrets hidden, hints, classes of one's own, checks, recipes."""

import sys
import types
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from progrock.backends import BackendError, JobView, Options, Status, load
from progrock.backends.http.answers import Answer
from progrock.backends.http.spec import States
from progrock.backends.templates import MISSING
from progrock.trial import hints, recipes
from progrock.trial.masks import Mask
from progrock.trial.run import try_backend
from progrock.trial.variables import missing, shown, variables

TABLE = """
[render]
url = "${BASE:-http://render.internal}"
start = { path = "/tasks?k=${KEY}", body = { deep = [{ a = "x${BODY}" }] } }
poll = { path = "/tasks/{handle}" }
handle = "id"
state = "status"
headers = { Authorization = "Bearer ${TOKEN}", X-File = "${file:FILE}" }
states = { running = ["busy"], succeeded = ["ok"] }
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("file-secret\n")
    file = tmp_path / "backends.toml"
    file.write_text(TABLE.replace("FILE", str(tmp_path / "secret")))
    return file


def mask(table: Path, **environ: str) -> Mask:
    return Mask(load(table)["render"], environ)


# Variables


def test_variables_are_found_wherever_they_stand(table: Path) -> None:
    found = [shown(each) for each in variables(load(table)["render"])]
    file = f"${{file:{table.parent / 'secret'}}}"
    assert found == ["${BASE}", "${KEY}", "${BODY}", "${TOKEN}", file]


def test_what_is_missing_has_no_default_no_value_or_no_file(table: Path) -> None:
    options = load(table)["render"]
    assert missing(options, {"KEY": "1", "BODY": ""}) == ["${BODY}", "${TOKEN}"]
    (table.parent / "secret").unlink()
    file = f"${{file:{table.parent / 'secret'}}}"
    everything = {"KEY": "1", "BODY": "2", "TOKEN": "3"}
    assert missing(load(table)["render"], everything) == [file]


# Masks


def test_a_secret_is_hidden_in_each_of_its_spellings(table: Path) -> None:
    masked = mask(table, TOKEN='s3c/r+t "ü"')
    for written in (
        's3c/r+t "ü"',
        r"s3c/r+t \"ü\"",
        "s3c%2Fr%2Bt%20%22%C3%BC%22",
        "s3c%2fr%2bt%20%22%c3%bc%22",
        "s3c%2Fr%2Bt+%22%C3%BC%22",
        "s3c/r%2Bt%20%22%C3%BC%22",
    ):
        assert masked.text(f"<{written}>") == "<${TOKEN}>", written


def test_the_longer_of_two_secrets_counts_where_both_would_fit(table: Path) -> None:
    masked = mask(table, KEY="abcd", TOKEN="abcdefgh")
    assert masked.text("abcdefgh abcd") == "${TOKEN} ${KEY}"


def test_a_short_value_is_hidden_in_requests_only_and_as_a_word(table: Path) -> None:
    masked = mask(table, KEY="eu")
    assert masked.text("a queue in eu") == "a queue in eu"
    assert masked.request("/queue/eu?k=eu") == "/queue/${KEY}?k=${KEY}"


def test_a_default_is_no_secret_because_it_stands_in_the_table(table: Path) -> None:
    assert mask(table).text("http://render.internal/x") == "http://render.internal/x"
    masked = mask(table, BASE="http://secret.internal/")
    assert masked.text("http://secret.internal/tasks") == "${BASE}/tasks"


def test_a_file_that_changes_is_hidden_in_both_its_texts(table: Path) -> None:
    masked, file = mask(table), f"${{file:{table.parent / 'secret'}}}"
    (table.parent / "secret").write_text("another-secret-text")
    masked.read_files()
    assert masked.text("file-secret another-secret-text") == f"{file} {file}"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("Authorization", "Bearer written-down", "Bearer ***"),
        ("authorization", "written-down", "***"),
        ("X-Api-Key", "written-down", "***"),
        ("Cookie", "a=b; c=d", "***"),
        ("X-Amz-Security-Token", "x", "***"),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=a, Signature=b", "***"),
        ("Authorization", "Bearer tok-0123456789", "Bearer ${TOKEN}"),
        ("Idempotency-Key", "the-job", "the-job"),
        ("Accept", "application/json", "application/json"),
    ],
)
def test_headers_with_credentials_are_hidden(
    table: Path, name: str, value: str, wanted: str
) -> None:
    masked = mask(table, TOKEN="tok-0123456789")
    assert masked.header(name, value) == wanted
    if wanted == "Bearer ***":
        assert masked.text("it was written-down") == "it was ***"


def test_credentials_in_an_address_are_hidden_and_the_jobs_handle_is_not(table: Path) -> None:
    masked = mask(table)
    masked.keep.add("h/1")
    assert masked.text("/x?sig=abc&a=1&api_key=q") == "/x?sig=***&a=1&api_key=***"
    assert masked.text("/x?tokens=h%2F1") == "/x?tokens=h%2F1"
    assert masked.text('"https://x/?X-Amz-Signature=ab12"') == '"https://x/?X-Amz-Signature=***"'


def test_a_value_is_masked_before_it_is_cut(table: Path) -> None:
    masked = mask(table, TOKEN="0123456789" * 20)
    found = {"a": ["x" * 150 + "0123456789" * 20]}
    assert "0123" not in hints.written(masked.value(found))


def test_no_piece_of_a_secret_is_left_of_a_reason_that_was_cut(table: Path) -> None:
    """A backend's reason is cut where it is read, which may be in the middle of a secret."""
    masked = mask(table, TOKEN="tok-0123456789")
    assert masked.text("no such tok-01234 … 56789 here") == "no such ${TOKEN} … ${TOKEN} here"
    assert masked.text("to … 89") == "to … 89"


# Hints


ANSWER = Answer(200, {"content-type": "application/json", "location": "/x"}, b"{}")


@pytest.mark.parametrize(
    ("expression", "body", "wanted"),
    [
        ("a", {"b": 1, "c": 2}, "the answer has these keys: b, c"),
        ("a.b.c", {"a": {"b": {"d": 1}}}, "`a.b` has these keys: d"),
        ("a.b", {"a": 7}, "`a` is 7"),
        ("a", {"a": None}, "`a` is null"),
        ("a", {}, "the answer is an empty object"),
        ("a", [], "the answer is an empty list"),
        ("a", [{"b": 1}], "the answer is a list of 1, and the first entry has these keys: b"),
        ("a | b", None, "the answer is null"),
        ("the header X", {}, "the answer has these headers: content-type, location"),
        ("a", MISSING, "the answer is not JSON (application/json)"),
    ],
)
def test_a_key_that_finds_nothing_says_what_there_is(
    expression: str, body: Any, wanted: str
) -> None:
    assert hints.nothing(expression, body, ANSWER, "the answer") == wanted


def test_an_answer_without_a_body_and_one_that_is_too_large_are_told() -> None:
    empty, large = Answer(200, {}, b""), Answer(200, {}, None, limit=1)
    assert hints.nothing("a", MISSING, empty, "the answer") == "the answer is empty"
    found = hints.nothing("a", MISSING, large, "the answer")
    assert found == "the answer is too large to be read"


def test_the_place_of_what_is_looked_for_is_named() -> None:
    states = States(words={"busy": "running"})
    body = {"data": {"state-of-it": " Busy "}, "n": [1], "list": [{"id": 7}]}
    assert hints.of_a_state(states, body).startswith('; `data."state-of-it"` holds " Busy "')
    assert hints.of_a_list(body) == "; `list` is a list of objects"
    assert hints.of_a_list([{"a": 1}]) == "; `@` is a list of objects"
    assert hints.of_a_handle("7", body) == "; `list[0].id` is the handle"
    assert hints.of_a_handle("8", body) == ""


# A class of one's own


class Gpu:
    """What the test says: `outcomes` are given or raised one after the other."""

    outcomes: Sequence[Any] = ()
    cancelled = 0

    def __init__(self, options: Options) -> None:
        self.options = options
        self.left = list(self.outcomes)

    async def start(self, job: JobView) -> Any:
        return self.next()

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Any]:
        found = self.next()
        return {job.id: found for job in jobs}

    async def cancel(self, job: JobView) -> None:
        type(self).cancelled += 1

    async def aclose(self) -> None:
        """Nothing is open."""

    def next(self) -> Any:
        found = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(found, Exception) and not isinstance(found, BackendError):
            raise found
        return found


def tried(outcomes: Sequence[Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the class works by the trial, and what was printed."""
    monkeypatch.setattr(Gpu, "outcomes", outcomes)
    monkeypatch.setattr(Gpu, "cancelled", 0)
    module = types.ModuleType("mysite_of_the_trial")
    module.Gpu = Gpu  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mysite_of_the_trial", module)
    monkeypatch.setattr("progrock.trial.run.AFTER_A_FAILURE", 0.0)
    file = folder / "backends.toml"
    file.write_text('[gpu]\nclass = "mysite_of_the_trial.Gpu"\ninterval = 0.1\n')
    lines: list[str] = []
    return try_backend(load(file)["gpu"], {}, environ={}, say=lines.append), "\n".join(lines)


def test_a_class_of_ones_own_is_tried_by_the_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = ["h-1", Status(state="running", progress=40), Status(state="succeeded", result=[1])]
    works, text = tried(outcomes, tmp_path, monkeypatch)
    assert works
    assert '  = started, its handle is "h-1"' in text
    assert "  = running, 40 %; the next request in 0.1 s" in text
    assert "  = succeeded, 100 %, result [1]" in text
    assert "gpu works: the job has ended as succeeded, after 2 looks." in text


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [
        (ValueError("no such thing"), "the backend's class failed: ValueError"),
        (BackendError("the cluster is away"), "the cluster is away"),
        ({"state": "running"}, "the backend's class failed: AttributeError"),
        (Status(state="odd"), "the backend's class failed: ValueError"),  # type: ignore[arg-type]
    ],
)
def test_a_class_that_fails_three_times_in_a_row_ends_the_trial(
    outcome: Any, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, text = tried(["h-1", outcome], tmp_path, monkeypatch)
    assert not works
    assert text.count("\nlook ") == 3
    assert text.endswith(f"gpu FAILED: {wanted}")
    assert Gpu.cancelled == 1
    if isinstance(outcome, ValueError):
        assert "Traceback" in text
        assert "ValueError: no such thing" in text


def test_a_pause_that_the_backend_asks_for_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = BackendError("the backend answered 429", status=429, retry_after=0.01)
    nothing = BackendError("the backend has asked for a pause", asked=False, retry_after=0.01)
    outcomes = ["h-1", *[busy] * 3, *[nothing] * 3, Status(state="succeeded")]
    works, text = tried(outcomes, tmp_path, monkeypatch)
    assert works
    assert "  = nothing was sent: the backend has asked for a pause" in text


def test_a_job_that_is_over_at_its_start_needs_no_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works, text = tried([Status(state="succeeded", result="r")], tmp_path, monkeypatch)
    assert works
    assert "look" not in text


# The command


def run(*args: str) -> str:
    out = StringIO()
    call_command("backend", *args, stdout=out, stderr=StringIO(), no_color=True)
    return out.getvalue()


def test_check_says_of_each_table_what_it_can_do_or_what_is_wrong(table: Path) -> None:
    table.write_text(table.read_text() + '[other]\nurl = "http://x"\nstarts = 1\n')
    out = StringIO()
    with pytest.raises(CommandError, match="1 table wrong") as error:
        call_command("backend", "check", str(table), stdout=out, no_color=True)
    assert error.value.returncode == 1
    first, second = out.getvalue().splitlines()
    assert first.startswith("render: ok: looked at every 1 s, cannot cancel, tells no progress")
    assert first.endswith("; still to be set: ${KEY}, ${BODY}, ${TOKEN}")
    assert second.endswith("[other]: found the key 'starts'; wanted start")


def test_check_with_build_wants_the_variables(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEY", "BODY"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(CommandError, match="1 table wrong"):
        run("check", str(table), "--build")
    monkeypatch.setenv("TOKEN", "tok-0123456789")
    said = run("check", str(table), "--build")
    assert said.startswith("render: ok")
    assert "not there" not in said


def test_check_fills_in_the_variables_where_all_are_there(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KEY", "BODY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("TOKEN", "two\nlines")
    with pytest.raises(CommandError, match="1 table wrong"):
        run("check", str(table))


def test_check_reads_the_file_of_the_settings(settings: Any) -> None:
    assert run("check").count(": ok: ") == 3
    settings.PROGROCK_BACKENDS = ""
    with pytest.raises(CommandError, match="PROGROCK_BACKENDS is not set: name a file"):
        run("check")


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (("try", "rendr"), "no backend 'rendr'; wanted one of: render, transcribe, report"),
        (("try", "render", "--params", "{"), "--params is not JSON"),
        (("try", "render", "--params", "[]"), "wanted a JSON object"),
        (("try", "render", "--file", "nowhere.toml"), "nowhere.toml"),
        (("check", "nowhere.toml"), "nowhere.toml"),
    ],
)
def test_a_wrong_command_is_told_in_a_line(args: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(CommandError) as error:
        run(*args)
    assert wanted in str(error.value)


def test_the_schema_is_printed_as_it_ships() -> None:
    assert run("schema").startswith('{\n  "$schema"')


def test_recipes_are_listed_and_printed_and_the_nearest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    text = '# Replicate: one prediction.\n# More.\n\n[replicate]\ntitle = "Replicate, fox"\n'
    (tmp_path / "recipes" / "replicate.toml").write_text(text)
    (tmp_path / "recipes" / "ray_jobs.toml").write_text("# Ray.\n[ray]\n")
    monkeypatch.setattr(recipes, "files", lambda _: tmp_path)
    lines = run("recipes").splitlines()
    assert [line.split() for line in lines] == [
        ["ray_jobs", "ray_jobs"],
        ["Ray."],
        ["replicate", "Replicate,", "fox"],
        ["Replicate:", "one", "prediction."],
    ]
    assert run("recipe", "replicate").strip() == text.strip()
    for wrong, nearest in (
        ("replicat", "replicate"),
        ("Ray", "ray_jobs"),
        ("repicate", "replicate"),
    ):
        with pytest.raises(CommandError, match=f"did you mean {nearest}"):
            run("recipe", wrong)
    with pytest.raises(CommandError, match="lists them"):
        run("recipe", "zzzz")
