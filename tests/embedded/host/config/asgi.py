"""The host's ASGI application."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
http = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402  (needs the apps)

from progrock.consumers.routing import websocket_application  # noqa: E402  (needs the apps)

application = ProtocolTypeRouter({"http": http, "websocket": websocket_application})
