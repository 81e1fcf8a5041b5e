"""The app's registration."""

from django.apps import AppConfig


class JobsConfig(AppConfig):
    """Listens to ProgRock."""

    name = "jobs"

    def ready(self) -> None:
        from jobs import models
        from progrock import job_finished

        job_finished.connect(models.remember)
