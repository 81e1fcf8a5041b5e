"""What a visitor may do, whatever door they come through: on both databases, without RabbitMQ."""

import logging
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.utils.translation import gettext_lazy

from progrock import conf, doors, own_code
from progrock.errors import Refused
from progrock.models import Job
from tests.jobs import OPEN_AND_CLOSED
from tests.ledgers import make

SCOPE = {"type": "websocket", "user": SimpleNamespace(pk=1)}
Authorize = Callable[[Any, str, dict[str, Any]], Any]


@pytest.fixture(autouse=True)
def empty(database: str, tmp_path: Path, settings: Any) -> None:
    """No job is left of the test before, and there are two backends."""
    Job.objects.all().delete()
    file = tmp_path / "backends.toml"
    file.write_text(OPEN_AND_CLOSED)
    settings.PROGROCK_BACKENDS = str(file)


@pytest.fixture
def authorize(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Authorize], None]:
    """Make a function the one of PROGROCK_AUTHORIZE."""
    settings.PROGROCK_AUTHORIZE = "shop.jobs.authorize"
    monkeypatch.setattr(own_code, "LOG_EVERY", 0.0)

    def use(own: Authorize) -> None:
        monkeypatch.setattr(doors, "import_string", {"shop.jobs.authorize": own}.__getitem__)

    return use


def start(backend: Any = "open", params: Any = None, request: Any = None) -> tuple[Any, bool]:
    return doors.start(SCOPE, ["user:1", "team:blue"], backend, params, request)


def code_of(act: Callable[[], object]) -> str:
    """The code with which it is refused; no job is left of it."""
    before = Job.objects.count()
    with pytest.raises(Refused) as refused:
        act()
    assert Job.objects.count() == before
    return refused.value.code


def test_a_start_is_for_the_first_audience_and_on_the_first_backend_that_is_open() -> None:
    row, created = start(backend=None, params={"pages": 2}, request="once")
    assert (row.audience, row.backend, row.state, created) == ("user:1", "open", "queued", True)
    assert start(request="once") == (row, False)


def test_a_backend_that_is_not_open_to_browsers_is_refused_before_anybody_is_asked(
    authorize: Callable[[Authorize], None],
) -> None:
    authorize(lambda *asked: pytest.fail("asked"))
    assert code_of(lambda: start("closed")) == "forbidden"
    assert code_of(lambda: start("nowhere")) == "unknown_backend"
    assert code_of(lambda: start(params={"pages": 10})) == "bad_params"
    assert code_of(lambda: start(params=[])) == "bad_params"
    assert code_of(lambda: start(request="")) == "bad_request"


def test_authorize_sees_who_asks_for_what_and_says_what_is_started(
    authorize: Callable[[Authorize], None],
) -> None:
    def own(scope: Any, backend: str, params: dict[str, Any]) -> dict[str, Any]:
        assert (scope, backend) == (SCOPE, "open")
        return {**params, "owner": str(scope["user"].pk), "users": User.objects.count()}

    authorize(own)
    row, _ = start(params={"pages": 2})
    assert Job.objects.get(pk=row.id).params == {"pages": 2, "owner": "1", "users": 0}


def test_authorize_may_refuse_with_a_code_and_a_sentence_of_its_own(
    authorize: Callable[[Authorize], None],
) -> None:
    def own(*asked: Any) -> Any:
        raise Refused("over_quota", gettext_lazy("Ten pages a day are enough."))  # type: ignore

    authorize(own)
    with pytest.raises(Refused) as refused:
        start()
    assert (refused.value.code, refused.value.message) == (
        "over_quota",
        "Ten pages a day are enough.",
    )
    assert type(refused.value.message) is str
    assert Job.objects.count() == 0


def test_a_start_that_is_repeated_finds_its_job_without_asking_again(
    authorize: Callable[[Authorize], None],
) -> None:
    """A function that allows one job at a time must not refuse the repeat of the first start."""

    def one_at_a_time(scope: Any, backend: str, params: dict[str, Any]) -> dict[str, Any]:
        if Job.objects.exists():
            raise Refused("forbidden", "One at a time.")
        return params

    authorize(one_at_a_time)
    row, created = start(request="once")
    assert created
    assert start(request="once") == (row, False)
    assert code_of(lambda: start(request="twice")) == "forbidden"


async def coroutine() -> dict[str, Any]:
    return {}


def divided(*asked: Any) -> Any:
    return 1 / 0


@pytest.mark.parametrize(
    ("own", "logged"),
    [
        (lambda *asked: None, "shop.jobs.authorize returned NoneType 'None'; wanted a dict"),
        (lambda *asked: [1], "returned list '[1]'; wanted a dict"),
        (lambda *asked: coroutine(), "a coroutine, because it is an `async def`"),
        (lambda *asked: {"x": object()}, "params that cannot be used: params cannot be written"),
        (lambda *asked: {"x": "y" * 70_000}, "params that cannot be used: params have 70008 bytes"),
        (lambda *asked: {"x": float("nan")}, "params that cannot be used: params hold NaN"),
        (lambda *asked: {"pages": 10}, "params that do not fit the schema: params.pages: 10 is"),
        (divided, "the function of PROGROCK_AUTHORIZE failed"),
        (lambda scope: {}, "the function of PROGROCK_AUTHORIZE failed"),
    ],
)
def test_a_mistake_of_authorize_starts_nothing_and_is_logged_and_not_told(
    own: Authorize,
    logged: str,
    authorize: Callable[[Authorize], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authorize(own)
    with caplog.at_level(logging.ERROR), pytest.raises(Refused) as refused:
        start()
    assert (refused.value.code, refused.value.message) == ("misconfigured", doors.CANNOT_TELL)
    assert logged in caplog.text
    assert Job.objects.count() == 0
    caplog.clear()
    monkeypatch.setattr(own_code, "LOG_EVERY", 3600.0)
    assert code_of(start) == "misconfigured"
    assert caplog.text == "", "a thousand visitors make no thousand lines"


def test_a_database_that_is_away_is_no_mistake_of_authorize(
    authorize: Callable[[Authorize], None],
) -> None:
    def own(*asked: Any) -> Any:
        raise OperationalError("the connection is lost")

    authorize(own)
    with pytest.raises(OperationalError):
        start()


def test_again_is_a_start_like_any_other(authorize: Callable[[Authorize], None]) -> None:
    authorize(lambda scope, backend, params: {**params, "by": scope["type"]})
    old = make(audience="team:blue", backend="open", params={"pages": 3}, state="failed")
    row, created = doors.again(SCOPE, ["user:1", "team:blue"], old.id, "once")
    assert (created, row.audience, row.request) == (True, "user:1", "once")
    assert Job.objects.get(pk=row.id).params == {"pages": 3, "by": "websocket"}
    assert doors.again(SCOPE, ["user:1", "team:blue"], old.id, "once") == (row, False)
    code = make(backend="closed")
    assert code_of(lambda: doors.again(SCOPE, ["user:1"], code.id, None)) == "forbidden"
    assert code_of(lambda: doors.again(SCOPE, ["user:2"], old.id, None)) == "unknown_job"


@pytest.mark.parametrize("job", [None, 7, [], "x", "\0", str(uuid.UUID(int=7)), uuid.UUID(int=7)])
def test_what_is_no_job_is_unknown_and_so_is_that_of_somebody_else(job: Any) -> None:
    theirs = make(audience="user:2").id
    for each in (job, theirs):
        assert code_of(partial(doors.see, ["user:1"], each)) == "unknown_job"
        assert code_of(partial(doors.cancel, ["user:1"], each)) == "unknown_job"


def test_a_cancel_changes_an_active_job_once_and_an_ended_one_never() -> None:
    row, changed = doors.cancel(["user:1"], make().id)
    assert (row.cancel_requested, changed) == (True, True)
    ended = make(state="failed")
    assert doors.cancel(["user:1"], ended.id) == (ended, False)


def test_code_is_not_asked(authorize: Callable[[Authorize], None]) -> None:
    from progrock import creation

    authorize(lambda *asked: pytest.fail("asked"))
    assert creation.create("user:1", "closed", {}, None)[1]
    assert conf.authorize_path()
