"""The ASGI application, which gives HTTP to Django and WebSockets to ProgRock's consumers."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django_application = get_asgi_application()  # it loads the apps, which the imports below need

from channels.routing import ProtocolTypeRouter  # noqa: E402  (needs the apps)

from progrock.consumers.routing import (  # noqa: E402  (needs the apps)
    http_application,
    websocket_application,
)

application = ProtocolTypeRouter(
    {"http": http_application(django_application), "websocket": websocket_application}
)
