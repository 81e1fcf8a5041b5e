"""Routes: `/prog/` for WebSockets, with sessions, and the streams before Django's own HTTP."""

from channels.routing import URLRouter
from channels.sessions import SessionMiddlewareStack
from django.urls import path

from progrock.consumers.http import http_application
from progrock.consumers.origins import SameSite
from progrock.consumers.progress import ProgressConsumer

__all__ = ["http_application", "websocket_application", "websocket_urlpatterns"]

websocket_urlpatterns = [path("prog/", ProgressConsumer.as_asgi())]
websocket_application = SameSite(SessionMiddlewareStack(URLRouter(websocket_urlpatterns)))
