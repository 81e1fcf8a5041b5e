"""What an answer says: values out of it, looks, starts, second requests and refusals."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, ConfigError, Handle, JobView, Status
from progrock.backends.http.answers import Answer
from progrock.backends.http.reader import Reader
from progrock.backends.http.values import progress
from tests.language import Notes, answer, job, options, reader, scope, spec

NOTHING = scope()


def look(found: Answer, handle: str = "h1", **lines: str | None) -> Status:
    return reader(**lines).look(found, scope(handle, {"kind": "film"}))


def fails(found: Answer, **lines: str | None) -> BackendError:
    with pytest.raises(BackendError) as raised:
        look(found, **lines)
    assert not raised.value.final
    return raised.value


# Values


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ('"a.b"', "deep"),
        ("'\"task-id\"'", "7"),
        ('"c[0]"', "x"),
        ('"length(c)"', "2"),
        ('"e"', '{"f":null}'),
        ('"none"', None),
        ('"nothing.at.all"', None),
        ('{ header = "X-Stage" }', "reading"),
        ('{ header = "x-stage" }', "reading"),
        ('{ header = "X-None" }', None),
        ('{ text = "{params.kind} of {job} at {handle}" }', "film of j1 at h1"),
        ('{ text = "{params.none}" }', None),
        ('"abs(a.b)"', None),  # fails, since that is no number
        ('"sort(c)"', None),  # fails, since it holds both kinds
        ("\"join(',', c)\"", None),
    ],
)
def test_a_value_is_an_expression_a_header_or_a_text(message: str, wanted: str | None) -> None:
    body = {"status": "running", "a": {"b": "deep"}, "task-id": 7, "c": ["x", 1], "e": {"f": None}}
    found = answer(body | {"none": None}, headers={"x-stage": "reading"})
    status = look(found, message=message)
    assert (status.state, status.message) == ("running", wanted)


def test_only_state_can_spoil_a_look_and_every_other_value_is_missing() -> None:
    broken = {"message": '"abs(a)"', "progress": '"abs(a)"', "result": '"abs(a)"', "error": '"x.y"'}
    status = look(answer({"status": "done", "a": "x"}), moves='"abs(a)"', **broken)
    assert status == Status(state="succeeded")
    assert fails(answer({"status": "done"}), state='"abs(status)"').sentence == (
        "the backend answered without a state"
    )


def test_what_a_value_finds_is_noted_with_its_key() -> None:
    notes = Notes()
    found = Reader(spec(message='"stage"', result='"output"'), notes)
    found.notes_all = True
    found.look(answer({"status": "done", "output": 7}), NOTHING)
    assert ("state", "status", "done") in notes
    assert ("message", "stage", None) in notes
    assert ("result", "output", 7) in notes


@pytest.mark.parametrize(
    ("written", "key", "told"),
    [
        ('"headers.Location"', "handle", '{ header = "Location" }'),
        ('"header.Location"', "moves", '{ header = "Location" }'),
        ('"100 * done / total"', "progress", '{ done = "done", of = "total" }'),
        ('"a.done / a.total"', "progress", '{ done = "a.done", of = "a.total" }'),
        ('"100 - percent"', "progress", "without arithmetic"),
        ('"task-id"', "handle", "'\"task-id\"'"),
        ('"data.task-id"', "handle", "'data.\"task-id\"'"),
        ('"status["', "state", "a JMESPath expression"),
        ("7", "message", "a JMESPath expression"),
        ('["a"]', "message", "a JMESPath expression"),
        ('{ heder = "X" }', "message", "a JMESPath expression"),
        ("{ header = 7 }", "message", "a JMESPath expression"),
        ('{ done = "a", of = "b" }', "message", "a JMESPath expression"),
        ('{ done = "a" }', "progress", '{ done = "…", of = "…" }'),
        ('{ done = "a", of = 7 }', "progress", "a JMESPath expression"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_what_to_write(
    written: str, key: str, told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        options(**{key: written})
    assert f"[render] {key}" in raised.value.where
    assert told in raised.value.wanted


# Progress


@pytest.mark.parametrize(
    ("value", "scale", "wanted"),
    [
        (45, 100, 45.0),
        (0.25, 1, 25.0),
        ("45", 100, 45.0),
        ("45%", 100, 45.0),
        (" 45.5 % ", 100, 45.5),
        ("45%", 1, 45.0),  # a percent sign says what the whole is
        ("2/4", 100, 50.0),
        (" 2 / 4 ", 1, 50.0),
        ("1.5/3", 100, 50.0),
        ("5/4", 100, 100.0),
        ("2/0", 100, None),
        ("2/", 100, None),
        ("a/b", 100, None),
        ("1.2.3/4", 100, None),
        ("%", 100, None),
        ("nan", 100, None),
        ("inf", 100, None),
        (math.nan, 100, None),
        (math.inf, 100, None),
        (10**400, 100, None),
        (1e300, 100, 100.0),
        (-5, 100, 0.0),
        (True, 100, None),
        (None, 100, None),
        ({}, 100, None),
        ([50], 100, None),
        ("", 100, None),
        ("soon", 100, None),
    ],
)
def test_progress_understands_shares_and_percents(
    value: Any, scale: float, wanted: float | None
) -> None:
    assert progress(value, scale) == wanted


@pytest.mark.parametrize(
    ("done", "of", "wanted"),
    [
        (2, 4, 50.0),
        ("2", "4", 50.0),
        (0, 4, 0.0),
        (4, 4, 100.0),
        (9, 4, 100.0),
        (2, 0, None),
        (2, None, None),
        (None, 4, None),
        (2, "many", None),
        (True, 4, None),
        (1e300, 1e-300, None),
        (10**400, 10**400, None),
        (-1, 4, 0.0),
    ],
)
@pytest.mark.parametrize("scale", ["1", "100", "1e15"])
def test_progress_is_how_much_of_how_much(done: Any, of: Any, wanted: float, scale: str) -> None:
    found = reader(progress='{ done = "a", of = "b" }', progress_scale=scale)
    body = {"status": "running", "a": done, "b": of}
    raw = str(body).replace("'", '"').replace("None", "null").replace("True", "true").encode()
    status = found.look(answer(raw), NOTHING)
    assert status.progress == (wanted if wanted is None else pytest.approx(wanted))


def test_progress_may_be_a_header() -> None:
    found = answer({"status": "running"}, headers={"x-progress": "3/4"})
    assert look(found, progress='{ header = "X-Progress" }').progress == 75.0


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9))
def test_progress_is_from_0_to_100_or_unknown(value: Any) -> None:
    found = progress(value, 1.0)
    assert found is None or 0 <= found <= 100


# States: words


WORDS = (
    '{ running = ["In Progress", "true", "1"], succeeded = ["Done", "2.5"], failed = ["false"] }'
)


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("in progress", "running"),
        ("  IN PROGRESS\n", "running"),
        ("done", "succeeded"),
        ("DONE", "succeeded"),
        (True, "running"),
        (False, "failed"),
        (1, "running"),
        ("1", "running"),
        (2.5, "succeeded"),
    ],
)
def test_a_word_decides_without_case_and_blanks_and_numbers_count_as_their_text(
    word: Any, state: str
) -> None:
    assert look(answer({"status": word}), states=WORDS).state == state


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("paused", "the backend answered with an unknown state: paused"),
        ("in  progress", "the backend answered with an unknown state: in  progress"),
        ("x" * 200, "the backend answered with an unknown state: " + "x" * 50),
        (1.0, "the backend answered with an unknown state: 1.0"),
        (200, "the backend answered with an unknown state: 200"),
        ([], "the backend answered with an unknown state: []"),
        (None, "the backend answered without a state"),
    ],
)
def test_a_word_in_no_list_fails_the_look(word: Any, told: str) -> None:
    error = fails(answer({"status": word}, wait=7.0), states=WORDS)
    assert (error.sentence, error.status, error.retry_after) == (told, 200, 7.0)


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ('{ succeeded = ["a"], failed = ["A "] }', "stands twice"),
        ("{ succeeded = [200], failed = [200] }", "stands twice"),
        ('{ succeeded = ["*"], failed = ["*", "a"] }', "stands twice"),
        ('{ succeeded = ["*"] }', "beside it"),
        ("{ succeeded = [] }", "a list of words"),
        ('{ running = ["a"] }', "succeeded"),
        ('{ succeeded = ["a"], running = [true] }', '"true"'),
        ('{ succeeded = ["a"], running = [3] }', '"3"'),
        ('{ succeeded = ["a"], running = [600] }', '"600"'),
        ('{ succeeded = ["a"], running = [1.5] }', "a list of words"),
        ('{ succeeded = ["a"], runing = ["b"] }', "running"),
    ],
)
def test_wrong_states_are_told(states: str, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        options(states=states)
    assert "[render] states" in raised.value.where
    assert told in raised.value.wanted


def test_state_may_be_left_out_where_no_word_is_listed_and_not_otherwise() -> None:
    options(state=None, states="{ running = [202], succeeded = [200] }")
    for states in ('{ succeeded = ["a"] }', '{ running = ["*"], succeeded = [200] }'):
        with pytest.raises(ConfigError, match=r"\[render\] state:"):
            options(state=None, states=states)
    many = '{ path = "/t?i={handles}", items = "items", id = "id" }'
    with pytest.raises(ConfigError, match="all share one HTTP status"):
        options(state=None, states="{ succeeded = [200] }", poll_many=many)


# States: HTTP statuses

STATUSES = (
    '{ running = ["run", 202, 503], succeeded = ["ok", 303], failed = [422, 404, 401],'
    ' cancelled = [410, "*"] }'
)


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (202, {"status": "ok"}, "succeeded"),  # a word is stronger than the status
        (422, {"status": "run"}, "running"),
        (500, {"status": "run"}, "running"),
        (202, b"", "running"),
        (202, {"status": "odd"}, "running"),  # a status is stronger than *
        (202, {}, "running"),
        (303, b"", "succeeded"),
        (422, b"", "failed"),
        (422, {"status": "odd"}, "failed"),
        (404, b"", "failed"),
        (404, {"status": "run"}, "failed"),  # such an answer does not speak of the job
        (410, b"", "cancelled"),
        (503, {"status": "ok"}, "running"),
        (401, {"status": "ok"}, "failed"),
        (200, {"status": "odd"}, "cancelled"),
        (302, {"status": "odd"}, "cancelled"),
        (200, {"status": ["x"]}, "cancelled"),
        (202, b"<html>", "running"),
    ],
)
def test_a_word_then_a_status_then_the_star_decides(status: int, body: Any, state: str) -> None:
    assert look(answer(body, status), states=STATUSES).state == state


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"", "the backend answered with something that is not JSON"),
        (200, b"<html>", "the backend answered with something that is not JSON"),
        (200, {}, "the backend answered without a state"),
        (200, {"status": None}, "the backend answered without a state"),
        (200, None, "the backend's answer is larger than 1,000 bytes"),
        (400, {"status": "odd"}, "the backend answered 400"),  # no * from 400 on
        (500, {"status": "odd"}, "the backend answered 500"),
        (403, {"status": "ok"}, "the backend answered 403"),
        (429, {"status": "ok"}, "the backend answered 429"),
        (502, {"status": "ok"}, "the backend answered 502"),
        (504, {"status": "ok"}, "the backend answered 504"),
        (302, b"", "the backend answered 302, and redirects are not followed"),
    ],
)
def test_what_nothing_decides_is_a_failed_look(status: int, body: Any, told: str) -> None:
    error = fails(answer(body, status, wait=3.0), states=STATUSES)
    assert (error.sentence, error.forgotten, error.retry_after) == (told, False, 3.0)


def test_without_state_the_sentence_names_the_status() -> None:
    only = "{ running = [202], succeeded = [303] }"
    assert fails(answer(b"", 200), state=None, states=only).sentence == (
        "the backend answered 200, which stands in no list of `states`"
    )
    assert look(answer(b"", 202), state=None, states=only).state == "running"


@pytest.mark.parametrize("status", [404, 410])
def test_404_and_410_in_no_list_mean_not_known(status: int) -> None:
    assert fails(answer(b"", status)).forgotten
    assert fails(answer({"status": "done"}, status)).forgotten
    assert fails(answer({"detail": "gone"}, status)).sentence.endswith(f"{status}: gone")


PAGE = b"\n <!DOCTYPE HTML><html>no such page"


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(
    "found", [(PAGE, {}), (b"<html>", {}), (b"x", {"content-type": "Text/HTML; charset=x"})]
)
def test_a_404_with_a_page_is_a_proxys_even_where_404_is_listed(
    status: int, found: tuple[bytes, dict[str, str]]
) -> None:
    body, headers = found
    for states in ('{ succeeded = ["done"] }', STATUSES):
        error = fails(answer(body, status, headers=headers), states=states)
        assert not error.forgotten
        assert error.sentence.endswith("with an HTML page, which is a proxy's")


def test_where_no_json_is_spoken_a_404_with_a_page_is_the_backends() -> None:
    only: dict[str, str | None] = {"state": None, "states": "{ succeeded = [200] }"}
    assert fails(answer(PAGE, 404), **only).forgotten
    listed: dict[str, str | None] = {"state": None}
    listed["states"] = "{ running = [404], succeeded = [200] }"
    assert look(answer(PAGE, 404), **listed).state == "running"


# moves


@pytest.mark.parametrize(
    ("moved", "handle"),
    [
        ("/run/7", "/run/7"),
        (7, "7"),
        ("h1", None),  # as before
        (None, None),
        ("", None),
        (False, None),
        (True, None),
        (1.5, None),
        ({"a": 1}, None),
        ("..", None),
        ("a\nb", None),
        ("x" * 4096, "x" * 4096),
        ("x" * 4097, None),
    ],
)
def test_moves_is_the_handle_from_now_on_and_the_job_runs_on(
    moved: Any, handle: str | None
) -> None:
    status = look(answer({"status": "done", "run": moved}), moves='"run"')
    assert (status.state, status.handle) == ("running" if handle else "succeeded", handle)


def test_moves_counts_in_no_error_and_in_no_start() -> None:
    assert fails(answer({"run": "x"}, 500), moves='"run"').status == 500
    found = reader(moves='"run"').start(answer({"run": "x", "status": "done"}), NOTHING)
    assert isinstance(found, Status)
    assert (found.state, found.handle) == ("succeeded", None)


def test_one_address_absolute_and_relative_moves_at_most_once() -> None:
    lines = {"moves": '{ header = "Location" }', "poll": '{ path = "{+handle}" }'}
    here = answer({"status": "done"}, headers={"location": "/jobs/5"})
    first = look(here, "https://render.internal/jobs/5", **lines)
    assert first.handle in (None, "/jobs/5")
    assert look(here, first.handle or "/jobs/5", **lines).state == "succeeded"


# Ends


def test_an_end_brings_result_error_and_message() -> None:
    lines = {"result": '"out"', "error": '"why"', "message": '"at"', "progress": '"p"'}
    body = {"out": {"a": [None]}, "why": {"code": 7}, "at": 3, "p": 10}
    done = look(answer(body | {"status": "done"}, wait=3.0), **lines)
    assert (done.result, done.error, done.message) == ({"a": [None]}, None, "3")
    broken = look(answer(body | {"status": "broken"}), **lines)
    assert (broken.result, broken.error, broken.progress) == (None, '{"code":7}', 10.0)


def test_a_failure_by_the_status_alone_has_the_reason_of_the_answer() -> None:
    states = '{ succeeded = ["done"], failed = [422, 500] }'
    assert look(answer({"detail": "too long"}, 422), states=states).error == "too long"
    plain = answer(b"no\nmore", 500, headers={"content-type": "text/plain"})
    assert look(plain, states=states).error == "no"
    assert look(answer(b"", 422), states=states).error is None


def test_a_result_too_large_ends_the_job_where_the_status_says_that_it_succeeded() -> None:
    status = look(answer(None, 200), state=None, states="{ succeeded = [200] }", result='"out"')
    assert (status.state, status.result) == ("succeeded", None)
    assert status.message == "the result is too large to keep: above 1,000 bytes"
    header = '{ header = "X-State" }'
    large = answer(None, 200, headers={"x-state": "done"})
    assert look(large, state=header).message == status.message


# poll_many

MANY = '{ path = "/t?i={handles}", items = "jobs", id = "id" }'


def looks(found: Reader, said: Answer, jobs: list[JobView]) -> dict[str, Status | BackendError]:
    assert found.spec.poll_many is not None
    return found.looks(said, found.items(said, found.spec.poll_many, []), jobs)


def test_each_item_has_its_word_and_the_status_of_the_list_says_nothing_of_a_job() -> None:
    states = '{ running = ["run"], succeeded = ["ok", 200], failed = ["*"] }'
    found = reader(poll_many=MANY, states=states)
    jobs = [job("1", id="a"), job("2", id="b"), job("3", id="c"), job("4", id="d")]
    items = [{"id": 1, "status": "run"}, {"id": "2"}, {"id": 3, "status": "odd"}]
    said = looks(found, answer({"jobs": items}, wait=2.0), jobs)
    first, second, third, fourth = (said[each.id] for each in jobs)
    assert isinstance(first, Status)
    assert (first.state, first.retry_after) == ("running", 2.0)
    assert isinstance(second, BackendError)
    assert second.sentence == "the backend answered without a state"
    assert isinstance(third, Status)
    assert third.state == "failed"
    assert isinstance(fourth, BackendError)
    assert (fourth.forgotten, fourth.retry_after) == (True, 2.0)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 200, "without a list of jobs"),
        ({"jobs": {"a": 1}}, 200, "without a list of jobs"),
        ({"jobs": None}, 200, "without a list of jobs"),
        (b"", 200, "not JSON"),
        (b"<html>", 200, "not JSON"),
        (None, 200, "larger than 1,000 bytes"),
        ({"jobs": []}, 302, "redirect"),
        ({"detail": "no"}, 500, "the backend answered 500: no"),
    ],
)
def test_an_answer_about_many_that_cannot_be_used_fails_all(
    body: Any, status: int, told: str
) -> None:
    found = reader(poll_many=MANY)
    with pytest.raises(BackendError, match=told):
        looks(found, answer(body, status), [job()])


def test_items_of_any_kind_harm_no_other_job() -> None:
    found = reader(poll_many=MANY)
    items = [None, 7, "x", [], {"id": None}, {"id": {}}, {"id": "h1", "status": "done"}]
    said = looks(found, answer({"jobs": items}), [job()])
    assert said["j1"] == Status(state="succeeded")


@pytest.mark.parametrize(
    ("many", "joins"),
    [
        ('path = "/t?i={handles}"', True),
        ('path = "/t", method = "POST", body = { ids = "{handles}" }', False),
        ('path = "/t", method = "POST", body = { ids = ["{handles}"] }', False),
        ('path = "/t", method = "POST", body = { ids = "a,{handles}" }', True),
        ('path = "/t", method = "POST", form = { ids = "{handles}" }', False),
        ('path = "/t", headers = { X-Ids = "{handles}" }', True),
        ('path = "/t", headers = { X-Ids = "x {#handles}" }', True),
    ],
)
def test_it_is_known_where_handles_are_joined_with_commas(many: str, joins: bool) -> None:
    found = spec(poll_many=f'{{ {many}, items = "jobs", id = "id" }}').poll_many
    assert found is not None
    assert found.joins_handles is joins


# Starts


def start(found: Answer, **lines: str | None) -> Handle | Status:
    return reader(**lines).start(found, scope("", {"kind": "film"}))


def no(found: Answer, **lines: str | None) -> BackendError:
    with pytest.raises(BackendError) as raised:
        start(found, **lines)
    return raised.value


@pytest.mark.parametrize(
    ("value", "handle"),
    [
        ("a/b c", "a/b c"),
        (7, "7"),
        (0, "0"),
        (2**64 - 1, str(2**64 - 1)),
        ("x" * 4096, "x" * 4096),
        ("é", "é"),
        ("a,b", "a,b"),
    ],
)
def test_a_start_with_a_handle_has_begun(value: Any, handle: str) -> None:
    for status in (200, 201, 202, 302, 303):
        found = start(answer({"id": value, "status": "broken"}, status, wait=4.0))
        assert isinstance(found, Handle)
        assert (str(found), found.retry_after) == (handle, 4.0)


def test_a_handle_of_any_length_of_digits_stays_digit_for_digit() -> None:
    assert start(answer(b'{"id": 123456789012345678901234567890}')) == (
        "123456789012345678901234567890"
    )


@pytest.mark.parametrize(
    "value",
    [False, True, 1.5, 7.0, {}, [], ["a"], "", ".", "..", "a\nb", "a\0b", "x" * 4097, "\u202e"],
)
def test_a_handle_that_is_none_fails_the_job_at_once(value: Any) -> None:
    error = no(answer({"id": value}))
    assert error.sentence == "the backend answered without a usable handle for the job"
    assert (error.final, error.status) == (True, 200)


def test_a_handle_may_be_a_header_or_an_id_of_ones_own() -> None:
    found = answer(b"null", 201, headers={"location": "/jobs/5"})
    assert start(found, handle='{ header = "Location" }') == "/jobs/5"
    assert start(answer(b"", 204), handle='{ text = "x-{job}-{params.kind}" }') == "x-j1-film"


@pytest.mark.parametrize(
    ("body", "status", "state", "error"),
    [
        ({"status": "broken", "why": "no"}, 200, "failed", "no"),
        ({"status": "DONE"}, 201, "succeeded", None),
        ({"status": "broken", "id": None, "why": "x"}, 200, "failed", "x"),
        ({"status": "broken", "id": "", "why": "x"}, 200, "failed", "x"),
    ],
)
def test_a_start_without_a_handle_may_be_the_jobs_end(
    body: Any, status: int, state: str, error: str | None
) -> None:
    found = start(answer(body, status), error='"why"')
    assert isinstance(found, Status)
    assert (found.state, found.error) == (state, error)


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({}, 202, "the backend answered 202, but `handle` found nothing"),
        (b"", 200, "the backend answered 200, but `handle` found nothing"),
        (b"<html>", 200, "the backend answered 200, but `handle` found nothing"),
        (None, 200, "the backend answered 200, but `handle` found nothing"),
        ({"status": "running"}, 200, "the backend answered 200, but `handle` found nothing"),
        (
            {"detail": "queue is full"},
            202,
            "the backend answered 202, but `handle` found nothing: queue is full",
        ),
        (b"", 302, "the backend answered 302, but `handle` found nothing"),
    ],
)
def test_a_start_with_neither_handle_nor_end_fails_the_job_at_once(
    body: Any, status: int, told: str
) -> None:
    error = no(answer(body, status))
    assert (error.sentence, error.final, error.status) == (told, True, status)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451])
def test_a_4xx_is_a_refusal(status: int) -> None:
    error = no(answer({"detail": "because"}, status, wait=3.0))
    assert (error.final, error.sent, error.status) == (True, True, status)
    assert error.sentence == f"the backend answered {status}: because"
    assert error.retry_after == 3.0


@pytest.mark.parametrize("status", [408, 423, 425, 429])
@pytest.mark.parametrize("wait", [None, 0.0, 9.0])
def test_not_now_is_no_refusal_and_surely_nothing_was_started(
    status: int, wait: float | None
) -> None:
    error = no(answer(b"", status, wait=wait))
    assert (error.final, error.sent, error.retry_after) == (False, False, wait)


@pytest.mark.parametrize(
    ("status", "wait", "sent"),
    [
        *((500, None, True), (500, 9.0, True), (502, 9.0, True), (504, None, True)),
        *((503, None, True), (503, 9.0, False), (503, 0.0, False), (599, None, True)),
    ],
)
def test_a_5xx_leaves_open_whether_the_job_was_started(
    status: int, wait: float | None, sent: bool
) -> None:
    error = no(answer({"message": "oh"}, status, wait=wait))
    assert (error.final, error.sent) == (False, sent)
    assert error.sentence == f"the backend answered {status}: oh"


def test_a_status_in_taken_counts_as_started() -> None:
    lines = {"start": '{ path = "/tasks/{job}", method = "PUT", taken = [409] }'}
    own = lines | {"handle": '{ text = "{job}" }'}
    assert start(answer({"detail": "exists"}, 409), **own) == "j1"
    assert start(answer({"id": "old"}, 409), **lines) == "old"
    error = no(answer({"detail": "exists"}, 409), **lines)
    assert error.final
    assert error.sentence.endswith("409, but `handle` found nothing: exists")
    assert not no(answer({"id": "x"}, 500), **lines).final
    assert no(answer({"id": "x"}, 422), **lines).final


@pytest.mark.parametrize("taken", ["[200]", "[600]", '["409"]', "409", "[true]"])
def test_a_wrong_taken_is_told(taken: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] start taken"):
        options(start=f'{{ path = "/t", taken = {taken} }}')


# Reasons


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": {"message": "a"}, "detail": "b", "message": "c"}, "a"),
        ({"detail": "b", "message": "c", "title": "d", "error": "e"}, "b"),
        ({"message": "c", "title": "d", "error": "e"}, "c"),
        ({"title": "d", "error": "e"}, "d"),
        ({"error": "e"}, "e"),
        ({"error": {"code": 7}}, '{"code":7}'),
        ({"detail": [{"loc": ["x"], "msg": "bad"}]}, '[{"loc":["x"],"msg":"bad"}]'),
        ({"detail": "", "message": "c"}, "c"),
        ({"detail": None, "error": {"message": None}}, '{"message":null}'),
        ({}, None),
        ([], None),
        ("text", None),
        (7, None),
    ],
)
def test_the_reason_is_what_error_finds_else_in_the_usual_places(
    body: Any, reason: str | None
) -> None:
    for status in (422, 500):
        sentence = no(answer(body, status)).sentence
        assert sentence == f"the backend answered {status}" + (f": {reason}" if reason else "")
        if isinstance(body, dict):
            chosen = no(answer(body | {"why": "w"}, status), error='"why"').sentence
            assert chosen == f"the backend answered {status}: w"


@pytest.mark.parametrize("kind", ["text/plain", "Text/Plain; charset=utf-8", " TEXT/PLAIN"])
def test_the_reason_may_be_the_first_line_of_a_plain_text(kind: str) -> None:
    body = "\n zu spät \nTraceback".encode()
    found = answer(body, 500, headers={"content-type": kind})
    assert no(found).sentence == "the backend answered 500: zu spät"
    assert no(answer(b"secret", 500)).sentence == "the backend answered 500"


def test_of_a_long_reason_the_beginning_and_the_end_are_kept() -> None:
    sentence = no(answer({"detail": "begin" + "x" * 9000 + "the end"}, 422)).sentence
    assert len(sentence) < 1100
    assert sentence.startswith("the backend answered 422: begin")
    assert sentence.endswith("the end")


# The second request

FETCH = '{ path = "/tasks/{handle}/output", on = ["succeeded", "failed"] }'


def fetched(found: Answer, state: Any = "succeeded", **lines: str | None) -> Status:
    made = reader(**{"fetch": FETCH, **lines})
    assert made.spec.fetch is not None
    status = Status(state=state, error="first", message="m", progress=7.0)
    return made.fetched(found, made.spec.fetch, status, NOTHING)


@pytest.mark.parametrize(
    ("read", "raw", "result"),
    [
        ("json", b'{"a": 1}', {"a": 1}),
        ("json", b"null", None),
        ("json", b"", None),
        ("text", b"a\nb\xff", "a\nb\ufffd"),
        ("text", b"", ""),
        ("lines", b'{"a": 1}\r\n\r\n[2]\n"x"', [{"a": 1}, [2], "x"]),
        ("lines", b"", []),
    ],
)
def test_the_whole_answer_is_the_result_where_no_expression_says_which_part(
    read: str, raw: bytes, result: Any
) -> None:
    fetch = f'{{ path = "/t/{{handle}}", read = "{read}" }}'
    assert fetched(answer(raw), fetch=fetch).result == result


def test_result_and_error_look_into_the_second_answer() -> None:
    lines = {"result": '"out[0]"', "error": '"why"'}
    assert fetched(answer({"out": [1, 2]}), **lines).result == 1
    assert fetched(answer({"x": 1}), **lines).result is None
    broken = fetched(answer({"why": "deep"}), "failed", **lines)
    assert (broken.state, broken.error, broken.result) == ("failed", "deep", None)
    assert fetched(answer({}), "failed", **lines).error == "first"


@pytest.mark.parametrize("status", [301, 400, 401, 404, 410, 429, 500, 503])
def test_a_second_request_that_fails_is_a_failed_look_and_both_come_again(status: int) -> None:
    with pytest.raises(BackendError) as raised:
        fetched(answer({"detail": "no"}, status, wait=3.0))
    error = raised.value
    assert (error.final, error.forgotten, error.retry_after) == (False, False, 3.0)


@pytest.mark.parametrize(("read", "raw"), [("json", b"<html>"), ("lines", b'{"a": 1}\n{')])
def test_a_second_answer_that_cannot_be_read_is_a_failed_look(read: str, raw: bytes) -> None:
    with pytest.raises(BackendError, match="not JSON"):
        fetched(answer(raw), fetch=f'{{ path = "/t/{{handle}}", read = "{read}" }}')


def test_a_status_listed_as_failed_ends_the_job_with_the_reason() -> None:
    states = '{ succeeded = ["done"], failed = [404], running = [409] }'
    status = fetched(answer({"detail": "expired"}, 404), states=states)
    assert (status.state, status.error, status.progress) == ("failed", "expired", 7.0)
    with pytest.raises(BackendError):
        fetched(answer({"detail": "wait"}, 409), states=states)


def test_a_second_answer_too_large_ends_the_job_without_a_result() -> None:
    status = fetched(answer(None))
    assert (status.state, status.result) == ("succeeded", None)
    assert status.message == "the result is too large to keep: above 1,000 bytes"


@pytest.mark.parametrize(
    "fetch",
    [
        '{ path = "/t", read = "xml" }',
        '{ path = "/t", on = [] }',
        '{ path = "/t", on = ["running"] }',
        '{ path = "/t", on = "failed" }',
        '{ path = "/t", wait = true }',
    ],
)
def test_a_wrong_second_request_is_told(fetch: str) -> None:
    with pytest.raises(ConfigError, match=r"\[render\] fetch"):
        options(fetch=fetch)


# Whatever comes


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "status"]), inner)
    ),
    max_leaves=8,
)


@given(st.integers(200, 599), jsons | st.binary(max_size=9) | st.none(), st.booleans())
def test_any_answer_is_understood_or_a_backend_error(status: int, body: Any, html: bool) -> None:
    try:
        found = answer(body, status, headers={"content-type": "text/html"} if html else {})
    except TypeError:  # a number that JSON cannot hold
        return
    made = READER
    for read in (made.look, made.start):
        with suppress(BackendError):
            assert isinstance(read(found, NOTHING), Handle | Status)


READER = reader(
    states=STATUSES,
    moves='"id"',
    message='{ text = "{params.x}" }',
    progress='{ done = "id", of = "status" }',
    result='"sort(@)"',
    error='"join(id, status)"',
)
