"""The host's ASGI application."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()

from django.conf import settings  # noqa: E402  (needs the apps, as all below)
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler  # noqa: E402

if settings.DEBUG:  # uvicorn serves no static files, and runserver does by the same handler
    django_application = ASGIStaticFilesHandler(django_application)

from channels.routing import ProtocolTypeRouter  # noqa: E402  (needs the apps)

from progrock.consumers.routing import (  # noqa: E402  (needs the apps)
    http_application,
    websocket_application,
)

application = ProtocolTypeRouter(
    {"http": http_application(django_application), "websocket": websocket_application}
)
