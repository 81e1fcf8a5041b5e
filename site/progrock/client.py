"""What a page hands to progrock.js: the server's addresses, the CSRF token, and translations."""

from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.urls import NoReverseMatch, get_script_prefix, reverse

from progrock import conf
from progrock.texts import client_texts, different, form_texts, page_texts


def page_data(request: HttpRequest | None = None, *, page: bool = False) -> dict[str, Any]:
    """What progrock.js reads from the page as JSON.

    With `page` the texts of words.js and form.js are in it as well.
    """
    texts = different(client_texts)
    if page:
        texts |= different(page_texts) | different(form_texts)
    return {
        "socket": urljoin(get_script_prefix(), conf.socket_url()),
        "http": _http(),
        "csrf": _csrf(request),
        "texts": texts,
    }


def _http() -> str | None:
    """The path of `progrock.urls`; None in a project that does not include it."""
    try:
        return reverse("progrock:index")
    except NoReverseMatch:
        return None


def _csrf(request: HttpRequest | None) -> dict[str, str]:
    """How a script finds and sends Django's CSRF token.

    The token itself is there only where scripts cannot read its cookie.
    """
    header = settings.CSRF_HEADER_NAME.removeprefix("HTTP_").replace("_", "-")
    csrf = {"cookie": settings.CSRF_COOKIE_NAME, "header": header}
    if request is not None and (settings.CSRF_USE_SESSIONS or settings.CSRF_COOKIE_HTTPONLY):
        csrf["token"] = get_token(request)
    return csrf


def nonce_of(request: HttpRequest | None) -> str:
    """The nonce for scripts in the answer to this request; "" where there is none.

    It is made by django-csp, or by Django 6.
    """
    nonce = getattr(request, "csp_nonce", None)  # django-csp
    if nonce is None and request is not None:
        try:
            from django.middleware.csp import (  # type: ignore[import-untyped, unused-ignore]
                get_nonce,  # Django 6
            )
        except ImportError:
            return ""
        nonce = get_nonce(request)
    return "" if nonce is None else str(nonce)
