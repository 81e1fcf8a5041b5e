"""A model called Job, which is not ProgRock's, and the host's rule of who may see what."""

from typing import Any

from django.db import models

from consumers import addressee


class Job(models.Model):
    """A print job, with the id of the ProgRock job that prints it."""

    title = models.CharField(max_length=50)
    run = models.UUIDField(null=True)
    outcome = models.CharField(max_length=50, default="")


def audiences(scope: Any) -> list[str]:
    """A team sees the jobs of the team."""
    user = scope.get("user")
    return [f"team:{user.team}"] if user is not None and user.is_authenticated else []


def remember(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
    """A receiver of `job_finished`, which may be called twice for a job."""
    Job.objects.filter(run=job["job"]).update(outcome=addressee(job["state"]))
