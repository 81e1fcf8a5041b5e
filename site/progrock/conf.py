"""What the apps read from Django's settings, each with its default."""

from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from progrock.backends import Options, load

_loaded: dict[str, dict[str, Options]] = {}


def amqp_url() -> str:
    """Where RabbitMQ is: `AMQP_URL`."""
    return str(getattr(settings, "AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/"))


def management_url() -> str:
    """RabbitMQ's management API, credentials included: `PROGROCK_MANAGEMENT_URL`, else port 15672 beside `AMQP_URL`."""
    if url := getattr(settings, "PROGROCK_MANAGEMENT_URL", ""):
        return str(url).rstrip("/")
    parts = urlsplit(amqp_url())
    credentials, _, _ = parts.netloc.rpartition("@")
    scheme, port = ("https", 15671) if parts.scheme == "amqps" else ("http", 15672)
    return f"{scheme}://{credentials or 'guest:guest'}@{parts.hostname or '127.0.0.1'}:{port}"


def backends() -> dict[str, Options]:
    """The backends of `PROGROCK_BACKENDS` in the order of the file; read once a process. Raises ConfigError."""
    path = getattr(settings, "PROGROCK_BACKENDS", None)
    if not path:
        raise ImproperlyConfigured(
            "PROGROCK_BACKENDS is not set: name the TOML file that describes your backends"
        )
    path = str(path)
    if path not in _loaded:
        _loaded[path] = load(Path(path))
    return _loaded[path]


def anonymous() -> bool:
    """Whether visitors without a login may run jobs: `PROGROCK_ANONYMOUS`, by default only in DEBUG."""
    return bool(getattr(settings, "PROGROCK_ANONYMOUS", settings.DEBUG))


def max_active_jobs() -> int:
    """How many jobs of one audience may be active at once: `PROGROCK_MAX_ACTIVE_JOBS`."""
    return int(getattr(settings, "PROGROCK_MAX_ACTIVE_JOBS", 100))


def max_sockets() -> int:
    """How many sockets of one session a web process keeps open: `PROGROCK_MAX_SOCKETS`."""
    return int(getattr(settings, "PROGROCK_MAX_SOCKETS", 100))


def keep_days() -> float:
    """Days after which a finished job is deleted: `PROGROCK_KEEP_DAYS`; 0 keeps them for ever."""
    return float(getattr(settings, "PROGROCK_KEEP_DAYS", 30))


def audiences_path() -> str:
    """Dotted path of the function `audiences(scope) -> list[str]`: `PROGROCK_AUDIENCES`."""
    return str(getattr(settings, "PROGROCK_AUDIENCES", "progrock.audiences.audiences"))


def feeds() -> int:
    """Among how many channel layer groups the audiences are spread: `PROGROCK_FEEDS`, alike in all processes."""
    return int(getattr(settings, "PROGROCK_FEEDS", 1))


def declare() -> bool:
    """Whether `runworker` may declare the topology by itself: `PROGROCK_DECLARE`, by default only in DEBUG."""
    return bool(getattr(settings, "PROGROCK_DECLARE", settings.DEBUG))
