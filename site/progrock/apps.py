"""The Django app. Its `ready` registers the system checks and a signal receiver."""

from django.apps import AppConfig


class ProgRockConfig(AppConfig):
    """ProgRock in Django's app registry."""

    name = "progrock"
    verbose_name = "ProgRock"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from progrock import checks, sessions  # noqa: F401  (registers the checks and a receiver)
