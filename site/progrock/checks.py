"""System checks: a wrong setting stops the start. They say what was found and what to write."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from progrock import conf
from progrock.backends import ConfigError
from progrock.broker import address
from progrock.broker.errors import BrokerUnavailable
from progrock.gate import AUDIENCES, AUTHORIZE, Role, wrong_function

#: On SQLite a writer waits so many seconds at least for the one before it.
LEAST_TIMEOUT = 10
LAYER = "progrock.broker.channel_layer.ChannelLayer"


@register()
def check_backends(**kwargs: Any) -> list[CheckMessage]:
    """The backends' file can be read and makes sense."""
    try:
        conf.backends()
    except (ConfigError, ImproperlyConfigured) as error:
        where = "PROGROCK_BACKENDS: " if isinstance(error, ConfigError) else ""
        return [
            Error(
                f"{where}{error}",
                hint="The documentation has a page on backends: docs/backends.md.",
                id="progrock.E001",
            )
        ]
    return []


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """The other settings make sense."""
    found = _check_function(AUDIENCES, "progrock.E002")
    found += _check_function(AUTHORIZE, "progrock.E008")
    for name, default in conf.DEFAULTS.items():
        if name in conf.BOUNDS or default is None:  # the others have checks of their own
            try:
                conf.checked(name)
            except ImproperlyConfigured as error:
                found.append(Error(str(error), id="progrock.E003"))
    try:
        conf.socket_url()
    except ImproperlyConfigured as error:
        found.append(Error(str(error), id="progrock.E003"))
    found += _check_layer()
    found += _check_prefix()
    ours = [app for app in settings.INSTALLED_APPS if app in ("channels", "progrock")]
    if ours == ["channels", "progrock"]:
        found.append(
            Warning(
                "`channels` stands before `progrock` in INSTALLED_APPS, "
                "so `manage.py runworker` is that of Channels",
                hint="Put `progrock` first.",
                id="progrock.W001",
            )
        )
    return found


def _check_function(role: Role, identifier: str) -> list[CheckMessage]:
    """The function of the project's can be imported, and called as we call it."""
    try:
        path = str(conf.checked(role.setting))
    except ImproperlyConfigured as error:
        wrong: str | None = str(error)
    else:
        if not path and not conf.DEFAULTS[role.setting]:
            return []
        try:
            wrong = wrong_function(import_string(path), role)
        # whatever a module of the project's raises, or a script that ends the process
        except (Exception, SystemExit) as error:
            wrong = f"{path!r} cannot be imported ({type(error).__name__}: {error})"
        wrong = wrong and f"{role.setting}: {wrong}"
    return [Error(wrong, hint=role.hint, id=identifier)] if wrong else []


def _check_prefix() -> list[CheckMessage]:
    """The prefix can be one, and the channel layer has it too."""
    try:
        wanted = conf.names().prefix
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint="Installations share a virtual host of RabbitMQ by a prefix each, such as"
                " shop and shop-test. One that has a virtual host to itself needs none.",
                id="progrock.E005",
            )
        ]
    try:
        layer = _layer()
    except ImproperlyConfigured:  # another check tells
        return []
    used = layer.get("CONFIG", {}).get("prefix", conf.DEFAULTS["PROGROCK_PREFIX"])
    if layer.get("BACKEND") != LAYER or used == wanted:
        return []
    return [
        Error(
            f"PROGROCK_PREFIX is {wanted!r}, and the channel layer's prefix is {used!r}",
            hint='In CHANNEL_LAYERS write "CONFIG": {"host": AMQP_URL, "prefix": PROGROCK_PREFIX};'
            " otherwise installations that share a virtual host get each other's pushes.",
            id="progrock.E006",
        )
    ]


@register()
def check_addresses(**kwargs: Any) -> list[CheckMessage]:
    """The addresses of RabbitMQ can be read, and the files that they name for TLS."""
    found: list[CheckMessage] = []
    try:
        if not conf.in_memory():
            address.tls_of(conf.amqp_url())
    except ImproperlyConfigured as error:
        found.append(Error(str(error), id="progrock.E007"))
    except (BrokerUnavailable, OSError, ValueError) as error:  # ValueError: no name of a file
        found.append(Error(f"AMQP_URL: {error}", id="progrock.E007"))
    else:
        try:
            if not conf.in_memory():
                address.read_management(conf.management_url())
        except ImproperlyConfigured as error:
            found.append(Error(str(error), id="progrock.E007"))
        except BrokerUnavailable as error:
            found.append(Error(f"PROGROCK_MANAGEMENT_URL: {error}", id="progrock.E007"))
    return found


@register()
def check_sqlite(**kwargs: Any) -> list[CheckMessage]:
    """On SQLite, web server and workers can write at the same time."""
    database = getattr(settings, "DATABASES", {}).get("default", {})
    if database.get("ENGINE") != "django.db.backends.sqlite3" or _in_memory():
        return []
    missing = _missing_options(database.get("OPTIONS", {}), database.get("NAME", ""))
    if not missing:
        return []
    sentence = (
        f"DATABASES['default'] is SQLite without {' and '.join(missing)}: web server and workers"
        ' write at the same time, and some of that would fail with "database is locked"'
    )
    hint = (
        '"OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE",'
        ' "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}'
    )
    return [Warning(sentence, hint=hint, id="progrock.W003")]


def _missing_options(options: Mapping[str, Any], name: Any) -> list[str]:
    """Which of SQLite's options are missing, in words."""
    if "memory" in str(name):  # such a database has one process
        return []
    missing = []
    if str(options.get("transaction_mode", "")).upper() not in ("IMMEDIATE", "EXCLUSIVE"):
        missing.append("transaction_mode IMMEDIATE")
    if options.get("timeout", 5) < LEAST_TIMEOUT:  # 5 is Python's default
        missing.append(f"a timeout of {LEAST_TIMEOUT} s or more")
    command = str(options.get("init_command", ""))
    if not re.search(r"journal_mode\s*=\s*['\"]?wal", command, re.I) and not _is_wal(name):
        missing.append("WAL")
    return missing


def _is_wal(name: Any) -> bool:
    """Whether the file is in WAL mode already, which it keeps (sqlite.org/fileformat2, 1.3.3)."""
    try:
        with Path(name).open("rb") as file:
            return file.read(20)[18:] == b"\2\2"
    except (OSError, TypeError, ValueError):
        return False


@register(deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Jobs run: what is meant for tests has no place in production."""
    if not _in_memory():
        return []
    sentence = "AMQP_URL is memory://, so nothing is sent to RabbitMQ and no job runs"
    hint = "memory:// is for tests. Name your RabbitMQ: amqp://user:password@host/vhost."
    return [Error(sentence, hint=hint, id="progrock.E009")]


def _in_memory() -> bool:
    try:
        return conf.in_memory()
    except ImproperlyConfigured:  # another check tells
        return False


def _layer() -> Mapping[str, Any]:
    """The layer that PROGROCK_CHANNEL_LAYER names. Raises ImproperlyConfigured if there is none."""
    alias, layers = conf.channel_layer(), getattr(settings, "CHANNEL_LAYERS", {})
    if not isinstance(layers, Mapping) or alias not in layers:
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS has no {alias!r}, which PROGROCK_CHANNEL_LAYER names"
        )
    layer: Any = layers[alias]
    if not isinstance(layer, Mapping) or not isinstance(layer.get("CONFIG", {}), Mapping):
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS[{alias!r}] is {conf.shown(layer)}: wanted a dictionary with BACKEND"
            " and, as another dictionary, CONFIG"
        )
    return layer


def _check_layer() -> list[CheckMessage]:
    """The layer is configured, and pushes arrive. Tests of a project may take another one."""
    try:
        alias = conf.channel_layer()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="progrock.E004")]
    hint = f'"{alias}": {{"BACKEND": "{LAYER}", "CONFIG": {{"host": AMQP_URL}}}}'
    try:
        layer = _layer().get("BACKEND")
    except ImproperlyConfigured as error:
        return [Error(str(error), hint=f"CHANNEL_LAYERS = {{{hint}}}", id="progrock.E004")]
    if layer == LAYER or _in_memory():
        return []
    sentence = (
        f"the channel layer {alias!r} is {layer}: changes that a worker or another process makes"
        " show after some seconds only, as the repair finds them"
    )
    more = f"CHANNEL_LAYERS = {{{hint}}}, or name another alias in PROGROCK_CHANNEL_LAYER."
    return [Warning(sentence, hint=more, id="progrock.W002")]
