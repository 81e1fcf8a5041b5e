"""Which requests are answered before Django."""

from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.test import override_settings
from django.urls import include, path
from django.views.generic import View

from progrock.consumers.http import _route
from progrock.consumers.origins import same_site

JOB = "0f4b6f1e-6d1c-4c39-9f3a-2b7f0c55a1d2"
WAITS, KNOWS = ("prefer", "wait=9"), ("if-none-match", '"3"')

# The addresses of a project, for ROOT_URLCONF below.
urlpatterns = [
    path("inner/", include(([path("tasks/", include("progrock.urls"))], "inner"))),
    path("other/events", View.as_view(), name="events"),
    *i18n_patterns(path("films/", include("progrock.urls", namespace="films"))),
]


def route(method: str, address: str, *headers: tuple[str, str], root: str = "") -> Any:
    """The route of a request."""
    return _route(
        {
            "type": "http",
            "method": method,
            "path": address,
            "root_path": root,
            "query_string": b"",
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }
    )


@pytest.mark.parametrize(
    ("method", "address", "headers", "found"),
    [
        ("GET", "/events", (), ("events", None)),
        ("POST", "/events", (), (None, None)),
        ("GET", "/jobs/events", (), (None, None)),
        ("GET", f"/jobs/{JOB}", (WAITS,), ("job", JOB)),
        ("GET", f"/jobs/{JOB}", (WAITS, KNOWS), ("job", JOB)),
        ("GET", f"/jobs/{JOB}", (), (None, None)),
        ("DELETE", f"/jobs/{JOB}", (WAITS,), (None, None)),
        ("GET", "/jobs", (WAITS, KNOWS), ("jobs", None)),
        ("GET", "/jobs", (WAITS,), (None, None)),
        ("GET", f"/jobs/{JOB}/result", (WAITS,), (None, None)),
        ("GET", "/nothing", (WAITS,), (None, None)),
    ],
)
def test_streams_and_waiting_requests_are_answered_before_django(
    method: str, address: str, headers: tuple[tuple[str, str], ...], found: Any
) -> None:
    assert route(method, address, *headers) == found
    assert route(method, f"/below{address}", *headers, root="/below") == found


@override_settings(ROOT_URLCONF="tests.unit.test_http", LANGUAGES=[("en", "en"), ("de", "de")])
def test_the_routes_are_found_wherever_a_project_includes_them() -> None:
    for address in ("/inner/tasks/events", "/en/films/events", "/de/films/events"):
        assert route("GET", address) == ("events", None), address
    assert route("GET", f"/de/films/jobs/{JOB}", WAITS) == ("job", JOB)
    for address in ("/events", "/other/events", "/fr/films/events"):
        assert route("GET", address) == (None, None), address


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://real.example", True),
        ("https://evil.example", False),
        ("http://[::1", False),
        ("", False),
        ("null", False),
    ],
)
def test_only_pages_of_the_projects_hosts_may_ask(origin: str | None, allowed: bool) -> None:
    with override_settings(DEBUG=False, ALLOWED_HOSTS=["real.example"]):
        assert same_site(origin) is allowed
