"""Makes the names and help texts of fields translatable. Nothing changes in the database."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("progrock", "0011_milestones"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="job",
            options={
                "ordering": ["-created_at"],
                "verbose_name": "job",
                "verbose_name_plural": "jobs",
            },
        ),
        migrations.AlterField(
            model_name="job",
            name="attempts",
            field=models.PositiveIntegerField(
                default=0, help_text="Failed calls in a row", verbose_name="attempts"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="audience",
            field=models.CharField(
                help_text="Who may see the job, e.g. user:7 or visitor:…",
                max_length=200,
                verbose_name="audience",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="backend",
            field=models.CharField(max_length=40, verbose_name="backend"),
        ),
        migrations.AlterField(
            model_name="job",
            name="bucket",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="0–65535, from the id; modulo the shards: the queue",
                verbose_name="bucket",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="cancel_requested",
            field=models.BooleanField(default=False, verbose_name="cancel requested"),
        ),
        migrations.AlterField(
            model_name="job",
            name="cancel_taken",
            field=models.BooleanField(
                db_default=False,
                default=False,
                editable=False,
                help_text="The backend has taken the cancel, and the job has not ended there",
                verbose_name="cancel taken",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="changed_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="The database's clock at the last visible change",
                verbose_name="changed",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="crashes",
            field=models.PositiveIntegerField(
                default=0, help_text="Workers that died of it, in a row", verbose_name="crashes"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="created_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(), verbose_name="created"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="deadline_at",
            field=models.DateTimeField(verbose_name="deadline"),
        ),
        migrations.AlterField(
            model_name="job",
            name="due_at",
            field=models.DateTimeField(
                help_text="When the next step is due", verbose_name="due at"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="due_slot",
            field=models.IntegerField(
                db_default=0,
                editable=False,
                help_text="due_at, coarse, for the sweep's index",
                null=True,
                verbose_name="due slot",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="ended_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="ended"),
        ),
        migrations.AlterField(
            model_name="job",
            name="error",
            field=models.TextField(blank=True, default="", verbose_name="error"),
        ),
        migrations.AlterField(
            model_name="job",
            name="free_at",
            field=models.DateTimeField(
                editable=False,
                help_text="From when on who comes has the job looked at; empty: somebody has come",
                null=True,
                verbose_name="free at",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="handle",
            field=models.CharField(
                blank=True,
                default="",
                help_text="The backend's id for the job",
                max_length=4096,
                verbose_name="handle",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="label",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What people call the job, by its backend's template",
                max_length=200,
                verbose_name="label",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="message",
            field=models.CharField(blank=True, default="", max_length=500, verbose_name="message"),
        ),
        migrations.AlterField(
            model_name="job",
            name="milestones",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="What happened to the job, a line each (progrock.milestones)",
                verbose_name="milestones",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="missing_at",
            field=models.DateTimeField(
                editable=False,
                help_text="Since when the backend does not know the job, or refuses to start it",
                null=True,
                verbose_name="missing since",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="owed_at",
            field=models.DateTimeField(
                editable=False,
                help_text=(
                    "Since when the job's end is owed to receivers, or a last cancel to its backend"
                ),
                null=True,
                verbose_name="owed since",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="params",
            field=models.JSONField(blank=True, default=dict, verbose_name="params"),
        ),
        migrations.AlterField(
            model_name="job",
            name="progress",
            field=models.FloatField(
                blank=True,
                help_text="0–100; empty: the backend cannot tell",
                null=True,
                verbose_name="progress",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="request",
            field=models.CharField(
                blank=True,
                help_text="The client's own id for its start",
                max_length=100,
                null=True,
                verbose_name="request",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="result",
            field=models.JSONField(blank=True, null=True, verbose_name="result"),
        ),
        migrations.AlterField(
            model_name="job",
            name="result_size",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="Bytes of the result as compact JSON",
                null=True,
                verbose_name="size of the result",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="state",
            field=models.CharField(
                choices=[
                    ("queued", "queued"),
                    ("starting", "starting"),
                    ("running", "running"),
                    ("succeeded", "succeeded"),
                    ("failed", "failed"),
                    ("cancelled", "cancelled"),
                    ("expired", "expired"),
                ],
                default="queued",
                max_length=10,
                verbose_name="state",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="sweeps",
            field=models.PositiveIntegerField(
                default=0, help_text="Sweeps in vain, in a row", verbose_name="sweeps"
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="turn",
            field=models.PositiveIntegerField(
                default=1,
                help_text="+1 at each step; a poll task of another turn is stale",
                verbose_name="turn",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="version",
            field=models.PositiveIntegerField(
                default=1, help_text="+1 at each visible change", verbose_name="version"
            ),
        ),
    ]
