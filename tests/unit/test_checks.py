"""What `manage.py check` says of settings, and which origins may open a socket."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from django.conf import settings
from django.core.checks import Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.http import JsonResponse
from django.test import Client, override_settings

from progrock import checks, conf, views
from progrock.consumers.origins import SameSite
from tests.fresh import fresh
from tests.logs import own

MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
OURS = {"BACKEND": checks.LAYER, "CONFIG": {"host": "amqp://"}}
EVERY = (
    checks.check_backends,
    checks.check_settings,
    checks.check_addresses,
    checks.check_sqlite,
)
INFINITE = float("inf")
#: Values of all kinds; each setting takes at most one of them.
VALUES: list[Any] = [
    "x", "", "a\0b", None, -1, 7, INFINITE, 10**5000, True, b"bytes", ["a", "list"], object(), len,
]  # fmt: skip


def ids(**settings: Any) -> list[str]:
    """The checks that find fault with these settings."""
    with override_settings(**settings):
        return [str(found.id) for found in checks.check_settings()]


@pytest.mark.parametrize("name", conf.BOUNDS)
@pytest.mark.parametrize(
    "value",
    [-1, 10**12, 10**400, 10**5000, INFINITE, float("nan"), "x", None, True, b"1", []],
    ids=lambda value: conf.shown(value)[:9],
)
def test_a_number_out_of_its_bounds_is_an_error(name: str, value: object) -> None:
    assert ids(**{name: value}) == ["progrock.E003"]
    with pytest.raises(ValueError, match=f"{name} is .*: wanted a .*number from"):
        conf.number(name, value)


@pytest.mark.parametrize("name", conf.BOUNDS)
def test_the_bounds_themselves_are_taken(name: str) -> None:
    least, most, whole = conf.BOUNDS[name]
    assert ids(**{name: least}) == ids(**{name: most}) == []
    assert ids(**{name: least + 0.5}) == (["progrock.E003"] if whole else [])


@pytest.mark.parametrize("name", conf.BOUNDS)
def test_whoever_reads_a_number_is_told_what_is_wrong_with_it(name: str) -> None:
    read = getattr(conf, name.removeprefix("PROGROCK_").lower())
    with (
        override_settings(**{name: "many"}),
        pytest.raises(ImproperlyConfigured, match=f"{name} is 'many': wanted a .*number from"),
    ):
        read()


def test_every_number_among_the_settings_has_bounds() -> None:
    numbers = {name for name, default in conf.DEFAULTS.items() if type(default) in (int, float)}
    assert numbers <= conf.BOUNDS.keys()


def everything() -> list[Any]:
    """What all our checks say."""
    return [
        found
        for check in (
            checks.check_backends,
            checks.check_settings,
            checks.check_addresses,
            checks.check_sqlite,
        )
        for found in check()
    ]


def fits(name: str, value: object) -> bool:
    """Whether one of VALUES will do for a setting."""
    if name in conf.BOUNDS:
        return type(value) is int and value == 7
    if conf.DEFAULTS[name] is None:
        return value is True
    return (name, value) in [
        ("PROGROCK_AUTHORIZE", ""),
        ("PROGROCK_MANAGEMENT_URL", ""),
        ("PROGROCK_PREFIX", "x"),
        ("PROGROCK_SOCKET_URL", "x"),
    ]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: conf.shown(value)[:9])
@pytest.mark.parametrize("name", conf.DEFAULTS)
def test_the_check_says_what_it_found_and_wanted_whatever_a_setting_is(
    name: str, value: object
) -> None:
    with override_settings(**{name: value}):
        found = everything()
    if fits(name, value):
        # the prefix must stand in CHANNEL_LAYERS as well
        assert [each.id for each in found] == ["progrock.E006"] * (name == "PROGROCK_PREFIX")
    else:
        [error] = found
        assert type(error) is Error
        assert name in error.msg
        assert len(error.msg) < 400


@pytest.mark.parametrize("name", conf.DEFAULTS)
@pytest.mark.parametrize("value", [None, b"x", object()])
def test_no_value_of_a_wrong_kind_is_believed_where_nobody_checks(name: str, value: object) -> None:
    """A web process that only serves ASGI runs no system checks."""
    with (
        override_settings(**{name: value}),
        pytest.raises(ImproperlyConfigured, match=f"{name} is .*: wanted "),
    ):
        conf.checked(name)


@pytest.mark.parametrize("name", ["PROGROCK_ANONYMOUS", "PROGROCK_DECLARE"])
def test_a_text_is_no_flag(name: str) -> None:
    assert ids(**{name: "False"}) == ["progrock.E003"]
    with override_settings(PROGROCK_ANONYMOUS="False"), pytest.raises(ImproperlyConfigured):
        conf.anonymous()


def test_a_number_may_be_written_as_a_text() -> None:
    with override_settings(PROGROCK_FEEDS="5", PROGROCK_MAX_SOCKETS="1e2"):
        assert everything() == []
        assert (conf.feeds(), conf.max_sockets()) == (5, 100)


@pytest.mark.parametrize(
    "layers",
    [
        None,
        [],
        {},
        {"default": None},
        {"default": "x"},
        {"default": {"BACKEND": checks.LAYER, "CONFIG": None}},
    ],
)
def test_channel_layers_of_any_shape_are_told(layers: Any) -> None:
    with override_settings(CHANNEL_LAYERS=layers):
        [found] = everything()
    assert found.id == "progrock.E004"
    assert "CHANNEL_LAYERS" in found.msg


def test_a_project_may_run_its_tests_with_the_layer_in_memory() -> None:
    with override_settings(CHANNEL_LAYERS={"default": MEMORY}):
        [found] = checks.check_settings()
    assert isinstance(found, Warning)
    assert found.id == "progrock.W002"
    assert checks.LAYER in str(found.hint)


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({}, "transaction_mode IMMEDIATE and a timeout of 10 s or more and WAL"),
        ({"timeout": 20, "transaction_mode": "immediate"}, "WAL"),
        ({"timeout": 20, "init_command": "pragma journal_mode = 'wal'"}, "transaction_mode IMM"),
        ({"transaction_mode": "EXCLUSIVE", "init_command": "PRAGMA journal_mode=WAL"}, "a timeout"),
    ],
)
def test_sqlite_without_what_two_writers_need_is_told(
    options: dict[str, Any], missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert checks.check_sqlite() == []
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", options)
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", str(tmp_path / "db.sqlite3"))
    [found] = checks.check_sqlite()
    assert isinstance(found, Warning)
    assert f"SQLite without {missing}" in found.msg
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", "file:memorydb?mode=memory")
    assert checks.check_sqlite() == []


def test_a_file_that_is_in_wal_mode_stays_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "db.sqlite3"
    monkeypatch.setitem(
        settings.DATABASES["default"], "OPTIONS", {"timeout": 20, "transaction_mode": "IMMEDIATE"}
    )
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", file)
    for mode, told in (("delete", 1), ("wal", 0)):
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute(f"CREATE TABLE {mode}_ (a)")
            connection.commit()
        assert len(checks.check_sqlite()) == told


def test_nothing_is_wrong_with_tests_that_need_no_rabbitmq() -> None:
    with override_settings(AMQP_URL="memory://", CHANNEL_LAYERS={"default": MEMORY}):
        assert everything() == []
        [found] = checks.check_deployment()
        with pytest.raises(CommandError, match="AMQP_URL is memory://, which is for tests"):
            call_command("runworker", skip_checks=True)
    assert isinstance(found, Error)
    assert found.id == "progrock.E009"
    assert checks.check_deployment() == []


def test_a_project_may_keep_another_default_layer() -> None:
    layers = {"default": MEMORY, "jobs": OURS}
    assert ids(CHANNEL_LAYERS=layers, PROGROCK_CHANNEL_LAYER="jobs") == []
    with override_settings(CHANNEL_LAYERS=layers, PROGROCK_CHANNEL_LAYER="job"):
        [found] = checks.check_settings()
    assert isinstance(found, Error)
    assert "'job'" in found.msg


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("http://localhost:8000", True),
        ("http://app.localhost", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1]:8000", True),
        ("https://evil.example", False),
    ],
)
def test_without_allowed_hosts_debug_allows_this_machine(origin: str, allowed: bool) -> None:
    with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
        assert SameSite(None).valid_origin(urlparse(origin)) is allowed
    with override_settings(DEBUG=False, ALLOWED_HOSTS=[]):
        assert not SameSite(None).valid_origin(urlparse(origin))


def test_a_refused_origin_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    origins = fresh("progrock.consumers.origins")
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["real.example"]):
        for n in range(3 * origins.MOST_LOGGED):
            origin = urlparse(f"https://evil{n // 2}.example")
            assert not origins.SameSite(None).valid_origin(origin)
    said = [each.getMessage() for each in own(caplog)]
    assert len(said) == origins.MOST_LOGGED
    assert said[0] == (
        "refused a page of 'https://evil0.example': its host is 'evil0.example',"
        " and wanted is one of ALLOWED_HOSTS: 'real.example'"
    )


def test_a_probe_needs_no_allowed_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "healthz", lambda request: JsonResponse({}))
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["real.example"]):
        probe = Client(headers={"host": "10.1.2.3:8000"})
        assert probe.get("/healthz").status_code == 200
        assert probe.get("/login/").status_code == 400
