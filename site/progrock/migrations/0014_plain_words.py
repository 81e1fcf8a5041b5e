"""Changes the help texts of fields. Nothing changes in the database."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("progrock", "0013_due_words"),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="attempts",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Calls to the backend that failed, in a row",
                verbose_name="attempts",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="bucket",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="0 to 65535, made from the id;"
                " its remainder by the backend's shards is the job's queue",
                verbose_name="bucket",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="cancel_taken",
            field=models.BooleanField(
                db_default=False,
                default=False,
                editable=False,
                help_text="The backend has accepted the cancellation,"
                " but the job has not ended there yet",
                verbose_name="cancel taken",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="changed_at",
            field=models.DateTimeField(
                db_default=django.db.models.functions.datetime.Now(),
                help_text="When the job last changed visibly, by the database's clock",
                verbose_name="changed",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="crashes",
            field=models.PositiveIntegerField(
                default=0,
                help_text="Workers that died while they handled the job, in a row;"
                " the fifth ends it",
                verbose_name="crashes",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="due_at",
            field=models.DateTimeField(
                help_text="When the next step is due at the latest;"
                " a running job is polled before that, too",
                verbose_name="due at",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="due_slot",
            field=models.IntegerField(
                db_default=0,
                editable=False,
                help_text="due_at in steps of 5 s, for the index that finds overdue jobs;"
                " empty after the end",
                null=True,
                verbose_name="due slot",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="free_at",
            field=models.DateTimeField(
                editable=False,
                help_text="From this time on a new visitor makes the job due at once;"
                " empty: one has come since the last step",
                null=True,
                verbose_name="free at",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="label",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="What people call the job: the label of its backend,"
                " filled in at the start",
                max_length=200,
                verbose_name="label",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="milestones",
            field=models.TextField(
                blank=True,
                db_default="",
                default="",
                editable=False,
                help_text="What happened to the job, one line for each event (progrock.milestones)",
                verbose_name="milestones",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="missing_at",
            field=models.DateTimeField(
                editable=False,
                help_text="Since when the backend has not known the job,"
                " or has refused to start it",
                null=True,
                verbose_name="missing since",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="owed_at",
            field=models.DateTimeField(
                editable=False,
                help_text="Set while the job_finished signal of the ended job,"
                " or a last cancel at its backend, is still to be sent",
                null=True,
                verbose_name="owed since",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="progress",
            field=models.FloatField(
                blank=True,
                help_text="0 to 100; empty while the backend does not say",
                null=True,
                verbose_name="progress",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="request",
            field=models.CharField(
                blank=True,
                help_text="The client's own id for this start; sent twice, it starts only one job",
                max_length=100,
                null=True,
                verbose_name="request",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="result_size",
            field=models.PositiveIntegerField(
                editable=False,
                help_text="Length of the result as compact JSON, in bytes",
                null=True,
                verbose_name="size of the result",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="sweeps",
            field=models.PositiveIntegerField(
                default=0,
                help_text="How often in a row the job was overdue and got a new task",
                verbose_name="sweeps",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="turn",
            field=models.PositiveIntegerField(
                default=1,
                help_text="Goes up by one at each step;"
                " a task in RabbitMQ that has another turn is ignored",
                verbose_name="turn",
            ),
        ),
        migrations.AlterField(
            model_name="job",
            name="version",
            field=models.PositiveIntegerField(
                default=1,
                help_text="Goes up by one at each change that browsers see",
                verbose_name="version",
            ),
        ),
    ]
