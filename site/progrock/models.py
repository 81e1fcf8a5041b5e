"""The table of jobs, one row for each, and two small tables beside it."""

import uuid
from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from progrock.fields import TimeField
from progrock.milestones import Event, told


class State(models.TextChoices):
    """The states of a job: queued, starting, running, and then one of four ends."""

    QUEUED = "queued", _("queued")
    STARTING = "starting", _("starting")
    RUNNING = "running", _("running")
    SUCCEEDED = "succeeded", _("succeeded")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")
    EXPIRED = "expired", _("expired")


ACTIVE = (State.QUEUED.value, State.STARTING.value, State.RUNNING.value)
ENDED = (State.SUCCEEDED.value, State.FAILED.value, State.CANCELLED.value, State.EXPIRED.value)
#: The states that each value of a filter by state stands for.
STATES_OF = {"active": ACTIVE, "ended": ENDED, **{each: (each,) for each in State.values}}


class Job(models.Model):
    """One long run on a backend. Only `progrock.ledger` changes the row of a job that exists."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    audience = models.CharField(
        _("audience"), max_length=200, help_text=_("Who may see the job, e.g. user:7 or visitor:…")
    )
    backend = models.CharField(_("backend"), max_length=40)
    bucket = models.PositiveIntegerField(
        _("bucket"),
        editable=False,
        help_text=_(
            "0 to 65535, made from the id; its remainder by the backend's shards is the job's queue"
        ),
    )
    params = models.JSONField(_("params"), default=dict, blank=True)
    request = models.CharField(
        _("request"),
        max_length=100,
        null=True,
        blank=True,
        help_text=_("The client's own id for this start; sent twice, it starts only one job"),
    )
    label = models.CharField(
        _("label"),
        max_length=200,
        default="",
        db_default="",
        blank=True,
        help_text=_("What people call the job: the label of its backend, filled in at the start"),
    )
    handle = models.CharField(
        _("handle"),
        max_length=4096,
        default="",
        blank=True,
        help_text=_("The backend's id for the job"),
    )
    state = models.CharField(_("state"), max_length=10, choices=State.choices, default=State.QUEUED)
    progress = models.FloatField(
        _("progress"),
        null=True,
        blank=True,
        help_text=_("0 to 100; empty while the backend does not say"),
    )
    message = models.CharField(_("message"), max_length=500, default="", blank=True)
    result = models.JSONField(_("result"), null=True, blank=True)
    result_size = models.PositiveIntegerField(
        _("size of the result"),
        null=True,
        editable=False,
        help_text=_("Length of the result as compact JSON, in bytes"),
    )
    error = models.TextField(_("error"), default="", blank=True)
    version = models.PositiveIntegerField(
        _("version"), default=1, help_text=_("Goes up by one at each change that browsers see")
    )
    turn = models.PositiveIntegerField(
        _("turn"),
        default=1,
        help_text=_(
            "Goes up by one at each step; a task in RabbitMQ that has another turn is ignored"
        ),
    )
    due_at = TimeField(
        _("due at"),
        help_text=_(
            "When the next step is due at the latest; a running job is polled before that, too"
        ),
    )
    due_slot = models.IntegerField(
        _("due slot"),
        null=True,
        db_default=0,
        editable=False,
        help_text=_(
            "due_at in steps of 5 s, for the index that finds overdue jobs; empty after the end"
        ),
    )
    free_at = TimeField(
        _("free at"),
        null=True,
        editable=False,
        help_text=_(
            "From this time on a new visitor makes the job due at once;"
            " empty: one has come since the last step"
        ),
    )
    cancel_requested = models.BooleanField(_("cancel requested"), default=False)
    cancel_taken = models.BooleanField(
        _("cancel taken"),
        default=False,
        db_default=False,
        editable=False,
        help_text=_(
            "The backend has accepted the cancellation, but the job has not ended there yet"
        ),
    )
    attempts = models.PositiveIntegerField(
        _("attempts"), default=0, help_text=_("Calls to the backend that failed, in a row")
    )
    crashes = models.PositiveIntegerField(
        _("crashes"),
        default=0,
        help_text=_("Workers that died while they handled the job, in a row; the fifth ends it"),
    )
    sweeps = models.PositiveIntegerField(
        _("sweeps"),
        default=0,
        help_text=_("How often in a row the job was overdue and got a new task"),
    )
    missing_at = TimeField(
        _("missing since"),
        null=True,
        editable=False,
        help_text=_("Since when the backend has not known the job, or has refused to start it"),
    )
    deadline_at = TimeField(_("deadline"))
    created_at = TimeField(_("created"), db_default=Now())
    changed_at = TimeField(
        _("changed"),
        db_default=Now(),
        help_text=_("When the job last changed visibly, by the database's clock"),
    )
    ended_at = TimeField(_("ended"), null=True, blank=True)
    milestones = models.TextField(
        _("milestones"),
        default="",
        db_default="",
        blank=True,
        editable=False,
        help_text=_("What happened to the job, one line for each event (progrock.milestones)"),
    )
    owed_at = TimeField(
        _("owed since"),
        null=True,
        editable=False,
        help_text=_(
            "Set while the job_finished signal of the ended job, or a last cancel at its backend,"
            " is still to be sent"
        ),
    )

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
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
    """An audience that somebody watches, and until when that counts (`progrock.attention`)."""

    audience = models.CharField(max_length=200, primary_key=True)
    until = TimeField()

    def __str__(self) -> str:
        return self.audience


class Installation(models.Model):
    """The id of this installation, in the only row (`progrock.installation`)."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    key = models.CharField(max_length=40, editable=False)

    def __str__(self) -> str:
        return self.key
