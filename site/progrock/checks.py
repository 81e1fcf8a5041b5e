"""System checks: a wrong setting stops the start. They say what was found and what to write."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from progrock import conf
from progrock.backends import ConfigError
from progrock.broker import address
from progrock.broker.errors import BrokerUnavailable
from progrock.gate import wrong_function

LAYER = "progrock.broker.channel_layer.ChannelLayer"


@register()
def check_backends(**kwargs: Any) -> list[CheckMessage]:
    """The backends' file can be read and makes sense."""
    try:
        conf.backends()
    except (ConfigError, ImproperlyConfigured) as error:
        return [
            Error(
                str(error),
                hint="The documentation has a page on backends: docs/backends.md.",
                id="progrock.E001",
            )
        ]
    return []


@register()
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """The other settings make sense."""
    found: list[CheckMessage] = []
    try:
        function = import_string(conf.audiences_path())
    except ImportError as error:
        wrong: str | None = str(error)
    else:
        wrong = wrong_function(function)
    if wrong:
        hint = "Name a function audiences(scope) that returns a list of strings."
        found.append(Error(f"PROGROCK_AUDIENCES: {wrong}", hint=hint, id="progrock.E002"))
    for name in conf.BOUNDS:
        try:
            conf.number(name, conf.setting(name))
        except ValueError as error:
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
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer(), {})
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
        address.tls_of(conf.amqp_url())
    except (BrokerUnavailable, OSError) as error:
        found.append(Error(f"AMQP_URL: {error}", id="progrock.E007"))
    else:
        try:
            address.read_management(conf.management_url())
        except BrokerUnavailable as error:
            found.append(Error(f"PROGROCK_MANAGEMENT_URL: {error}", id="progrock.E007"))
    return found


def _check_layer() -> list[CheckMessage]:
    """The layer is configured, and pushes arrive. Tests of a project may take another one."""
    alias, layers = conf.channel_layer(), getattr(settings, "CHANNEL_LAYERS", {})
    hint = f'"{alias}": {{"BACKEND": "{LAYER}", "CONFIG": {{"host": AMQP_URL}}}}'
    if alias not in layers:
        sentence = f"CHANNEL_LAYERS has no {alias!r}, which PROGROCK_CHANNEL_LAYER names"
        return [Error(sentence, hint=f"CHANNEL_LAYERS = {{{hint}}}", id="progrock.E004")]
    if (layer := layers[alias].get("BACKEND")) == LAYER:
        return []
    sentence = (
        f"the channel layer {alias!r} is {layer}: changes that a worker or another process makes"
        " show after some seconds only, as the repair finds them"
    )
    more = f"CHANNEL_LAYERS = {{{hint}}}, or name another alias in PROGROCK_CHANNEL_LAYER."
    return [Warning(sentence, hint=more, id="progrock.W002")]
