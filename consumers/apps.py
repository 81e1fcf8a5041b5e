"""The app's registration."""

from django.apps import AppConfig


class ConsumersConfig(AppConfig):
    """The consumers in Django's app registry."""

    name = "consumers"
    verbose_name = "ProgRock consumers"
