"""The host's own settings; what ProgRock needs is marked."""

import os
from pathlib import Path

BASE = Path(__file__).resolve().parents[1]
SECRET_KEY = "a host's own secret"
DEBUG = True
ALLOWED_HOSTS = ["127.0.0.1"]  # ProgRock: pages of these hosts may open the WebSocket
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
AUTH_USER_MODEL = "people.Person"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["HOST_DATABASE"],
        # ProgRock: the web server and the workers write at the same time.
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        },
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "assets/"
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "progrock.outage.Sessions",  # ProgRock: in place of Django's SessionMiddleware
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "progrock.outage.DatabaseAway",  # ProgRock: 503 while the database is away
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
    "jobs",
    "progrock",  # before channels, because both have a command `runworker`
    "channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "django.contrib.staticfiles",
]

# ProgRock: where RabbitMQ is, and that Channels uses it.
AMQP_URL = os.environ["HOST_RABBITMQ"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "progrock.broker.channel_layer.ChannelLayer",
        "CONFIG": {"host": AMQP_URL},
    }
}
# ProgRock: which services run jobs, and who may see whose.
PROGROCK_BACKENDS = BASE / "backends.toml"
PROGROCK_AUDIENCES = "jobs.models.audiences"
