"""`progrock.testing` as a project's own tests use it.

The classes run on SQLite in memory here, and on PostgreSQL in tests/integration.
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client, TestCase, TransactionTestCase, override_settings

import progrock
from progrock import clock, conf
from progrock.backends import Options
from progrock.broker import blocking
from progrock.consumers.routing import websocket_application
from progrock.models import Job
from progrock.testing import (
    BackendError,
    Handle,
    Jobs,
    JobsMixin,
    JobView,
    Script,
    Status,
    capture_starts,
    without_rabbitmq,
)

USER = "user:1"


def start(**more: Any) -> Job:
    """A job of somebody's, queued."""
    return progrock.start("render", {"seconds": 1}, audience=USER, **more)


class Heard:
    """What receivers are told: in a test's own thread, so that they see its transaction."""

    def __init__(self, test: Any) -> None:
        self.changed: list[tuple[str, float | None]] = []
        self.finished: list[dict[str, Any]] = []
        self.seen: list[int] = []
        for signal, receiver in (
            (progrock.job_changed, self.change),
            (progrock.job_finished, self.finish),
        ):
            signal.connect(receiver)
            test.addCleanup(signal.disconnect, receiver)

    def change(self, sender: Any, job: dict[str, Any], **more: Any) -> None:
        self.changed.append((job["state"], job["progress"]))

    def finish(self, sender: Any, job: dict[str, Any], **more: Any) -> None:
        self.finished.append(job)
        self.seen.append(User.objects.count())


class Both(JobsMixin):
    """What holds inside of a transaction, and where each statement commits."""

    def test_a_start_is_captured_with_all_that_it_was_given(self) -> None:
        with self.progrock_jobs.capture_starts() as started:
            first = start(request="a")
            start(request="a")  # the same one
            progrock.start("render", audience="team:blue")
        assert [(job.audience, job.params, job.request) for job in started] == [
            (USER, {"seconds": 1}, "a"),
            ("team:blue", {}, None),
        ]
        assert started[0].pk == first.pk
        assert {job.backend for job in started} == {"render"}
        start()
        assert len(started) == 2, "the block is over"

    def test_a_start_that_was_rolled_back_is_none(self) -> None:
        with self.progrock_jobs.capture_starts() as started:
            with transaction.atomic():
                start()
                transaction.set_rollback(True)
            assert len(started) == 1, "it was there for a while"
            job = start()
        assert started == [job]

    def test_a_job_lives_through_progress_to_its_end(self) -> None:
        heard, job = Heard(self), start()
        User.objects.create_user("ada")
        assert self.progrock_jobs.progress(job, 40, message="Rendering") is job
        assert (job.state, job.progress, job.message) == ("running", 40.0, "Rendering")
        assert job.handle
        self.progrock_jobs.finish(job, result={"file": "a.mp4"})
        assert (job.state, job.progress, job.result) == ("succeeded", 100.0, {"file": "a.mp4"})
        assert job.ended_at is not None
        assert heard.changed == [
            ("starting", None),
            ("running", None),
            ("running", 40.0),
            ("succeeded", 100.0),
        ]
        [told] = heard.finished
        assert (told["job"], told["result"]) == (str(job.pk), {"file": "a.mp4"})
        assert heard.seen == [1], "it sees what the test has written"

    def test_a_job_fails(self) -> None:
        heard, job = Heard(self), start()
        found = self.progrock_jobs.fail(job.pk, error="no film in the camera")
        assert (found.state, found.error) == ("failed", "no film in the camera")
        assert heard.finished[0]["error"] == "no film in the camera"
        assert (
            self.progrock_jobs.fail(str(start().pk)).error == "the backend says that the job failed"
        )

    def test_what_a_receiver_raises_comes_out(self) -> None:
        def receiver(sender: Any, job: Any, **more: Any) -> None:
            raise ZeroDivisionError("in the receiver")

        progrock.job_finished.connect(receiver)
        self.addCleanup(progrock.job_finished.disconnect, receiver)
        job = start()
        self.progrock_jobs.progress(job, 1)
        with pytest.raises(ZeroDivisionError, match="in the receiver"):
            self.progrock_jobs.finish(job)
        assert job.state == "succeeded", "the job has ended all the same"

    def test_a_job_that_has_ended_goes_no_further(self) -> None:
        job = self.progrock_jobs.finish(start())
        with pytest.raises(ValueError, match=f"{job.pk} has ended already: it is succeeded"):
            self.progrock_jobs.progress(job, 10)
        with pytest.raises(Job.DoesNotExist, match="there is no job"):
            self.progrock_jobs.finish(uuid.uuid4())

    def test_a_script_is_played_through_errors_and_waits_without_waiting(self) -> None:
        heard, job, begun = Heard(self), start(), time.monotonic()
        script = [
            Status(state="running", progress=10, retry_after=600),
            BackendError("the connection was refused", retry_after=900),
            ValueError("a mistake of a class"),
            Status(state="running", progress=20, handle="moved"),
            Status(state="succeeded", result=[1, 2]),
        ]
        with self.assertLogs("progrock", logging.ERROR):
            self.progrock_jobs.run(job, script)
        assert (job.state, job.result, job.handle) == ("succeeded", [1, 2], "moved")
        assert ("running", 10.0) in heard.changed
        assert time.monotonic() - begun < 600
        assert clock.ahead.get() == 0.0

    def test_a_script_that_ends_leaves_the_job_where_it_is(self) -> None:
        job = start()
        self.progrock_jobs.run(job, [BackendError("busy", status=503)])
        assert (job.state, job.attempts, job.message) == ("running", 1, "asking again: busy")
        self.progrock_jobs.progress(job, 5)
        assert (job.attempts, job.message) == (0, "")

    def test_the_deadline_comes_by_the_clock_of_the_job(self) -> None:
        heard, job = Heard(self), start()
        waits = [Status(state="running", retry_after=2000) for _ in range(3)]
        self.progrock_jobs.run(job, waits)
        assert job.state == "expired"
        assert job.error.startswith("the job did not end within")
        assert len(heard.finished) == 1

    def test_starts_and_cancels_are_scripted_too(self) -> None:
        job = start()
        refused = BackendError("no room", sent=False)
        starts = [refused, Handle("h7", retry_after=3)]
        self.progrock_jobs.run(job, Script([Status(state="running")], starts=starts))
        assert (job.state, job.handle) == ("running", "h7")
        assert progrock.cancel(job)
        taken = Status(state="running", cancelling=True, message="Stopping")
        self.progrock_jobs.run(job, Script([Status(state="cancelled")], cancels=[taken]))
        assert (job.state, job.cancel_taken, job.error) == ("cancelled", False, "")

    def test_a_cancel_is_obeyed_and_told(self) -> None:
        heard, waiting, running = Heard(self), start(), start()
        self.progrock_jobs.progress(running, 3)
        assert progrock.cancel(waiting)
        assert progrock.cancel(running)
        for job in (waiting, running):
            self.progrock_jobs.run(job, [])
            assert job.state == "cancelled"
        assert [each["job"] for each in heard.finished] == [str(waiting.pk), str(running.pk)]

    def test_a_backend_of_ones_own_is_asked_until_the_end(self) -> None:
        job, backend = start(), Counts()
        self.progrock_jobs.run(job, backend)
        assert (job.state, job.result, backend.params) == ("succeeded", 3, {"seconds": 1})
        endless = start()
        with pytest.raises(AssertionError, match="has not ended: it is running"):
            self.progrock_jobs.run(endless, Counts(ends=10**6), steps=20)
        assert endless.progress == 19.0, "one of them was the start"

    def test_a_line_that_is_no_answer_is_told(self) -> None:
        with pytest.raises(TypeError, match=r"line 1 of polls is 40; wanted one of: Status, Exc"):
            self.progrock_jobs.run(start(), [Status(state="running"), 40])  # type: ignore[list-item]

    def test_a_result_that_cannot_be_kept_fails_the_job_and_nothing_else(self) -> None:
        job = self.progrock_jobs.finish(start(), result=object())
        assert job.state == "failed"
        assert "its result cannot be kept" in job.error
        assert Job.objects.count() == 1

    async def test_a_socket_shows_what_happens(self) -> None:
        ada = await User.objects.acreate(username="ada")
        client = Client()
        await client.aforce_login(ada)
        cookie = f"sessionid={client.cookies['sessionid'].value}"
        headers = [(b"cookie", cookie.encode()), (b"origin", b"http://localhost")]
        socket = WebsocketCommunicator(websocket_application, "/prog/", headers)
        assert await socket.connect()
        assert (await frame(socket))["type"] == "snapshot"
        await socket.send_to(text_data='{"action": "start", "backend": "render"}')
        job = (await frame(socket))["job"]
        await self.progrock_jobs.aprogress(job, 40, message="Rendering")
        assert (await until(socket, progress=40.0))["message"] == "Rendering"
        own = await progrock.astart("render", audience=ada)
        await self.progrock_jobs.afinish(own, result="done")
        assert (await until(socket, job=str(own.pk), complete=True))["result"] == "done"
        await socket.send_to(text_data=json.dumps({"action": "cancel", "job": job}))
        await until(socket, cancelling=True)
        await self.progrock_jobs.arun(job, [])
        assert (await until(socket, job=job, complete=True))["state"] == "cancelled"
        await socket.disconnect()

    async def test_a_start_in_asynchronous_code_is_captured(self) -> None:
        async with self.progrock_jobs.capture_starts() as started:
            job = await progrock.astart("render", audience=USER)
        assert started == [job]


class InTransaction(Both, TestCase):
    def test_a_job_is_visible_whether_or_not_it_commits(self) -> None:
        with self.progrock_jobs.capture_starts() as started:
            with self.captureOnCommitCallbacks() as callbacks:
                start()
            with self.captureOnCommitCallbacks(execute=True):
                start()
        assert len(callbacks) == 1
        assert len(started) == 2
        assert {self.progrock_jobs.finish(job).state for job in started} == {"succeeded"}


class Committing(Both, TransactionTestCase):
    pass


del Both  # else it would be collected by itself


class Counts:
    """A backend of somebody's, which says one per cent more at each poll."""

    def __init__(self, ends: int = 3) -> None:
        self.options, self.ends, self.polls = Options(name="counts"), ends, 0
        self.params: dict[str, Any] = {}

    async def start(self, job: JobView) -> str:
        self.params = job.params
        return "one"

    async def poll(self, jobs: Sequence[JobView]) -> Mapping[str, Status | BackendError]:
        self.polls += 1
        ended = self.polls >= self.ends
        status = Status(state="running", progress=self.polls)
        over = Status(state="succeeded", result=self.polls)
        return {job.id: over if ended else status for job in jobs}

    async def cancel(self, job: JobView) -> None: ...

    async def aclose(self) -> None: ...


def shown(title: str) -> dict[str, Any]:
    """What a block of docs/python.md defines."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "python.md").read_text()
    code = re.search(rf'^```python title="{title}"\n(.*?)^```$', page, re.M | re.S)
    assert code
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(code[1], namespace)
    return namespace


SocketTests = shown("a socket")["SocketTests"]


async def frame(socket: Any) -> dict[str, Any]:
    """The next frame of a socket."""
    found: dict[str, Any] = json.loads(await socket.receive_from(timeout=30))
    return found


async def until(socket: Any, **wanted: Any) -> dict[str, Any]:
    """The next frame with these values."""
    while not wanted.items() <= (found := await frame(socket)).items():
        pass
    return found


@pytest.mark.django_db
def test_the_fixture_has_what_the_mixin_has(
    progrock_jobs: Jobs, django_capture_on_commit_callbacks: Any
) -> None:
    assert conf.in_memory()
    with (
        progrock_jobs.capture_starts() as started,
        django_capture_on_commit_callbacks(execute=True),
    ):
        start()
    assert progrock_jobs.finish(started[0], result=7).result == 7


@pytest.mark.django_db
def test_the_scripts_of_the_page_do_what_they_say(progrock_jobs: Jobs) -> None:
    scripts, outage, refused = shown("scripts"), start(), start()
    scripts["test_an_outage_of_the_backend"](progrock_jobs, outage)
    assert (outage.state, outage.result) == ("succeeded", {"file": "a.mp4"})
    scripts["test_a_start_that_is_refused_at_first"](progrock_jobs, refused)
    assert (refused.state, refused.handle) == ("running", "handle-7")


@pytest.mark.django_db(transaction=True)
def test_the_fixture_works_where_everything_commits(progrock_jobs: Jobs) -> None:
    assert not connection.in_atomic_block
    assert progrock_jobs.fail(start()).state == "failed"


@pytest.mark.django_db(transaction=True)
async def test_the_fixture_works_in_asynchronous_tests(progrock_jobs: Jobs) -> None:
    async with progrock_jobs.capture_starts() as started:
        await progrock.astart("render", audience=USER)
    assert (await progrock_jobs.afinish(started[0])).state == "succeeded"


@pytest.mark.django_db(transaction=True)
def test_nothing_is_sent(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    def send(*args: Any, **more: Any) -> None:
        raise AssertionError("something was sent to RabbitMQ")

    monkeypatch.setattr(blocking.pika, "BlockingConnection", send)
    caplog.set_level(logging.WARNING)
    with capture_starts():
        job = start()
    with without_rabbitmq():
        progrock.cancel(job)
        client = Client()
        client.force_login(User.objects.create_user("ada"))
        client.logout()
    assert caplog.records == []
    assert settings.AMQP_URL.startswith("amqp:"), "the settings are what they were"


def test_what_is_in_memory_already_stays_as_it_is() -> None:
    layers = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with override_settings(AMQP_URL="memory://", CHANNEL_LAYERS=layers), without_rabbitmq():
        assert settings.CHANNEL_LAYERS is layers


@pytest.mark.django_db
def test_a_job_of_a_backend_that_is_gone_is_told(progrock_jobs: Jobs) -> None:
    job = start()
    Job.objects.update(backend="gone")
    with pytest.raises(ValueError, match="is of 'gone', which is not in the backends' file"):
        progrock_jobs.finish(job)
