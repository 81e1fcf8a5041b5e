"""Django's system checks for ProgRock: they say what is wrong in the settings and what to write."""

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

#: The least `timeout` in seconds for SQLite, for which a writer waits for the one before it.
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
                hint="docs/backends.md says what this file may hold.",
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
                "so `manage.py runworker` is the command of Channels, which runs no jobs",
                hint="Put `progrock` before `channels`.",
                id="progrock.W001",
            )
        )
    return found


def _check_function(role: Role, identifier: str) -> list[CheckMessage]:
    """The project's function for this role can be imported, and called with its arguments."""
    try:
        path = str(conf.checked(role.setting))
    except ImproperlyConfigured as error:
        wrong: str | None = str(error)
    else:
        if not path and not conf.DEFAULTS[role.setting]:
            return []
        try:
            wrong = wrong_function(import_string(path), role)
            wrong = wrong and f"{role.setting}: {path!r} is {wrong}"
        # a module of the project's may raise anything, and a script may end the process
        except (Exception, SystemExit) as error:
            wrong = f"{role.setting}: {path!r} cannot be imported ({type(error).__name__}: {error})"
    return [Error(wrong, hint=role.hint, id=identifier)] if wrong else []


def _check_prefix() -> list[CheckMessage]:
    """PROGROCK_PREFIX can be a prefix, and the channel layer has the same one."""
    try:
        wanted = conf.names().prefix
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                hint="Installations that share a virtual host of RabbitMQ need a prefix each, such"
                " as shop and shop-test. Where there is only one, leave the setting out.",
                id="progrock.E005",
            )
        ]
    try:
        layer = _layer()
    except ImproperlyConfigured:  # `_check_layer` reports it
        return []
    used = layer.get("CONFIG", {}).get("prefix", conf.DEFAULTS["PROGROCK_PREFIX"])
    if layer.get("BACKEND") != LAYER or used == wanted:
        return []
    return [
        Error(
            f"PROGROCK_PREFIX is {wanted!r}, but the prefix in CHANNEL_LAYERS is {used!r};"
            " wanted the same one",
            hint='In CHANNEL_LAYERS write "CONFIG": {"host": AMQP_URL, "prefix": PROGROCK_PREFIX}.'
            " Otherwise installations that share a virtual host get each other's updates.",
            id="progrock.E006",
        )
    ]


@register()
def check_addresses(**kwargs: Any) -> list[CheckMessage]:
    """RabbitMQ's two addresses can be understood, and the files that they name for TLS exist."""
    found: list[CheckMessage] = []
    try:
        if not conf.in_memory():
            address.tls_of(conf.amqp_url())
    except ImproperlyConfigured as error:
        found.append(Error(str(error), id="progrock.E007"))
    except BrokerUnavailable as error:
        found.append(Error(f"AMQP_URL: {error}", id="progrock.E007"))
    except (OSError, ValueError) as error:  # ValueError where a text cannot name a file
        sentence = f"AMQP_URL: a file that it names for TLS cannot be used: {error}"
        found.append(Error(sentence, id="progrock.E007"))
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
    """SQLite is set up so that the web server and the workers can write at the same time."""
    database = getattr(settings, "DATABASES", {}).get("default", {})
    if database.get("ENGINE") != "django.db.backends.sqlite3" or _in_memory():
        return []
    missing = _missing_options(database.get("OPTIONS", {}), database.get("NAME", ""))
    if not missing:
        return []
    sentence = (
        f"DATABASES['default'] is SQLite without {' and '.join(missing)}. The web server and the"
        ' workers write at the same time, and some writes would fail with "database is locked"'
    )
    hint = (
        '"OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE",'
        ' "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}'
    )
    return [Warning(sentence, hint=hint, id="progrock.W003")]


def _missing_options(options: Mapping[str, Any], name: Any) -> list[str]:
    """Which of SQLite's options are missing, in words."""
    if "memory" in str(name):  # only one process can use such a database
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
    """AMQP_URL is not the one that is meant for tests, with which no job runs."""
    if not _in_memory():
        return []
    sentence = "AMQP_URL is memory://, so nothing is sent to RabbitMQ, and no job runs"
    hint = "memory:// is for tests. Name your RabbitMQ: amqp://user:password@host/vhost."
    return [Error(sentence, hint=hint, id="progrock.E009")]


def _in_memory() -> bool:
    try:
        return conf.in_memory()
    except ImproperlyConfigured:  # `check_settings` reports it
        return False


def _layer() -> Mapping[str, Any]:
    """The layer that PROGROCK_CHANNEL_LAYER names. Raises ImproperlyConfigured if there is none."""
    alias, layers = conf.channel_layer(), getattr(settings, "CHANNEL_LAYERS", {})
    if not isinstance(layers, Mapping) or alias not in layers:
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS has no {alias!r}, which is the value of PROGROCK_CHANNEL_LAYER"
        )
    layer: Any = layers[alias]
    if not isinstance(layer, Mapping) or not isinstance(layer.get("CONFIG", {}), Mapping):
        raise ImproperlyConfigured(
            f"CHANNEL_LAYERS[{alias!r}] is {conf.shown(layer)}: wanted a dictionary with the keys"
            " BACKEND and CONFIG, of which CONFIG is a dictionary too"
        )
    return layer


def _check_layer() -> list[CheckMessage]:
    """The layer is configured, and is ProgRock's own, except in a project's tests."""
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
        f"the channel layer {alias!r} is {layer}: it does not carry the workers' changes, so they"
        " show in browsers only after some seconds"
    )
    more = f"CHANNEL_LAYERS = {{{hint}}}, or name another alias in PROGROCK_CHANNEL_LAYER."
    return [Warning(sentence, hint=more, id="progrock.W002")]
