"""What a page tells the browser's client: where the socket is, and its texts in other words."""

from typing import Any
from urllib.parse import urljoin

from django.http import HttpRequest
from django.urls import get_script_prefix

from progrock import conf
from progrock.texts import client_texts, different, form_texts, page_texts


def told(*, page: bool = False) -> dict[str, Any]:
    """What progrock.js reads from the page as JSON; with `page` all other texts, too."""
    texts = different(client_texts)
    if page:
        texts |= different(page_texts) | different(form_texts)
    return {"socket": urljoin(get_script_prefix(), conf.socket_url()), "texts": texts}


def nonce_of(request: HttpRequest | None) -> str:
    """The nonce for scripts of this answer where django-csp or Django 6 makes one, else ''."""
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
