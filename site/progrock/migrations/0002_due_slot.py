"""Adds `due_slot` and puts it into the sweep's index in place of `due_at`.

Most steps leave it as it is, and so do not touch the index. On PostgreSQL they are HOT updates.
"""

from django.db import migrations, models

HELP = "due_at, coarse, for the sweep's index"


def fill(apps, schema_editor):
    job = apps.get_model("progrock", "Job")
    active = job.objects.using(schema_editor.connection.alias).filter(
        state__in=("queued", "starting", "running")
    )
    active.update(due_slot=0)


def leave_room(apps, schema_editor):
    """Leave room for a row's next version in its page, and have dead versions cleared away early.

    The reason is that the rows of active jobs change all the time.
    """
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(
            "ALTER TABLE progrock_job SET (fillfactor = 70,"
            " autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1)"
        )


class Migration(migrations.Migration):
    dependencies = [("progrock", "0001_initial")]
    operations = [
        migrations.AddField(
            "job", "due_slot", models.IntegerField(null=True, editable=False, help_text=HELP)
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
        # The default is the database's, so that a sweep also finds jobs that a process of the older
        # release inserts meanwhile.
        migrations.AlterField(
            "job",
            "due_slot",
            models.IntegerField(null=True, db_default=0, editable=False, help_text=HELP),
        ),
        migrations.RemoveIndex("job", "progrock_due"),
        migrations.AddIndex(
            "job",
            models.Index(
                fields=["due_slot"], name="progrock_due", condition=models.Q(due_slot__isnull=False)
            ),
        ),
        migrations.RunPython(leave_room, migrations.RunPython.noop),
    ]
