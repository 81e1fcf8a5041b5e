"""Reads ProgRock's settings from Django's: each has its default, and numbers their bounds, here."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from progrock import installation
from progrock.backends import Options, load
from progrock.broker import address
from progrock.broker.names import Names

# None: the setting follows DEBUG. PROGROCK_BACKENDS has no default, because it names your own file.
DEFAULTS: dict[str, Any] = {
    "AMQP_URL": "amqp://guest:guest@127.0.0.1:5672/",
    "PROGROCK_ANONYMOUS": None,
    "PROGROCK_AUDIENCES": "progrock.audiences.audiences",
    "PROGROCK_AUTHORIZE": "",
    "PROGROCK_BACKENDS": "",
    "PROGROCK_CHANNEL_LAYER": "default",
    "PROGROCK_DECLARE": None,
    "PROGROCK_FEEDS": 1,
    "PROGROCK_KEEP_DAYS": 30,
    "PROGROCK_MANAGEMENT_URL": "",
    "PROGROCK_MAX_ACTIVE_JOBS": 100,
    "PROGROCK_MAX_SOCKETS": 100,
    "PROGROCK_MAX_STARTS_AN_HOUR": 1000,
    "PROGROCK_PREFIX": "progrock",
    "PROGROCK_SOCKET_URL": "prog/",
}
#: The settings that are numbers: the least, the most, and whether it must be a whole one.
BOUNDS: dict[str, tuple[int, int, bool]] = {
    "PROGROCK_FEEDS": (1, 1_000, True),
    "PROGROCK_KEEP_DAYS": (0, 36_500, False),
    "PROGROCK_MAX_ACTIVE_JOBS": (0, 1_000_000, True),
    "PROGROCK_MAX_SOCKETS": (1, 1_000_000, True),
    "PROGROCK_MAX_STARTS_AN_HOUR": (0, 1_000_000, True),
}
_loaded: dict[str, dict[str, Options]] = {}
_names: dict[str, Names] = {}


def setting(name: str) -> Any:
    """The setting of this name, or its default. Raises KeyError for a name without a default."""
    default = DEFAULTS[name]
    return getattr(settings, name, settings.DEBUG if default is None else default)


def checked(name: str) -> Any:
    """The setting of this name, or its default, if it has the right type and is within its bounds.

    A name in BOUNDS is a number, one whose default is None a flag, and any other a text.
    Raises ImproperlyConfigured with what was found and what was wanted. Each use checks this,
    because processes that serve ASGI run no system checks.
    """
    value = setting(name)
    try:
        if name in BOUNDS:
            return number(name, value)
        return flag(name, value) if DEFAULTS[name] is None else text(name, value)
    except ValueError as error:
        raise ImproperlyConfigured(str(error)) from None


def number(name: str, value: Any) -> int | float:
    """The value of a setting in BOUNDS as a number. Raises ValueError with a sentence."""
    return within(name, value, BOUNDS[name])


def within(name: str, value: Any, bounds: tuple[int, int, bool]) -> int | float:
    """The value as a number within `bounds`: the least, the most, and whether it must be whole.

    Raises ValueError with a sentence that begins with `name`.
    """
    least, most, whole = bounds
    wanted = f"wanted a {'whole ' if whole else ''}number from {least} to {most}"
    try:
        found = float("nan" if isinstance(value, bool | bytes) else value)
    except (TypeError, ValueError, OverflowError):
        found = float("nan")
    if not least <= found <= most or (whole and not found.is_integer()):
        raise ValueError(f"{name} is {shown(value)}: {wanted}")
    return int(found) if whole else found


def flag(name: str, value: Any) -> bool:
    """The value of a setting that is on or off. Raises ValueError with a sentence.

    A text is refused, because Python takes even "False" for true.
    """
    if not isinstance(value, int) or value not in (0, 1):
        raise ValueError(f"{name} is {shown(value)}: wanted True or False")
    return bool(value)


def text(name: str, value: Any) -> str:
    """The value of a setting that is a text. Raises ValueError with a sentence.

    The sentence does not show the value, because that may hold a password.
    """
    if isinstance(value, Path) and name == "PROGROCK_BACKENDS":
        return str(value)
    if not isinstance(value, str):
        found = "None" if value is None else f"of type {type(value).__name__}"
        raise ValueError(f"{name} is {found}: wanted a string")
    return value


def shown(value: object) -> str:
    """The `repr` of a value, shortened for a sentence."""
    try:
        words = repr(value)
    except Exception:  # a class of the project's may raise anything, an int have too many digits
        words = f"of type {type(value).__name__}"
    return words if len(words) <= 80 else f"{words[:79]}…"


def amqp_url() -> str:
    """Where RabbitMQ is: `AMQP_URL`."""
    return str(checked("AMQP_URL"))


def in_memory() -> bool:
    """Whether `AMQP_URL` is "memory://": a test, in which nothing is sent to RabbitMQ."""
    return amqp_url() == address.MEMORY


def management_url() -> str:
    """RabbitMQ's management API with its credentials: `PROGROCK_MANAGEMENT_URL`.

    By default it has the host and credentials of `AMQP_URL` and port 15672, or 15671 with TLS.
    Raises BrokerUnavailable if that is no address.
    """
    if url := checked("PROGROCK_MANAGEMENT_URL"):
        return str(url).rstrip("/")
    return address.management_of(amqp_url())


def backends() -> dict[str, Options]:
    """The backends of the file that `PROGROCK_BACKENDS` names, by name and in the file's order.

    Each process reads the file once. Raises ImproperlyConfigured if no file is named, and
    ConfigError if it is wrong.
    """
    path = str(checked("PROGROCK_BACKENDS"))
    if not path:
        raise ImproperlyConfigured(
            "PROGROCK_BACKENDS is not set: name the TOML file that describes your backends"
        )
    if path not in _loaded:
        _loaded[path] = load(Path(path))
    return _loaded[path]


def names() -> Names:
    """The names of all that we have in RabbitMQ. They begin with `PROGROCK_PREFIX`.

    Raises ImproperlyConfigured where that cannot be a prefix.
    """
    prefix = str(checked("PROGROCK_PREFIX"))
    try:
        return _names.get(prefix) or _names.setdefault(prefix, Names(prefix, installation.known))
    except ValueError as error:
        raise ImproperlyConfigured(f"PROGROCK_PREFIX: {error}") from None


def channel_layer() -> str:
    """The alias in CHANNEL_LAYERS of the layer that carries changes: `PROGROCK_CHANNEL_LAYER`."""
    return str(checked("PROGROCK_CHANNEL_LAYER"))


def anonymous() -> bool:
    """Whether visitors without a login may run jobs: `PROGROCK_ANONYMOUS`."""
    return bool(checked("PROGROCK_ANONYMOUS"))


def max_active_jobs() -> int:
    """How many jobs of one audience may be active at once: `PROGROCK_MAX_ACTIVE_JOBS`; 0: none."""
    return int(checked("PROGROCK_MAX_ACTIVE_JOBS"))


def max_sockets() -> int:
    """How many sockets a session may have open in one web process: `PROGROCK_MAX_SOCKETS`."""
    return int(checked("PROGROCK_MAX_SOCKETS"))


def max_starts_an_hour() -> int:
    """How many jobs an audience may start in an hour, 0: no limit (PROGROCK_MAX_STARTS_AN_HOUR)."""
    return int(checked("PROGROCK_MAX_STARTS_AN_HOUR"))


def keep_days() -> float:
    """Days after which an ended job is deleted: `PROGROCK_KEEP_DAYS`; 0 keeps it for ever."""
    return float(checked("PROGROCK_KEEP_DAYS"))


def socket_url() -> str:
    """Where browsers find the WebSocket: `PROGROCK_SOCKET_URL`.

    It is relative to the path under which the project is served, or a whole path or address.
    """
    url = str(checked("PROGROCK_SOCKET_URL"))
    if not url or not url.isprintable():
        raise ImproperlyConfigured(
            f"PROGROCK_SOCKET_URL is {shown(url)}: wanted a path such as prog/, or an address such"
            " as wss://live.example.com/prog/"
        )
    return url


def audiences_path() -> str:
    """Dotted path of the function `audiences(scope) -> list[str]`: `PROGROCK_AUDIENCES`."""
    return str(checked("PROGROCK_AUDIENCES"))


def authorize_path() -> str:
    """Dotted path of `authorize(scope, backend, params) -> params`: `PROGROCK_AUTHORIZE`.

    Empty where the project has none.
    """
    return str(checked("PROGROCK_AUTHORIZE"))


def feeds() -> int:
    """Over how many groups of the channel layer the audiences are spread: `PROGROCK_FEEDS`.

    All processes must have the same value.
    """
    return int(checked("PROGROCK_FEEDS"))


def declare() -> bool:
    """Whether `runworker` may declare the topology by itself: `PROGROCK_DECLARE`."""
    return bool(checked("PROGROCK_DECLARE"))
