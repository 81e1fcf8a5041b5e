"""What the answers of a backend mean for a job: to looks, starts and cancels.

By table at the edges, and by Hypothesis where a law holds.
"""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from progrock.backends import BackendError, Handle, Options, Status
from progrock.broker.lanes import round_delay
from progrock.lifecycle import (
    FORGOTTEN,
    Decision,
    intent,
    is_visible,
    put_back,
)
from progrock.storable import Result
from tests.life import NOW, OPTIONS, Job, cancel, poll, start, waiting


def test_the_last_look_is_at_the_deadline_and_after_it_the_job_expires() -> None:
    assert poll(Status(state="running"), Job(deadline_at=NOW + 0.4)).delay == pytest.approx(0.4)
    expired = poll(Status(state="running", progress=99), Job(deadline_at=NOW))
    assert (expired.state, expired.delay) == ("expired", None)
    assert expired.error == "the job did not end within 60 minutes"
    assert expired.progress == 40.0


def test_an_error_at_the_deadline_expires_the_job_and_says_what_was_last_wrong() -> None:
    expired = poll(BackendError("the backend answered 503"), Job(deadline_at=NOW - 1))
    assert expired.state == "expired"
    assert expired.error.endswith("; at last the backend answered 503")


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_the_backends_last_word_counts_even_when_it_comes_after_the_deadline(state: Any) -> None:
    decision = poll(Status(state=state), Job(deadline_at=NOW - 9))
    assert (decision.state, decision.delay) == (state, None)


def test_a_success_ends_at_100_with_its_result() -> None:
    decision = poll(Status(state="succeeded", progress=99.0, result={"file": "a.mp4"}))
    assert (decision.state, decision.progress, decision.error) == ("succeeded", 100.0, "")
    assert decision.result == Result({"file": "a.mp4"}, len(b'{"file":"a.mp4"}'))


@pytest.mark.parametrize("result", [0, False, "", [], None])
def test_an_empty_result_is_a_result(result: object) -> None:
    assert poll(Status(state="succeeded", result=result)).result.value == result


def test_a_failure_carries_the_backends_error_and_the_progress_known() -> None:
    assert poll(Status(state="failed", error="out of memory")).error == "out of memory"
    assert poll(Status(state="failed")).error == "the backend says that the job failed"
    assert poll(Status(state="failed")).progress == 40.0
    assert poll(Status(state="failed", progress=55)).progress == 55.0


def test_a_cancellation_that_nobody_asked_for_is_explained() -> None:
    assert poll(Status(state="cancelled")).error == "cancelled at the backend"
    assert poll(Status(state="cancelled"), Job(cancel_requested=True)).error == ""


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, None),
        (math.nan, None),
        (math.inf, None),
        (-3, 0.0),
        (250, 100.0),
        (12.5, 12.5),
        (True, None),
    ],
)
def test_progress_is_a_finite_number_from_0_to_100_or_unknown(
    progress: Any, shown: float | None
) -> None:
    assert poll(Status(state="running", progress=progress)).progress == shown


def test_progress_that_jumps_back_is_shown_as_the_backend_says() -> None:
    assert poll(Status(state="running", progress=10.0), Job(progress=80.0)).progress == 10.0


def test_an_error_keeps_the_job_running_and_says_so_at_once() -> None:
    decision = poll(BackendError("connection refused", sent=False))
    assert decision.message == "asking again: connection refused"
    assert (decision.state, decision.progress, decision.attempts, decision.delay) == (
        "running",
        40.0,
        1,
        1.0,
    )


def test_a_recovery_takes_the_backends_message_or_none() -> None:
    recovered = poll(Status(state="running"), Job(message="asking again: …", attempts=4))
    assert (recovered.message, recovered.attempts) == ("", 0)


def test_backoff_grows_with_the_attempts_up_to_a_minute() -> None:
    delays = [poll(BackendError("x"), Job(attempts=n), draw=0.999).delay for n in range(12)]
    assert delays[:4] == [
        2.0,
        4.0,
        10.0,
        20.0,
    ]  # 2, 4, 8 and 16 seconds, rounded up to what two lanes hold
    assert delays[-1] == 60.0
    slow = Options(name="slow", interval=300.0)
    assert poll(BackendError("x"), draw=0.999, options=slow).delay == 300.0


def test_retry_after_on_an_error_wins_when_it_is_longer() -> None:
    assert poll(BackendError("the backend answered 429", retry_after=33.3)).delay == 33.3
    assert poll(
        BackendError("the backend answered 429", retry_after=0.2), draw=0.9
    ).delay == round_delay(1.8)


@given(
    attempts=st.integers(0, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
    interval=st.floats(0.1, 600),
    left=st.floats(0.001, 1e6),
    wait=st.none() | st.floats(0, 1e7),
)
def test_no_delay_is_hasty_or_beyond_the_deadline(
    attempts: int, draw: float, interval: float, left: float, wait: float | None
) -> None:
    job, options = (
        Job(attempts=attempts, deadline_at=NOW + left),
        Options(name="render", interval=interval),
    )
    delay = poll(BackendError("x", retry_after=wait), job, draw=draw, options=options).delay
    left = job.deadline_at - NOW
    assert delay is not None
    assert min(left, max(0.1, wait or 0)) <= delay <= left
    assert delay in (left, wait) or delay == round_delay(delay)


GONE = BackendError("the backend answered 404", status=404, forgotten=True)
NO_LONGER = "the backend no longer knows this job"
LAGGING = Options(name="render", missing_for=30.0)


@pytest.mark.parametrize(
    ("missing", "state", "since", "within"),
    [
        (None, "running", NOW, 30.0),  # the first such answer
        (NOW, "running", NOW, 30.0),
        (NOW - 0.4, "running", NOW - 0.4, 29.6),
        (NOW - 29.0, "running", NOW - 29.0, 1.0),  # the last look is when the time is over
        (NOW - 29.99, "running", NOW - 29.99, 0.1),
        (NOW + 60, "running", NOW + 60, 90.0),  # the database's clock was set back
        (NOW - 30.0, "failed", None, None),
        (NOW - 9999, "failed", None, None),
    ],
)
def test_a_job_that_the_backend_does_not_know_fails_when_it_has_been_so_for_a_while(
    missing: float | None, state: str, since: float | None, within: float | None
) -> None:
    for attempts in (0, 3, 50):  # it is a span, and not a number of answers
        decision = poll(GONE, Job(missing_at=missing, attempts=attempts), options=LAGGING)
        assert (decision.state, decision.missing_at) == (state, since)
        if within is None:
            assert (decision.error, decision.delay) == (NO_LONGER, None)
        else:
            assert decision.delay is not None
            assert 0.1 <= decision.delay <= within + 1e-6
            assert (decision.message, decision.handle) == (FORGOTTEN, "h1")


def test_how_long_a_job_may_be_missing_is_the_tables_to_say() -> None:
    at_once = Options(name="render", missing_for=0.0)
    assert poll(GONE, options=at_once).state == "failed"
    patient = Options(name="render", missing_for=600.0)
    assert poll(GONE, Job(missing_at=NOW - 500), options=patient).state == "running"


@pytest.mark.parametrize(
    ("answer", "since"),
    [
        (Status(state="running"), None),
        (BackendError("the backend answered 503", status=503), None),
        (BackendError("the backend answered 404 with an HTML page", status=404), None),
        (BackendError("connection refused", sent=False), NOW - 20),  # no answer says nothing
        (BackendError("the backend did not answer within 5 s"), NOW - 20),
    ],
)
def test_another_answer_in_between_begins_the_time_anew(
    answer: Status | BackendError, since: float | None
) -> None:
    job = Job(missing_at=NOW - 20, message=FORGOTTEN)
    decision = poll(answer, job, options=LAGGING)
    assert (decision.state, decision.missing_at) == ("running", since)
    assert is_visible(job, decision)
    refused = cancel(Status(state="running"), Job(missing_at=NOW - 20, cancel_requested=True))
    assert refused.missing_at is None


def test_a_missing_job_waits_as_long_as_its_backend_asks_and_ends_at_its_deadline() -> None:
    busy = BackendError("the backend answered 404", status=404, forgotten=True, retry_after=50.0)
    assert poll(busy, Job(missing_at=NOW - 20), options=LAGGING).delay == 50.0
    assert poll(GONE, Job(missing_at=NOW - 20, deadline_at=NOW), options=LAGGING).state == "expired"


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize(("repeated", "again"), [(False, "queued"), (True, "starting")])
def test_a_start_that_is_refused_for_a_while_is_asked_again(
    status: int, repeated: bool, again: str
) -> None:
    no = BackendError(f"the backend answered {status}", status=status, final=True)
    first = start(no, repeated=repeated, options=LAGGING)
    assert (first.state, first.missing_at, first.attempts) == (again, NOW, 1)
    assert first.message == f"the start was refused, trying again (the backend answered {status})"
    assert first.delay is not None
    later = start(no, waiting("starting", missing_at=NOW - 29), options=LAGGING)
    assert (later.state, later.missing_at) == ("queued", NOW - 29)
    over = start(no, waiting("starting", missing_at=NOW - 30), options=LAGGING)
    assert (over.state, over.error) == ("failed", f"the backend answered {status}")
    once = Options(name="once", repeat=False)
    assert start(no, options=once).state == "queued", "a start that was refused did not happen"
    started = start("h1", waiting("starting", missing_at=NOW - 29))
    assert (started.state, started.missing_at) == ("running", None)


@pytest.mark.parametrize("status", [None, 400, 409, 410, 422])
def test_another_refusal_of_a_start_is_final(status: int | None) -> None:
    no = BackendError("no", status=status, final=True)
    assert start(no, options=LAGGING).state == "failed"


def test_an_intent_and_a_start_that_was_not_sent_keep_since_when_it_was_refused() -> None:
    job = waiting("queued", missing_at=NOW - 5)
    assert intent(job, options=OPTIONS).missing_at == NOW - 5
    assert put_back(waiting("starting", missing_at=NOW - 5), repeated=False).missing_at == NOW - 5


def test_a_final_error_fails_the_job_at_once() -> None:
    assert poll(BackendError("quota used up", final=True)).error == "quota used up"
    assert poll(BackendError("quota used up", final=True)).state == "failed"


def test_a_started_job_is_first_looked_at_after_a_second_at_most() -> None:
    assert start("h9") == Decision(state="running", handle="h9", progress=None, delay=1.0)
    assert start("h9", options=Options(name="r", interval=0.3)).delay == 0.3
    assert start("h9", options=Options(name="r", interval=30.0)).delay == 1.0
    assert start(Handle("h9", 12.5)).delay == 12.5
    assert type(start(Handle("h9", 12.5)).handle) is str


@pytest.mark.parametrize("handle", ["", ".", "..", "x" * 4097, "a\0b", "a\nb"])
def test_a_handle_that_cannot_be_used_is_no_start(handle: str) -> None:
    told = "asking again: the backend answered without a usable handle for the job"
    assert start(handle).message == told
    assert start(handle).state == "starting"
    assert start(handle, options=Options(name="r", repeat=False)).state == "failed"


@pytest.mark.parametrize(
    ("error", "repeat", "state", "text"),
    [
        (
            BackendError("the backend answered 503"),
            True,
            "starting",
            "asking again: the backend answered 503",
        ),
        (
            BackendError("connection refused", sent=False),
            False,
            "queued",
            "asking again: connection refused",
        ),
        (
            BackendError("the backend answered 503"),
            False,
            "failed",
            "outcome unknown: the backend answered 503",
        ),
        (
            BackendError("the backend answered 422: bad", final=True),
            True,
            "failed",
            "the backend answered 422: bad",
        ),
    ],
)
def test_a_failed_start_is_repeated_where_it_may_be_and_stays_open_where_it_may_have_arrived(
    error: BackendError, repeat: bool, state: str, text: str
) -> None:
    decision = start(error, options=Options(name="r", repeat=repeat))
    assert decision.state == state
    assert (decision.error if state == "failed" else decision.message).endswith(text)
    assert (decision.delay is None) == (state == "failed")


def test_a_repeated_start_stays_starting_since_the_earlier_one_may_have_arrived() -> None:
    refused = BackendError("connection refused", sent=False)
    assert start(refused).state == "queued"
    assert start(refused, repeated=True).state == "starting"
    final = BackendError("the backend answered 422", final=True)
    assert start(final, repeated=True).state == "failed"


def test_a_start_at_the_deadline_expires_but_keeps_its_handle() -> None:
    decision = start("h9", waiting("starting", deadline_at=NOW))
    assert (decision.state, decision.handle) == ("expired", "h9")
    assert start(BackendError("x"), waiting("starting", deadline_at=NOW)).state == "expired"


def test_a_cancelled_job_ends_and_keeps_its_progress() -> None:
    assert cancel(None) == Decision(state="cancelled", handle="h1", progress=40.0)


def test_a_cancel_that_did_not_get_through_is_tried_again() -> None:
    decision = cancel(BackendError("connection refused", sent=False))
    assert (decision.state, decision.attempts, decision.delay) == ("running", 1, 1.0)
    assert decision.message == "cancelling, asking again: connection refused"


def test_a_refused_cancel_shows_where_the_job_really_stands() -> None:
    assert cancel(Status(state="succeeded", result=7)).state == "succeeded"
    running = cancel(Status(state="running", progress=77.0))
    assert (running.state, running.progress, running.delay) == ("running", 77.0, 1.0)
    assert running.message == "trying again, because the backend refused to cancel the job"


def test_nothing_that_postgresql_refuses_gets_into_the_ledger() -> None:
    running = poll(Status(state="running", message="a\0b" + "c" * 1000))
    assert running.message == "ab" + "c" * 498
    assert len(poll(Status(state="failed", error="e" * 9000)).error) == 2000
    tricky = {"nul": "a\0\0b", "not nul": "a\\u0000b", "\0key": ["\\\0", "\\\\u0000"]}
    kept = {"nul": "ab", "not nul": "a\\u0000b", "key": ["\\", "\\\\u0000"]}
    assert poll(Status(state="succeeded", result=tricky)).result.value == kept
    assert "\0" not in poll(BackendError("a\0b")).message


@given(
    st.recursive(
        st.text("\0\\u0a\"'"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("\0\\u0"), inner),
    )
)
def test_any_result_loses_its_nuls_and_nothing_else(result: object) -> None:
    def without(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("\0", "")
        if isinstance(value, list):
            return [without(item) for item in value]
        return {without(key): without(item) for key, item in value.items()}

    kept = poll(Status(state="succeeded", result=result)).result
    assert kept == Result(without(result), len(orjson.dumps(without(result))))


def test_text_that_no_database_takes_is_mended() -> None:
    odd: Any = Status(state="running", message="half a pair: \ud800")
    assert poll(odd).message == "half a pair: ?"
    number: Any = Status(state="failed", error=7)
    assert poll(number).error == "7"


def test_whatever_depth_of_a_result_is_kept_the_ledger_can_write() -> None:
    for depth in range(200, 300):
        result: Any = 1
        for _ in range(depth):
            result = [result]
        decision = poll(Status(state="succeeded", result=result))
        assert decision.state in ("succeeded", "failed")
        orjson.dumps([[decision.result.value]])
    assert decision.state == "failed", "JSON has a limit that this reaches"


def test_a_result_that_json_cannot_hold_fails_the_job_rather_than_the_batch() -> None:
    decision = poll(Status(state="succeeded", result=object()))
    assert decision.state == "failed"
    assert "its result cannot be kept" in decision.error
    assert orjson.dumps(decision.error)
