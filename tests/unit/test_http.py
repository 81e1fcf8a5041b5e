"""Which requests are answered before Django."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.test import override_settings
from django.urls import include, path
from django.views.generic import View

from progrock.consumers import http
from progrock.consumers.origins import same_site

JOB = "0f4b6f1e-6d1c-4c39-9f3a-2b7f0c55a1d2"
WAITS, KNOWS = ("prefer", "wait=9"), ("if-none-match", '"3"')

# The addresses of a project, for ROOT_URLCONF below.
urlpatterns = [
    path("inner/", include(([path("tasks/", include("progrock.urls"))], "inner"))),
    path("other/events", View.as_view(), name="events"),
    *i18n_patterns(path("films/", include("progrock.urls", namespace="films"))),
]


Answered = Callable[..., str]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Answered:
    """Says of a request who answers it: "a stream", "a wait" and for which job, or "Django"."""
    said: list[str] = []

    class Stream:
        def __init__(self, receive: Any, send: Any) -> None:
            """What a stream would need."""

        async def run(self, scope: Any) -> None:
            said.append("a stream")

    class Wait:
        def __init__(self, django: Any, *asgi: Any, job_id: str | None) -> None:
            self.job_id = job_id

        async def run(self, scope: Any) -> None:
            said.append(f"a wait for {self.job_id or 'the list'}")

    async def django(scope: Any, receive: Any, send: Any) -> None:
        said.append("Django")

    monkeypatch.setattr(http, "Stream", Stream)
    monkeypatch.setattr(http, "Wait", Wait)
    application = http.http_application(django)

    def ask(method: str, address: str, *headers: tuple[str, str], root: str = "") -> str:
        scope = {
            "type": "http",
            "method": method,
            "path": address,
            "root_path": root,
            "query_string": b"",
            "headers": [(b"host", b"testserver")]
            + [(name.encode(), value.encode()) for name, value in headers],
        }
        asyncio.run(application(scope, None, None))
        return said.pop()

    return ask


@pytest.mark.parametrize(
    ("method", "address", "headers", "by"),
    [
        ("GET", "/events", (), "a stream"),
        ("POST", "/events", (), "Django"),
        ("GET", "/jobs/events", (), "Django"),
        ("GET", f"/jobs/{JOB}", (WAITS,), f"a wait for {JOB}"),
        ("GET", f"/jobs/{JOB}", (WAITS, KNOWS), f"a wait for {JOB}"),
        ("GET", f"/jobs/{JOB}", (), "Django"),
        ("DELETE", f"/jobs/{JOB}", (WAITS,), "Django"),
        ("GET", "/jobs", (WAITS, KNOWS), "a wait for the list"),
        ("GET", "/jobs", (WAITS,), "Django"),
        ("GET", f"/jobs/{JOB}/result", (WAITS,), "Django"),
        ("GET", "/nothing", (WAITS,), "Django"),
    ],
)
def test_streams_and_waiting_requests_are_answered_before_django(
    answered: Answered, method: str, address: str, headers: tuple[tuple[str, str], ...], by: str
) -> None:
    assert answered(method, address, *headers) == by
    assert answered(method, f"/below{address}", *headers, root="/below") == by


@override_settings(ROOT_URLCONF="tests.unit.test_http", LANGUAGES=[("en", "en"), ("de", "de")])
def test_the_routes_are_found_wherever_a_project_includes_them(answered: Answered) -> None:
    for address in ("/inner/tasks/events", "/en/films/events", "/de/films/events"):
        assert answered("GET", address) == "a stream", address
    assert answered("GET", f"/de/films/jobs/{JOB}", WAITS) == f"a wait for {JOB}"
    for address in ("/events", "/other/events", "/fr/films/events"):
        assert answered("GET", address) == "Django", address


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
