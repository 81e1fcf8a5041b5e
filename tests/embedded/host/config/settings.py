"""The host's own settings; what ProgRock needs stands at the end."""

import os
from pathlib import Path

BASE = Path(__file__).resolve().parents[1]
SECRET_KEY = "a host's own secret"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
AUTH_USER_MODEL = "people.Person"
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["HOST_DATABASE"]}
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "assets/"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
INSTALLED_APPS = [
    "people",
    "jobs",  # the host's own app of this name
    "progrock",
    "channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
]

AMQP_URL = os.environ["HOST_RABBITMQ"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "progrock.broker.channel_layer.ChannelLayer",
        "CONFIG": {"host": AMQP_URL},
    }
}
PROGROCK_BACKENDS = BASE / "backends.toml"
PROGROCK_AUDIENCES = "jobs.models.audiences"
