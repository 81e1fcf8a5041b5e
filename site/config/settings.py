"""Settings of the stand-alone project, and the only file of it that reads the environment."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import dj_database_url
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from progrock import conf
from progrock.conf import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
#: Where this project keeps its own files: SQLite's database, and static files.
DIRECTORY = Path(os.environ.get("PROGROCK_DIRECTORY") or ROOT / ".progrock")
#: The numbers that only this file reads: the default, and the bounds as in `conf.BOUNDS`.
OWN_NUMBERS = {"PROGROCK_POOL": (10, (0, 1_000, True))}


def flag(name: str, default: bool) -> bool:
    """An environment variable as yes or no. Raises ImproperlyConfigured for anything else."""
    text = os.environ.get(name, "").strip().lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off"):
        return False
    if text:
        raise ImproperlyConfigured(f"{name} is {text!r}: wanted 1 or 0")
    return default


def number(name: str) -> int | float:
    """An environment variable as a number within its bounds. Raises ImproperlyConfigured."""
    default, bounds = OWN_NUMBERS.get(name) or (DEFAULTS[name], conf.BOUNDS[name])
    try:
        return conf.within(name, os.environ.get(name, "").strip() or default, bounds)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def words(name: str) -> list[str]:
    """An environment variable as a list, whose parts have commas or spaces between them."""
    return os.environ.get(name, "").replace(",", " ").split()


DEBUG = flag("DEBUG", False)
SECRET_KEY = os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    if not DEBUG:
        raise ImproperlyConfigured(
            "SECRET_KEY is not set: wanted 50 random characters in the environment, "
            "or DEBUG=1 while you develop"
        )
    SECRET_KEY = "progrock-development-only-not-a-secret-at-all-000000"
ALLOWED_HOSTS = words("ALLOWED_HOSTS")
if DEBUG and not ALLOWED_HOSTS:
    ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

# `progrock` stands before `channels`, because both have a `runworker` and the first one counts.
# daphne (for development) makes runserver serve WebSockets.
INSTALLED_APPS = [
    "progrock",
    "channels",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "servestatic.runserver_nostatic",
    "django.contrib.staticfiles",
]
if flag("PROGROCK_DAPHNE", False):
    INSTALLED_APPS.insert(0, "daphne")
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "servestatic.middleware.ServeStaticMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "progrock.health.HealthFirst",
    "progrock.outage.Sessions",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "progrock.outage.DatabaseAway",
]
ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"
TEMPLATES: list[dict[str, Any]] = [
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

# A command of manage.py, such as the worker, works with the database in one thread, which keeps its
# connection. Django's health check notices a dead connection and replaces it. In a web process each
# request has a thread of its own, so it must not keep its connection after the request.
COMMAND = Path(sys.argv[0]).name in ("manage.py", "django-admin")
WEB = not COMMAND or sys.argv[1:2] == ["runserver"]
try:
    DATABASES: dict[str, Any] = {
        "default": dict(
            dj_database_url.parse(
                os.environ.get("DATABASE_URL") or f"sqlite:///{DIRECTORY / 'db.sqlite3'}",
                conn_max_age=0 if WEB else 600,
                conn_health_checks=True,
            )
        )
    }
except (dj_database_url.UnknownSchemeError, dj_database_url.ParseError) as error:
    raise ImproperlyConfigured(
        f"DATABASE_URL: {error}; wanted an address such as postgres://user:password@host/name"
    ) from None
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"].setdefault("OPTIONS", {}).update(
        timeout=20,
        transaction_mode="IMMEDIATE",
        # Workers change the same pages again and again. With rare checkpoints SQLite writes such a
        # page once for many changes. The log grows to 40 MB at most.
        init_command="PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; "
        "PRAGMA wal_autocheckpoint=10000",
    )
    Path(DATABASES["default"]["NAME"]).parent.mkdir(parents=True, exist_ok=True)
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # Every wait has a limit: for a connection, for a server that has vanished, for a lock.
    # PgBouncer refuses a connection with `options`. Behind it a server-side cursor could not live
    # longer than a transaction.
    pgbouncer = flag("PROGROCK_PGBOUNCER", False)
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = pgbouncer
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        **({} if pgbouncer else {"options": "-c statement_timeout=30s"}),
    } | DATABASES["default"].get("OPTIONS", {})
    if WEB and (connections := number("PROGROCK_POOL")):
        # A request that finds no free connection waits up to `timeout`. After an outage of the
        # database the pool tries again every second or two.
        DATABASES["default"]["OPTIONS"]["pool"] = {
            "min_size": 0,
            "max_size": connections,
            "timeout": 5,
            "reconnect_timeout": 4,
            "max_idle": 60,
            "max_lifetime": 300,
        }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AMQP_URL = os.environ.get("AMQP_URL") or DEFAULTS["AMQP_URL"]
PROGROCK_PREFIX = os.environ.get("PROGROCK_PREFIX") or DEFAULTS["PROGROCK_PREFIX"]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "progrock.broker.channel_layer.ChannelLayer",
        "CONFIG": {"host": AMQP_URL, "prefix": PROGROCK_PREFIX},
    }
}

PROGROCK_BACKENDS = os.environ.get("PROGROCK_BACKENDS") or str(ROOT / "deploy" / "backends.toml")
PROGROCK_ANONYMOUS = flag("PROGROCK_ANONYMOUS", DEBUG)
PROGROCK_MAX_ACTIVE_JOBS = number("PROGROCK_MAX_ACTIVE_JOBS")
PROGROCK_MAX_SOCKETS = number("PROGROCK_MAX_SOCKETS")
PROGROCK_MAX_STARTS_AN_HOUR = number("PROGROCK_MAX_STARTS_AN_HOUR")
PROGROCK_KEEP_DAYS = number("PROGROCK_KEEP_DAYS")
PROGROCK_AUDIENCES = os.environ.get("PROGROCK_AUDIENCES") or DEFAULTS["PROGROCK_AUDIENCES"]
PROGROCK_AUTHORIZE = os.environ.get("PROGROCK_AUTHORIZE", "")
PROGROCK_FEEDS = number("PROGROCK_FEEDS")
PROGROCK_DECLARE = flag("PROGROCK_DECLARE", DEBUG)
PROGROCK_SOCKET_URL = os.environ.get("PROGROCK_SOCKET_URL") or DEFAULTS["PROGROCK_SOCKET_URL"]
PROGROCK_MANAGEMENT_URL = os.environ.get("PROGROCK_MANAGEMENT_URL", "")

LANGUAGE_CODE = "en-gb"
LANGUAGES = [("en-gb", "English"), ("de", "Deutsch")]  # those that ProgRock itself has
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"
STATIC_ROOT = DIRECTORY / "static"
STATIC_ROOT.mkdir(parents=True, exist_ok=True)
SERVESTATIC_USE_FINDERS = DEBUG
LOGIN_URL = "progrock:login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "progrock:index"
SESSION_COOKIE_HTTPONLY = True
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
if not DEBUG:
    secure = flag("PROGROCK_HTTPS", True)
    SECURE_SSL_REDIRECT = SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = secure
    SECURE_PROXY_SSL_HEADER = (
        ("HTTP_X_FORWARDED_PROTO", "https") if flag("PROGROCK_BEHIND_PROXY", False) else None
    )
    SECURE_HSTS_SECONDS = 365 * 86400 if secure else 0
    SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = secure and flag(
        "PROGROCK_HSTS_SUBDOMAINS", True
    )
    SECURE_REDIRECT_EXEMPT = [r"^healthz$"]
    # In ALLOWED_HOSTS `.example` means a domain and its subdomains. Here each needs its own entry.
    CSRF_TRUSTED_ORIGINS = words("CSRF_TRUSTED_ORIGINS") or [
        f"https://{each}"
        for host in ALLOWED_HOSTS
        if host != "*"
        for each in ([host[1:], f"*{host}"] if host.startswith(".") else [host])
    ]

log_level = (os.environ.get("PROGROCK_LOG_LEVEL") or "INFO").upper()
if log_level not in logging.getLevelNamesMapping():
    raise ImproperlyConfigured(
        f"PROGROCK_LOG_LEVEL is {log_level!r}: wanted DEBUG, INFO, WARNING or ERROR"
    )
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "progrock": {"level": log_level},
        "psycopg.pool": {
            "level": "ERROR"
        },  # because it warns at each try, and we log an outage once
    },
}
