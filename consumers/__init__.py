"""Reacts to browsers (ProgressConsumer) and to poll tasks (Poller)."""

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

if not apps.apps_ready:  # else a later import would fail, without a word about asgi.py
    raise ImproperlyConfigured(
        "progrock.consumers was imported before Django had loaded the apps. In asgi.py, call"
        " get_asgi_application() first, and import progrock.consumers.routing, and whatever"
        " else imports it, below that line."
    )
