"""What a page tells the browser's client: addresses, texts in its language, and a nonce."""

import json
import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from csp.middleware import CSPMiddleware
from django.http import HttpRequest, HttpResponse
from django.template import Context, Template
from django.test import override_settings
from django.urls import set_script_prefix
from django.utils.translation import override

from progrock import client, texts

JOB = "3f2a0000-0000-4000-8000-000000000001"


def page(source: str, request: HttpRequest | None = None, **context: object) -> str:
    """A page of somebody's own with this template."""
    return Template("{% load progrock %}" + source).render(Context({"request": request, **context}))


def told_by(html: str) -> dict[str, object]:
    """What a page tells the client."""
    [text] = re.findall(r'<script id="progrock-page" type="application/json">(.*?)</script>', html)
    told: dict[str, object] = json.loads(text)
    return told


def test_an_english_page_tells_the_socket_and_no_texts() -> None:
    assert told_by(page("{% progrock_client %}")) == {
        "socket": "/prog/",
        "http": "/",
        "csrf": {"cookie": "csrftoken", "header": "X-CSRFTOKEN"},
        "texts": {},
    }


def test_the_csrf_token_is_told_where_no_script_can_read_its_cookie() -> None:
    with override_settings(CSRF_COOKIE_HTTPONLY=True, CSRF_COOKIE_NAME="shop"):
        csrf = told_by(page("{% progrock_client %}", HttpRequest()))["csrf"]
    assert isinstance(csrf, dict)
    assert csrf["cookie"] == "shop"
    assert len(csrf["token"]) == 64


@pytest.mark.parametrize(
    ("setting", "prefix", "told"),
    [
        ("prog/", "/shop/", "/shop/prog/"),
        ("live/prog/", "/", "/live/prog/"),
        ("/prog/", "/shop/", "/prog/"),
        ("wss://live.example.com/prog/", "/shop/", "wss://live.example.com/prog/"),
    ],
)
def test_the_socket_is_under_the_path_of_the_project(setting: str, prefix: str, told: str) -> None:
    set_script_prefix(prefix)
    try:
        with override_settings(PROGROCK_SOCKET_URL=setting):
            assert client.page_data()["socket"] == told
            assert client.page_data()["http"] == prefix
    finally:
        set_script_prefix("/")


def test_several_tags_of_a_template_tell_it_once() -> None:
    html = page("{% progrock_client %}{% job_progress job %}{% job_progress job %}", job=JOB)
    assert told_by(html)
    assert html.count("<script") == 2


def test_texts_come_in_the_pages_language(tmp_path: Path) -> None:
    catalog = Catalog(locale="pl")
    one, more = "{count} job starts", "{count} jobs start"
    one, more = (f"{each} as soon as the connection is back." for each in (one, more))
    catalog.add((one, more), ("zadanie", "zadania", "zadań"))
    catalog.add("Running", "W toku")
    folder = tmp_path / "pl" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    with (folder / "django.mo").open("wb") as file:
        write_mo(file, catalog)
    with override_settings(LOCALE_PATHS=[tmp_path]), override("pl"):
        assert texts.different(texts.client_texts)["state_running"] == "W toku"
        assert client.page_data()["texts"]["state_running"] == "W toku"
        assert texts.different(texts.page_texts)["page_unsent"] == {
            "one": "zadanie",
            "two": "zadania",
            "few": "zadania",
            "other": "zadań",
        }


def test_the_script_has_the_nonce_of_the_request() -> None:
    request = HttpRequest()
    csp = CSPMiddleware(lambda request: HttpResponse())
    csp.process_request(request)
    html = page("{% job_progress job %}", request, job=JOB)
    assert f'nonce="{request.csp_nonce}"' in html  # type: ignore[attr-defined]  # django-csp's


def test_the_script_has_the_nonce_that_a_template_gives() -> None:
    assert 'nonce="abc"' in page("{% job_progress job nonce='abc' %}", job=JOB)
    assert 'nonce="abc"' in page("{% progrock_client %}", csp_nonce="abc")
    assert "nonce" not in page("{% progrock_client %}", HttpRequest())
