"""The ledger's table: one row per job, in the states of `State`."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from progrock.fields import TimeField
from progrock.milestones import Event, told


class State(models.TextChoices):
    """Where a job stands: queued, starting, running, and then one of four ends."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


ACTIVE = (State.QUEUED.value, State.STARTING.value, State.RUNNING.value)
ENDED = (State.SUCCEEDED.value, State.FAILED.value, State.CANCELLED.value, State.EXPIRED.value)


class Job(models.Model):
    """One long run on a backend. Workers write it only through `progrock.ledger`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    audience = models.CharField(
        max_length=200, help_text="Who may see the job, e.g. user:7 or visitor:…"
    )
    backend = models.CharField(max_length=40)
    bucket = models.PositiveIntegerField(
        editable=False, help_text="0–65535, from the id; modulo the shards: the queue"
    )
    params = models.JSONField(default=dict, blank=True)
    request = models.CharField(
        max_length=100, null=True, blank=True, help_text="The client's own id for its start"
    )
    label = models.CharField(
        max_length=200,
        default="",
        db_default="",
        blank=True,
        help_text="What people call the job, by its backend's template",
    )
    handle = models.CharField(
        max_length=4096, default="", blank=True, help_text="The backend's id for the job"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    progress = models.FloatField(
        null=True, blank=True, help_text="0–100; empty: the backend cannot tell"
    )
    message = models.CharField(max_length=500, default="", blank=True)
    result = models.JSONField(null=True, blank=True)
    result_size = models.PositiveIntegerField(
        null=True, editable=False, help_text="Bytes of the result as compact JSON"
    )
    error = models.TextField(default="", blank=True)
    version = models.PositiveIntegerField(default=1, help_text="+1 at each visible change")
    turn = models.PositiveIntegerField(
        default=1, help_text="+1 at each step; a poll task of another turn is stale"
    )
    due_at = TimeField(help_text="When the next step is due")
    due_slot = models.IntegerField(
        null=True, db_default=0, editable=False, help_text="due_at, coarse, for the sweep's index"
    )
    free_at = TimeField(
        null=True,
        editable=False,
        help_text="From when on who comes has the job looked at; empty: somebody has come",
    )
    cancel_requested = models.BooleanField(default=False)
    cancel_taken = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="The backend has taken the cancel, and the job has not ended there",
    )
    attempts = models.PositiveIntegerField(default=0, help_text="Failed calls in a row")
    crashes = models.PositiveIntegerField(default=0, help_text="Workers that died of it, in a row")
    sweeps = models.PositiveIntegerField(default=0, help_text="Sweeps in vain, in a row")
    missing_at = TimeField(
        null=True,
        editable=False,
        help_text="Since when the backend does not know the job, or refuses to start it",
    )
    deadline_at = TimeField()
    created_at = TimeField(db_default=Now())
    changed_at = TimeField(
        db_default=Now(), help_text="The database's clock at the last visible change"
    )
    ended_at = TimeField(null=True, blank=True)
    milestones = models.TextField(
        default="",
        db_default="",
        blank=True,
        editable=False,
        help_text="What happened to the job, a line each (progrock.milestones)",
    )
    owed_at = TimeField(
        null=True,
        editable=False,
        help_text="Since when the job's end is owed to receivers, or a last cancel to its backend",
    )

    class Meta:
        ordering: ClassVar = ["-created_at"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["audience", "request"], name="progrock_one_job_a_request"
            ),
        ]
        indexes: ClassVar = [
            models.Index(
                fields=["due_slot"], name="progrock_due", condition=models.Q(due_slot__isnull=False)
            ),
            models.Index(fields=["audience", "-created_at"], name="progrock_audience"),
            models.Index(
                fields=["audience", "-ended_at"],
                name="progrock_ended",
                condition=models.Q(ended_at__isnull=False),
            ),
            models.Index(fields=["changed_at"], name="progrock_changed"),
            models.Index(
                fields=["owed_at"], name="progrock_owed", condition=models.Q(owed_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.backend} {str(self.id)[:8]}"

    @property
    def active(self) -> bool:
        """Whether the job has not come to its end."""
        return self.state in ACTIVE

    @property
    def story(self) -> list[Event]:
        """The milestones of the job, in their order."""
        return told(
            self.milestones,
            created=self.created_at,
            ended=self.ended_at,
            state=self.state,
            error=self.error,
        )


class Attention(models.Model):
    """An audience that somebody watches, and until when that is known (`progrock.attention`)."""

    audience = models.CharField(max_length=200, primary_key=True)
    until = TimeField()

    def __str__(self) -> str:
        return self.audience


class Installation(models.Model):
    """One row: the id of this installation (`progrock.installation`)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    key = models.CharField(max_length=40, editable=False)

    def __str__(self) -> str:
        return self.key
