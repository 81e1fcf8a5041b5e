"""Nothing of ours raises into a host's view, and no mistake of a host gives it another job."""

import asyncio
import socket
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.contrib.admin.sites import site
from django.contrib.auth.models import Permission, User
from django.contrib.sessions.backends.db import SessionStore
from django.db import DataError, IntegrityError, InternalError, connections
from django.test import Client, RequestFactory

import progrock
from progrock import api, conf, sessions
from progrock.models import Job
from tests.services import PATIENCE, Stack
from tests.visitor import browse

AWAY = b"The database is away; try again in a moment.\n"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(params=["silent", "broken"])
def rabbitmq_without_sense(
    request: pytest.FixtureRequest, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """RabbitMQ accepts and says nothing; or our own code for it has a mistake."""
    if request.param == "broken":

        def mistake(*args: Any, **options: Any) -> None:
            raise AttributeError("a mistake")

        monkeypatch.setattr(api.dispatch, "send_now", mistake)
        monkeypatch.setattr(sessions.blocking, "group_send", mistake)
        yield
        return
    monkeypatch.setattr(api.dispatch.blocking, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.AMQP_URL = f"amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}/"
        yield


@pytest.mark.usefixtures("rabbitmq_without_sense")
def test_a_start_and_a_cancel_return_whatever_rabbitmq_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = progrock.start(next(iter(conf.backends())), audience="user:1")
    assert progrock.cancel(job)
    assert Job.objects.get().state == "cancelled"
    told = [each.getMessage() for each in caplog.records if each.name == "progrock.api"]
    assert [f"job {job.pk} is in the database" in each for each in told] == [True, True]


@pytest.mark.usefixtures("rabbitmq_without_sense")
def test_a_logout_signs_out_whatever_rabbitmq_does(settings: Any) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    client = Client()
    client.force_login(User.objects.create_user("ann"))
    assert client.post("/logout/").status_code == 302
    assert "_auth_user_id" not in client.session


def test_a_session_store_with_odd_keys_leaves_nobody_signed_in(rf: RequestFactory) -> None:
    class Odd:
        @property
        def session_key(self) -> str:
            raise RuntimeError("the store is away")

    class Numbered(dict[str, Any]):
        session_key = 7

    request = rf.post("/logout/")
    request.session = Odd()  # type: ignore[assignment]  # all that is used of one
    sessions.session_ended(None, request)
    sessions.session_begun(None, request)
    request.session = Numbered()  # type: ignore[assignment]
    sessions.session_ended(None, request)
    sessions.session_begun(None, request)


async def test_asynchronous_starts_leave_the_database_thread_to_others(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = next(iter(conf.backends()))
    monkeypatch.setattr(api.dispatch.blocking, "TIMEOUT", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts and says nothing
        settings.AMQP_URL = f"amqp://guest:guest@127.0.0.1:{server.getsockname()[1]}/"
        starts = [
            asyncio.create_task(progrock.astart(backend, audience="user:1", request=str(n)))
            for n in range(4)
        ]
        async with asyncio.timeout(PATIENCE):
            while await database_sync_to_async(Job.objects.count)() < len(starts):
                await asyncio.sleep(0.01)
        assert not any(start.done() for start in starts), "RabbitMQ is still waited for"
    assert {job.state for job in await asyncio.gather(*starts)} == {"queued"}


@pytest.mark.parametrize("state", ["25006", "53100"])
def test_a_session_that_cannot_be_saved_now_is_answered_with_503(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ByTheDriver(Exception):
        sqlstate = state

    def save(self: SessionStore, must_create: bool = False) -> None:
        raise InternalError("the disk, or a standby") from ByTheDriver()

    monkeypatch.setattr(SessionStore, "save", save)
    client = Client(raise_request_exception=False)
    answer = client.get("/")
    assert (answer.status_code, answer.content) == (503, AWAY)
    assert answer.headers["Retry-After"] == "5"


def test_a_session_that_can_never_be_saved_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: SessionStore, must_create: bool = False) -> None:
        raise DataError("too long")

    monkeypatch.setattr(SessionStore, "save", save)
    with pytest.raises(DataError):
        Client().get("/")


def test_a_mistake_at_the_insert_returns_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = next(iter(conf.backends()))
    api.create("user:1", backend, {}, None)

    def mistake(self: Job, **options: Any) -> None:
        raise IntegrityError("a constraint that we do not know")

    monkeypatch.setattr(Job, "save", mistake)
    with pytest.raises(IntegrityError):
        api.create("user:1", backend, {}, None)
    with pytest.raises(IntegrityError):
        api.create("user:1", backend, {}, "another request")


def test_the_admin_deletes_no_active_job(rf: RequestFactory) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(codename__in=["delete_job", "view_job"]))
    request = rf.get("/")
    request.user = user
    backend = next(iter(conf.backends()))
    active, _ = api.create("user:1", backend, {}, None)
    ended, _ = api.create("user:1", backend, {}, str(uuid.uuid4()))
    Job.objects.filter(pk=ended.pk).update(state="failed")
    ended.refresh_from_db()
    admin = site.get_model_admin(Job)
    assert not admin.has_delete_permission(request, active)
    assert admin.has_delete_permission(request, ended)
    *_, protected = admin.get_deleted_objects([active, ended], request)
    assert [str(each) for each in protected] == [f"{active} is queued; cancel it first"]
    assert connections["default"].in_atomic_block is False


def a_text(scope: Any) -> Any:
    """What a careless project names in PROGROCK_AUDIENCES."""
    return "user:1"


async def test_a_socket_is_told_that_the_audiences_function_is_wrong(
    stack: Callable[..., Stack],
) -> None:
    with stack(workers=0, env={"PROGROCK_AUDIENCES": f"{__name__}.a_text"}) as up:
        async with browse(up) as browser:
            assert (await browser.error())["code"] == "misconfigured"
            await browser.socket.receive()
            assert browser.socket.close_code == 1011
        assert f"PROGROCK_AUDIENCES: {__name__}.a_text returned str" in up.logs()
