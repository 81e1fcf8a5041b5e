"""System checks: a wrong setting stops the start. They say what was found and what to write."""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from progrock import conf
from progrock.backends import ConfigError
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
    if conf.feeds() < 1:
        found.append(
            Error(f"PROGROCK_FEEDS is {conf.feeds()}", hint="Write 1 or more.", id="progrock.E003")
        )
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get("default", {}).get("BACKEND")
    if layer != LAYER:
        hint = (
            f'CHANNEL_LAYERS = {{"default": {{"BACKEND": "{LAYER}", '
            '"CONFIG": {"host": AMQP_URL}}}'
        )
        found.append(Error(f"the default channel layer is {layer}", hint=hint, id="progrock.E004"))
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
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get("default", {})
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
