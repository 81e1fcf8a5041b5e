"""What a project's own code hands in is checked at the edge, with what was found and wanted."""

import dataclasses
import enum
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.contrib.sessions.backends.signed_cookies import SessionStore
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, connection
from django.http import HttpRequest
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

import progrock
from progrock import audiences, checks, sessions
from progrock.audiences import audience_of, audiences_of
from progrock.backends.base import LONGEST_HANDLE
from progrock.backends.config import LONGEST_NAME
from progrock.backends.labels import LONGEST_LABEL
from progrock.gate import MAX_AUDIENCE, MAX_REQUEST, checked_params
from progrock.models import Job
from progrock.storable import LONGEST_MESSAGE

#: How long each text may be that is let in, by its column.
LONGEST = {
    "audience": MAX_AUDIENCE,
    "backend": LONGEST_NAME,
    "request": MAX_REQUEST,
    "handle": LONGEST_HANDLE,
    "label": LONGEST_LABEL,
    "message": LONGEST_MESSAGE,
}


async def asynchronous(scope: Any) -> list[str]:
    return ["team:red"]


def generated(scope: Any) -> Iterator[str]:
    yield "team:red"


def function(found: Any) -> Callable[[Any], Any]:
    return lambda scope: found


def use(monkeypatch: pytest.MonkeyPatch, own: Callable[[Any], Any]) -> None:
    """Make `own` the function of PROGROCK_AUDIENCES."""
    monkeypatch.setattr(audiences, "import_string", lambda path: own)


@pytest.mark.parametrize("found", [["team:red"], ("team:red", "user:1"), []])
def test_a_list_of_names_is_taken(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, function(found))
    assert audiences_of({}) == list(found)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (function("team:red"), "str 'team:red'"),  # its letters would be audiences
        (function({"team:red"}), "set"),
        (function(None), "NoneType"),
        (function(7), "int"),
        (generated, "generator"),
        (asynchronous, "a coroutine, because it is an `async def`"),
        (function([7]), "a list that holds a value of type int"),
        (function([""]), "an empty string"),
        (function(["x" * 201]), "a string of 201 characters"),
        (function(["a\0b"]), "characters that cannot be printed"),
    ],
)
def test_anything_else_of_the_audiences_function_is_told(
    own: Callable[[Any], Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, own)
    with pytest.raises(ImproperlyConfigured) as raised:
        audiences_of({})
    message = str(raised.value)
    assert message.startswith("PROGROCK_AUDIENCES: progrock.audiences.audiences returned ")
    assert told in message
    assert message.endswith("wanted a list of strings of 1 to 200 characters")


async def asynchronously_generated(scope: Any) -> AsyncIterator[str]:
    yield "team:red"


class Asynchronous:
    """An object that is called as a function."""

    async def __call__(self, scope: Any) -> list[str]:
        return ["team:red"]


class Generated:
    """Another one."""

    def __call__(self, scope: Any) -> Iterator[str]:
        yield "team:red"


def of_two(scope: Any, request: Any) -> list[str]:
    return ["team:red"]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (asynchronous, "an `async def`, so a call returns no list"),
        (partial(asynchronous), "an `async def`, so a call returns no list"),
        (asynchronously_generated, "an `async def`, so a call returns no list"),
        (Asynchronous(), "an `async def`, so a call returns no list"),
        (generated, "a generator, because it has a `yield`, so a call returns no list"),
        (Generated(), "a generator, because it has a `yield`, so a call returns no list"),
        (Generated, "a class, so a call returns an object and not a list"),
        ("not a function", "of type str, which cannot be called"),
        (
            of_two,
            "a function that cannot be called with the scope alone"
            " (missing a required argument: 'request')",
        ),
    ],
)
def test_the_check_finds_what_it_can(own: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "import_string", lambda path: own)
    found = [each for each in checks.check_settings() if each.id == "progrock.E002"]
    assert [each.msg for each in found] == [
        f"PROGROCK_AUDIENCES: 'progrock.audiences.audiences' is {told}"
    ]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        (asynchronous, "an `async def`, so a call returns no dict"),
        (generated, "a generator, because it has a `yield`, so a call returns no dict"),
        (Generated, "a class, so a call returns an object and not a dict"),
        ("not a function", "of type str, which cannot be called"),
        (
            of_two,
            "a function that cannot be called with scope, backend and params"
            " (too many positional arguments)",
        ),
        (lambda scope, backend, params: params, None),
        (lambda *anything: {}, None),
    ],
)
def test_the_check_finds_what_it_can_of_the_function_of_authorize(
    own: Any, told: str | None, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def stand_in(path: str) -> Any:
        return own if path == "shop.jobs.authorize" else audiences.audiences

    monkeypatch.setattr(checks, "import_string", stand_in)
    settings.PROGROCK_AUTHORIZE = "shop.jobs.authorize"
    found = [(each.id, each.msg) for each in checks.check_settings()]
    sentence = f"PROGROCK_AUTHORIZE: 'shop.jobs.authorize' is {told}"
    assert found == ([("progrock.E008", sentence)] if told else [])


class Fine:
    """An object that returns a list."""

    def __call__(self, scope: Any) -> list[str]:
        return ["team:red"]


@pytest.mark.parametrize("own", [function([]), Fine(), partial(of_two, request=None), max])
def test_the_check_lets_pass_what_may_return_a_list(
    own: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "import_string", lambda path: own)
    assert checks.check_settings() == []


@pytest.mark.parametrize("raises", ["1 / 0", "raise SystemExit(3)", "import nowhere"])
def test_a_module_that_raises_while_it_is_imported_is_told(
    raises: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    (tmp_path / "shop_jobs.py").write_text(f"{raises}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_jobs", raising=False)
    settings.PROGROCK_AUDIENCES = "shop_jobs.audiences"
    [found] = checks.check_settings()
    assert found.id == "progrock.E002"
    assert found.msg.startswith("PROGROCK_AUDIENCES: 'shop_jobs.audiences' cannot be imported (")
    backends = tmp_path / "backends.toml"
    backends.write_text('[gpu]\nclass = "shop_jobs.Gpu"\n')
    settings.PROGROCK_BACKENDS = str(backends)
    [found] = checks.check_backends()
    assert found.id == "progrock.E001"
    assert "found 'shop_jobs.Gpu'; wanted the dotted path of a class (" in found.msg


def test_a_name_and_a_user_are_audiences() -> None:
    assert audience_of("team:blue") == "team:blue"
    assert audience_of(User(pk=7)) == "user:7"
    assert audience_of(SimpleLazyObject(lambda: User(pk=7))) == "user:7"


class Team(SimpleNamespace):
    """A model of the host's that has a key, as a user has."""


@pytest.mark.parametrize("value", [None, 7, Team(pk=7), ["team:red"], SimpleNamespace(session={})])
def test_what_is_no_audience_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="wanted a string such as 'team:blue', a user, or an"):
        audience_of(value)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "bad_audience"),
        ("x" * 201, "bad_audience"),
        ("a\0b", "bad_audience"),
        (User(), "bad_audience"),
        (AnonymousUser(), "login_required"),
    ],
)
def test_what_stands_for_nobody_is_refused(value: Any, code: str) -> None:
    with pytest.raises(progrock.Refused) as refused:
        audience_of(value)
    assert refused.value.code == code


def request() -> HttpRequest:
    made = HttpRequest()
    made.user = AnonymousUser()
    made.session = {}  # type: ignore[assignment]  # all that is used of one
    return made


def test_a_visitor_who_comes_for_the_first_time_gets_an_audience(settings: Any) -> None:
    settings.PROGROCK_ANONYMOUS = True
    first = request()
    audience = audience_of(first)
    assert audience == f"visitor:{first.session[sessions.VISITOR]}"
    assert audience_of(first) == audience
    settings.PROGROCK_ANONYMOUS = False
    with pytest.raises(progrock.Refused) as refused:
        audience_of(request())
    assert refused.value.code == "login_required"


def test_a_request_without_a_session_stands_for_its_user(settings: Any) -> None:
    settings.PROGROCK_ANONYMOUS = True
    of_an_api = HttpRequest()
    with pytest.raises(progrock.Refused) as refused:
        audience_of(of_an_api)
    assert refused.value.code == "login_required"
    of_an_api.user = AnonymousUser()
    with pytest.raises(progrock.Refused, match="Sign in to run jobs"):
        audience_of(of_an_api)
    of_an_api.user = User(pk=7)
    assert audience_of(of_an_api) == "user:7"


class Quality(enum.Enum):
    HIGH = "high"


@dataclasses.dataclass
class Size:
    width: float


class Endless(enum.Enum):
    INFINITE = float("inf")


def test_params_become_plain_json() -> None:
    key = uuid.uuid4()
    params = {
        "at": datetime(2026, 1, 2, tzinfo=UTC), "day": date(2026, 1, 2), "key": key,
        "quality": Quality.HIGH, "size": Size(7), "none": None, "list": [1.5, {"a": "null"}],
    }  # fmt: skip
    assert checked_params(params) == {
        "at": "2026-01-02T00:00:00+00:00", "day": "2026-01-02", "key": str(key),
        "quality": "high", "size": {"width": 7}, "none": None, "list": [1.5, {"a": "null"}],
    }  # fmt: skip
    assert checked_params(None) == {}


@pytest.mark.parametrize(
    "params",
    [
        {"a": float("nan")},
        {"a": [{"b": (1, float("inf"))}]},
        {"a": Size(float("nan"))},
        {"a": Endless.INFINITE},
        {"a": 2**64},
        {"a": object()},
        {1: 2},
        [1],
        {"a": "x" * 70_000},
        {"a": "\0"},
    ],
)
def test_params_that_json_or_a_database_cannot_hold_are_refused(params: Any) -> None:
    with pytest.raises(progrock.Refused) as refused:
        checked_params(params)
    assert refused.value.code == "bad_params"


def test_a_handshake_that_is_tried_again_still_gives_the_browser_its_session(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try met others at the database, so the whole call runs again."""
    settings.PROGROCK_ANONYMOUS = True
    session, saved = SessionStore(), []

    def save() -> None:
        saved.append(dict(session.items()))
        if len(saved) == 1:
            raise OperationalError("database is locked")

    monkeypatch.setattr(session, "save", save)
    scope = {"session": session, "user": AnonymousUser()}
    with pytest.raises(OperationalError):
        audiences.identify(scope)
    found, cookie = audiences.identify(scope)
    assert cookie
    assert cookie.startswith(f"{settings.SESSION_COOKIE_NAME}=")
    assert found == [f"visitor:{saved[1][sessions.VISITOR]}"]


@pytest.mark.django_db
def test_the_session_of_a_new_visitor_costs_one_insert_and_no_query(settings: Any) -> None:
    """Ten thousand may come at once. Django itself asks whether the random key is taken."""
    settings.PROGROCK_ANONYMOUS = True
    session = SimpleLazyObject(DatabaseSessions)  # as Channels puts it into the scope
    with CaptureQueriesContext(connection) as asked:
        audiences.identify({"session": session, "user": AnonymousUser()})
    words = [query["sql"].split()[0] for query in asked]
    assert [word for word in words if word in ("SELECT", "INSERT", "UPDATE")] == ["INSERT"]
    assert DatabaseSessions(session.session_key)[sessions.VISITOR] == session[sessions.VISITOR]
    assert session.exists(session.session_key), "the store answers as before"


@pytest.mark.parametrize("column", LONGEST)
def test_the_ledger_keeps_texts_as_long_as_those_that_are_let_in(column: str) -> None:
    assert Job._meta.get_field(column).max_length == LONGEST[column]
