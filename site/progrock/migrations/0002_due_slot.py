"""`due_slot`: what the sweep's index holds, so that a step leaves that index alone.

On PostgreSQL a step is then a HOT update.
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
    """Make room for a row's next version in its page, and clear dead ones away early.

    The rows of live jobs change every second.
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
        # a default of the database, so that what an older process inserts meanwhile is swept, too
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
