"""A model called Job, which has nothing to do with ProgRock's, and the host's answer to who may see what."""

from typing import Any

from django.db import models


class Job(models.Model):
    """A print job of the host's own; knows the run that prints it."""

    title = models.CharField(max_length=50)
    run = models.UUIDField(null=True)
    outcome = models.CharField(max_length=20, default="")


def audiences(scope: Any) -> list[str]:
    """A team sees the jobs of the team."""
    user = scope.get("user")
    return [f"team:{user.team}"] if user is not None and user.is_authenticated else []


def remember(sender: Any, job: dict[str, Any], **kwargs: Any) -> None:
    """A receiver of job_finished, which may come twice."""
    Job.objects.filter(run=job["job"]).update(outcome=job["state"])
