"""The Django app, which registers the system checks and the receivers of login and logout."""

from django.apps import AppConfig


class ProgRockConfig(AppConfig):
    """ProgRock in Django's app registry."""

    name = "progrock"
    verbose_name = "ProgRock"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from progrock import checks, sessions  # noqa: F401  (they register themselves)
