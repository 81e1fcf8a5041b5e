"""Makes the table of jobs."""

import uuid

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Job",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=uuid.uuid4, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "audience",
                    models.CharField(
                        help_text="Who may see the job, e.g. user:7 or visitor:…", max_length=200
                    ),
                ),
                ("backend", models.CharField(max_length=40)),
                (
                    "bucket",
                    models.PositiveIntegerField(
                        editable=False,
                        help_text="0–65535, from the id; modulo the shards: the queue",
                    ),
                ),
                ("params", models.JSONField(blank=True, default=dict)),
                (
                    "request",
                    models.CharField(
                        blank=True,
                        help_text="The client's own id for its start",
                        max_length=100,
                        null=True,
                    ),
                ),
                (
                    "handle",
                    models.CharField(
                        blank=True,
                        default="",
                        help_text="The backend's id for the job",
                        max_length=500,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("starting", "Starting"),
                            ("running", "Running"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                            ("expired", "Expired"),
                        ],
                        default="queued",
                        max_length=10,
                    ),
                ),
                (
                    "progress",
                    models.FloatField(
                        blank=True, help_text="0–100; empty: the backend cannot tell", null=True
                    ),
                ),
                ("message", models.CharField(blank=True, default="", max_length=500)),
                ("result", models.JSONField(blank=True, null=True)),
                ("error", models.TextField(blank=True, default="")),
                (
                    "version",
                    models.PositiveIntegerField(default=1, help_text="+1 at each visible change"),
                ),
                (
                    "turn",
                    models.PositiveIntegerField(
                        default=1, help_text="+1 at each step; a poll task of another turn is stale"
                    ),
                ),
                ("due_at", models.DateTimeField(help_text="When the next step is due")),
                ("cancel_requested", models.BooleanField(default=False)),
                (
                    "attempts",
                    models.PositiveIntegerField(default=0, help_text="Failed calls in a row"),
                ),
                (
                    "crashes",
                    models.PositiveIntegerField(
                        default=0, help_text="Workers that died of it, in a row"
                    ),
                ),
                (
                    "sweeps",
                    models.PositiveIntegerField(default=0, help_text="Sweeps in vain, in a row"),
                ),
                ("deadline_at", models.DateTimeField()),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "changed_at",
                    models.DateTimeField(
                        db_default=django.db.models.functions.datetime.Now(),
                        help_text="The database's clock at the last visible change",
                    ),
                ),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "ordering": ["-created_at"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("state__in", ("queued", "starting", "running"))),
                        fields=["due_at"],
                        name="progrock_due",
                    ),
                    models.Index(fields=["audience", "-created_at"], name="progrock_audience"),
                    models.Index(fields=["changed_at"], name="progrock_changed"),
                ],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("audience", "request"), name="progrock_one_job_a_request"
                    )
                ],
            },
        ),
    ]
