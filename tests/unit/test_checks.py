"""What `manage.py check` says of settings, and which origins may open a socket."""

from typing import Any
from urllib.parse import urlparse

import pytest
from django.core.checks import Error, Warning
from django.http import JsonResponse
from django.test import Client, override_settings

from progrock import checks, conf, views
from progrock.consumers import routing
from progrock.consumers.routing import SameSite
from tests.logs import own

MEMORY = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
OURS = {"BACKEND": checks.LAYER, "CONFIG": {"host": "amqp://"}}


def ids(**settings: Any) -> list[str]:
    """The checks that find fault with these settings."""
    with override_settings(**settings):
        return [str(found.id) for found in checks.check_settings()]


@pytest.mark.parametrize("name", conf.BOUNDS)
@pytest.mark.parametrize("value", [-1, 10**12, 10**400, float("inf"), float("nan"), "x", None])
def test_a_number_out_of_its_bounds_is_an_error(name: str, value: object) -> None:
    assert ids(**{name: value}) == ["progrock.E003"]
    with pytest.raises(ValueError, match=f"{name} is .*: wanted a .*number from"):
        conf.number(name, value)


@pytest.mark.parametrize("name", conf.BOUNDS)
def test_the_bounds_themselves_are_taken(name: str) -> None:
    least, most, whole = conf.BOUNDS[name]
    assert ids(**{name: least}) == ids(**{name: most}) == []
    assert ids(**{name: least + 0.5}) == (["progrock.E003"] if whole else [])


def test_every_number_among_the_settings_has_bounds() -> None:
    numbers = {name for name, default in conf.DEFAULTS.items() if type(default) in (int, float)}
    assert numbers <= conf.BOUNDS.keys()


def test_a_project_may_run_its_tests_with_the_layer_in_memory() -> None:
    with override_settings(CHANNEL_LAYERS={"default": MEMORY}):
        [found] = checks.check_settings()
    assert isinstance(found, Warning)
    assert found.id == "progrock.W002"
    assert checks.LAYER in str(found.hint)


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


def test_a_refused_origin_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routing, "_refused", set())
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["real.example"]):
        for n in range(3 * routing.MOST_TOLD):
            origin = urlparse(f"https://evil{n // 2}.example")
            assert not SameSite(None).valid_origin(origin)
    said = [each.getMessage() for each in own(caplog)]
    assert len(said) == routing.MOST_TOLD
    assert said[0] == (
        "refused a socket of 'https://evil0.example': its host is not in ALLOWED_HOSTS"
    )


def test_a_probe_needs_no_allowed_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "healthz", lambda request: JsonResponse({}))
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["real.example"]):
        probe = Client(headers={"host": "10.1.2.3:8000"})
        assert probe.get("/healthz").status_code == 200
        assert probe.get("/login/").status_code == 400
