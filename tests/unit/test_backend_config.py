"""The backends' file: what it may say, and what a wrong one is told."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import ConfigError, Options, build, load
from progrock.backends.http.spec import HttpSpec
from progrock.backends.http.values import compile_expression
from progrock.backends.templates import Scope

ROOT = Path(__file__).resolve().parents[2]
RIGHT = {
    "url": '"https://render.internal/v1/"',
    "start": '{ path = "/tasks" }',
    "poll": '{ path = "/tasks/{handle}" }',
    "handle": '"id"',
    "state": '"status"',
    "states": '{ running = ["Queued", "running"], succeeded = ["done"] }',
}


class Gpu:
    """A backend class of someone's own."""

    def __init__(self, options: Options, *, zone: str, cards: int = 1) -> None:
        self.options, self.zone, self.cards = options, zone, cards


def toml(changes: dict[str, str | None], name: str = "render") -> str:
    lines = RIGHT | changes
    return f"[{name}]\n" + "\n".join(
        f"{key} = {text}" for key, text in lines.items() if text is not None
    )


def write(folder: Path, text: str) -> Path:
    (folder / "backends.toml").write_text(text, encoding="utf-8")
    return folder / "backends.toml"


def test_the_shipped_file_is_right_and_in_its_order() -> None:
    backends = load(ROOT / "deploy" / "backends.toml")
    assert list(backends) == ["render", "transcribe", "report"]
    render, transcribe, report = backends.values()
    assert isinstance(render.spec, HttpSpec)
    assert render.spec.url.bound("url", {}).filled(Scope()) == "http://127.0.0.1:8090"
    assert render.spec.poll_many is not None
    assert (render.has_progress, render.cancels, render.repeat) == (True, True, True)
    assert (transcribe.has_progress, transcribe.cancels, report.interval) == (False, True, 2.0)


def test_the_least_table_gets_the_documented_defaults(tmp_path: Path) -> None:
    options = load(write(tmp_path, toml({})))["render"]
    assert (options.interval, options.timeout, options.deadline, options.shards) == (
        1.0,
        5.0,
        3600.0,
        2,
    )
    assert (options.concurrency, options.max_answer, options.repeat) == (8, 1 << 20, False)
    assert options.missing_for == 30.0
    assert (options.cancels, options.has_progress) == (False, False)
    assert isinstance(options.spec, HttpSpec)
    assert options.spec.url.filled(Scope()) == "https://render.internal/v1/"
    assert options.spec.states.words == {
        "queued": "running",
        "running": "running",
        "done": "succeeded",
    }


@pytest.mark.parametrize(
    ("changes", "unwatched"),
    [
        ({}, None),
        ({"unwatched": "30"}, 30),
        ({"interval": "5", "unwatched": "5.0"}, None),  # then nobody need know who watches
    ],
)
def test_jobs_that_nobody_watches_may_have_an_interval_of_their_own(
    tmp_path: Path, changes: dict[str, str | None], unwatched: float | None
) -> None:
    assert load(write(tmp_path, toml(changes)))["render"].unwatched == unwatched


@pytest.mark.parametrize(
    ("changes", "lease"),
    [
        ({}, 16.0),
        ({"interval": "0.1"}, 16.0),
        ({"interval": "2.5"}, 16.0),
        ({"interval": "5"}, 31.0),
        ({"interval": "5", "unwatched": "60"}, 31.0),  # while nobody watches there is none
        ({"lease": "0"}, 0.0),
        ({"interval": "5", "lease": "20"}, 20.0),
        ({"interval": "5", "lease": "600.5"}, 600.5),
    ],
)
def test_a_lease_is_some_intervals_unless_the_table_says_otherwise(
    tmp_path: Path, changes: dict[str, str | None], lease: float
) -> None:
    assert load(write(tmp_path, toml(changes)))["render"].lease == lease


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"interval": "5", "lease": "19.9"}, "0, or at least 20, which is 4 times `interval`"),
        ({"lease": "3"}, "0, or at least 4, which is 4 times `interval`"),
        ({"lease": "-1"}, "0"),
        ({"lease": '"long"'}, "a number"),
    ],
)
def test_a_lease_that_would_hardly_save_a_write_is_refused(
    tmp_path: Path, changes: dict[str, str | None], wanted: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, toml(changes)))
    assert "lease" in error.value.where
    assert wanted in error.value.wanted


def test_options_that_are_made_in_python_have_the_usual_lease() -> None:
    assert (Options(name="a").lease, Options(name="a", interval=5.0).lease) == (16.0, 31.0)
    assert Options(name="a", lease=0.0).lease == 0.0


@pytest.mark.parametrize(
    ("start", "repeat"),
    [
        ('path = "/tasks"', False),
        ('path = "/tasks/{job}", method = "PUT"', True),
        ('path = "/tasks", headers = { Idempotency-Key = "{job}" }', True),
        ('path = "/tasks", body = { deep = [{ token = "x-{job}" }] }', True),
        ('path = "/tasks", form = { token = "{job}" }', True),
        ('path = "/tasks/{job}", repeat = false', False),
        ('path = "/tasks", repeat = true', True),
    ],
)
def test_a_start_may_be_repeated_where_it_names_the_job(
    tmp_path: Path, start: str, repeat: bool
) -> None:
    text = toml({"start": f"{{ {start} }}"})
    assert load(write(tmp_path, text))["render"].repeat is repeat


@pytest.mark.parametrize(
    ("changes", "where", "found", "wanted"),
    [
        ({"url": None}, "[render] url", "nothing", "an address"),
        ({"url": '"ftp://x"'}, "[render] url", "ftp://x", "an address"),
        ({"url": '"http://x:99999"'}, "[render] url", "http://x:99999", "an address"),
        ({"url": '"http://x/?a=1"'}, "[render] url", "?a=1", "without ?"),
        ({"url": "7"}, "[render] url", "7", "an address"),
        ({"timeot": "5"}, "[render]", "'timeot'", "timeout"),
        ({"zzz": "5"}, "[render]", "'zzz'", "interval, timeout"),
        ({"timeout": '"5"'}, "[render] timeout", "'5'", "a number from 0.1 to 86400"),
        ({"timeout": "nan"}, "[render] timeout", "nan", "a number"),
        ({"timeout": "true"}, "[render] timeout", "True", "a number"),
        ({"deadline": "1e12"}, "[render] deadline", "1000000000000.0", "from 1 to 315360000"),
        ({"deadline": "inf"}, "[render] deadline", "inf", "from 1 to 315360000"),
        ({"interval": "1e6"}, "[render] interval", "1000000.0", "from 0.1 to 86400"),
        ({"missing_for": "86401"}, "[render] missing_for", "86401", "from 0 to 86400"),
        ({"interval": "0"}, "[render] interval", "0", "from 0.1 to 86400"),
        ({"unwatched": "0.05"}, "[render] unwatched", "0.05", "from 0.1 to 86400"),
        ({"interval": "5", "unwatched": "4.5"}, "[render] unwatched", "4.5", "5 or more, because"),
        ({"shards": "0"}, "[render] shards", "0", "a whole number from 1 to 256"),
        ({"shards": "1.5"}, "[render] shards", "1.5", "a whole number"),
        ({"state": '"status["'}, "[render] state", "status[", "JMESPath"),
        ({"state": '""'}, "[render] state", "''", "JMESPath"),
        ({"message": "3"}, "[render] message", "3", "JMESPath"),
        ({"handle": None}, "[render] handle", "nothing", "JMESPath"),
        ({"start": None}, "[render] start", "nothing", "path"),
        ({"start": '"/tasks"'}, "[render] start", "/tasks", "a table"),
        ({"start": '{ path = "/tasks/{handle}" }'}, "[render] start path", "{handle}", "{params}"),
        ({"start": '{ path = "tasks" }'}, "[render] start path", "tasks", "/tasks"),
        (
            {"start": '{ path = "/tasks", method = "HEAD" }'},
            "[render] start method",
            "HEAD",
            "POST",
        ),
        (
            {"start": '{ path = "/t", repeat = "no" }'},
            "[render] start repeat",
            "no",
            "true or false",
        ),
        ({"poll": None}, "[render] poll", "nothing", "poll_many"),
        ({"poll": '{ path = "/tasks/{id}" }'}, "[render] poll path", "{id}", "{handle}"),
        ({"poll": '{ path = "/tasks" }'}, "[render] poll", "no hole", "{handle}"),
        (
            {"poll_many": '{ path = "/t?i={handles}" }'},
            "[render] poll_many items",
            "nothing",
            "JMESPath",
        ),
        ({"states": None}, "[render] states", "nothing", "words"),
        ({"states": '{ running = ["a"] }'}, "[render] states", "running", "succeeded"),
        (
            {"states": '{ running = ["a"], succeeded = ["A"] }'},
            "[render] states",
            "a",
            "stands twice",
        ),
        (
            {"states": '{ running = ["a", "a"], succeeded = ["b"] }'},
            "[render] states",
            "a",
            "stands twice",
        ),
        (
            {"states": '{ running = "a", succeeded = ["b"] }'},
            "[render] states running",
            "'a'",
            "a list",
        ),
        ({"states": '{ runing = ["a"] }'}, "[render] states", "'runing'", "running"),
        ({"headers": '{ "a b" = "c" }'}, "[render] headers", "a b", "HTTP headers"),
        ({"headers": "{ a = 1 }"}, "[render] headers", "1", "HTTP headers"),
        ({"headers": '"x"'}, "[render] headers", "'x'", "HTTP headers"),
    ],
)
def test_a_wrong_table_is_told_where_what_was_found_and_what_was_wanted(
    tmp_path: Path, changes: dict[str, str | None], where: str, found: str, wanted: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write(tmp_path, toml(changes)))
    assert raised.value.where.endswith(f"backends.toml: {where}")
    assert found in raised.value.found
    assert wanted in raised.value.wanted
    assert str(raised.value).count("\n") == 0


@pytest.mark.parametrize("name", ["Render", "7up", "a.b", '"a*"', "x" * 41])
def test_a_name_that_would_break_routing_keys_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        load(write(tmp_path, toml({}, name)))


def test_a_file_that_is_missing_empty_or_no_toml_is_told_so(tmp_path: Path) -> None:
    for path in (tmp_path / "none.toml", write(tmp_path, ""), write(tmp_path, "[render")):
        with pytest.raises(ConfigError, match=r"TOML|a table for each backend"):
            load(path)
    with pytest.raises(ConfigError, match=r"the key 'url' outside of .* a line such as \[render\]"):
        load(write(tmp_path, 'url = "http://127.0.0.1:8090"\n[render]\n'))
    with pytest.raises(ConfigError, match=re.escape("found [[render]]; wanted [render]")):
        load(write(tmp_path, "[[render]]\n"))


def test_variables_are_filled_in_when_a_worker_builds_the_backend_and_stay_out_of_errors(
    tmp_path: Path,
) -> None:
    options = load(write(tmp_path, toml({"url": '"${SCHEME:-https}://${HOST}/v1"'})))["render"]
    backend = build(options, {"HOST": "render.example"})
    assert isinstance(backend.options.spec, HttpSpec)
    assert backend.options.spec.url.filled(Scope()) == "https://render.example/v1"
    with pytest.raises(ConfigError, match="no HOST in the environment"):
        build(options, {})
    with pytest.raises(ConfigError) as raised:
        build(options, {"HOST": "hunter2 with a space"})
    assert "hunter2" not in str(raised.value)


def test_headers_are_read_from_the_environment_only_when_a_worker_builds_the_backend(
    tmp_path: Path,
) -> None:
    options = load(write(tmp_path, toml({"headers": '{ Authorization = "Bearer ${TOKEN}" }'})))[
        "render"
    ]
    assert "TOKEN" not in repr(options)
    with pytest.raises(ConfigError, match="no TOKEN in the environment"):
        build(options, {})
    with pytest.raises(ConfigError, match="line break") as raised:
        build(options, {"TOKEN": "hunter2\r\nX: y"})
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(build(options, {"TOKEN": "hunter2"}).options)


def test_reading_the_file_loads_no_http_client() -> None:
    read = f"from progrock.backends import load; load({str(ROOT / 'deploy/backends.toml')!r})"
    code = f"import sys; {read}; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_http_backend_is_importable_from_the_package_for_classes_that_extend_it() -> None:
    from progrock.backends import http
    from progrock.backends.http.client import HttpBackend

    assert http.HttpBackend is HttpBackend
    with pytest.raises(AttributeError, match="no attribute 'HtpBackend'"):
        _ = http.HtpBackend


def test_a_class_gets_the_tables_other_keys(tmp_path: Path) -> None:
    text = (
        f'[gpu]\nclass = "{__name__}.Gpu"\ninterval = 3\ncancels = false\nzone = "eu"\ncards = 4\n'
    )
    options = load(write(tmp_path, text))["gpu"]
    assert (options.interval, options.cancels, options.has_progress) == (3, False, True)
    backend: Any = build(options)
    assert (backend.options, backend.zone, backend.cards) == (options, "eu", 4)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('class = "nowhere.Gpu"', "No module named 'nowhere'"),
        (f'class = "{__name__}.Cpu"', "has no attribute 'Cpu'"),
        (f'class = "{__name__}.Gpu"', "missing a required"),
        (
            f'class = "{__name__}.Gpu"\nzone = "eu"\ntimeot = 5',
            "unexpected keyword argument 'timeot'",
        ),
        ('class = "Gpu"', "dotted path"),
        ("class = 5", "dotted path"),
    ],
)
def test_a_class_that_does_not_fit_stops_the_start(tmp_path: Path, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write(tmp_path, f"[gpu]\n{text}\n"))
    assert wanted in str(raised.value)


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
)


@given(json, st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join))
def test_plain_paths_find_what_jmespath_finds(answer: object, expression: str) -> None:
    assert compile_expression(expression)(answer) == jmespath.search(expression, answer)


def test_other_expressions_are_jmespaths_own() -> None:
    first_b = compile_expression("tasks[?id=='b'].status | [0]")
    assert first_b({"tasks": [{"id": "b", "status": "done"}]}) == "done"
    assert compile_expression("`7`")({}) == 7


@pytest.mark.parametrize(
    ("changes", "reads"),
    [
        ({}, False),
        ({"start": '{ path = "/tasks", body = { a = "{params.a}" } }'}, False),
        ({"poll": '{ path = "/tasks/{params.a}/{handle}" }'}, True),
        ({"poll": '{ path = "/{handle}", headers = { X-Kind = "{params.a}" } }'}, True),
        ({"cancel": '{ path = "/{handle}", body = { why = "{params.a}" } }'}, True),
        ({"headers": '{ X-Kind = "{params.a}" }'}, True),
    ],
)
def test_params_are_read_where_a_look_or_a_cancel_needs_them(
    tmp_path: Path, changes: dict[str, str | None], reads: bool
) -> None:
    assert load(write(tmp_path, toml(changes)))["render"].reads_params is reads


def test_a_class_may_always_ask_for_params(tmp_path: Path) -> None:
    options = load(write(tmp_path, '[own]\nclass = "tests.bench.noop.Noop"\n'))["own"]
    assert options.reads_params
