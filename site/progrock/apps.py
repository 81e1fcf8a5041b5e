"""The app's registration: system checks and signal receivers."""

from django.apps import AppConfig


class ProgRockConfig(AppConfig):
    """ProgRock in Django's app registry."""

    name = "progrock"
    verbose_name = "ProgRock"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from progrock import audiences, checks  # noqa: F401  (registers the checks and the receivers)
