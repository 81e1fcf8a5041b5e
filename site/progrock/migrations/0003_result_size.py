"""Adds `result_size`, which is measured once, so that all frames agree on which result is large."""

from django.db import migrations, models
from django.db.models.functions import Cast, Length

HELP = "Bytes of the result as compact JSON"


def fill(apps, schema_editor):
    """Give the jobs that have ended the length of the database's text, which is near enough."""
    jobs = apps.get_model("progrock", "Job").objects.using(schema_editor.connection.alias)
    size = Length(Cast("result", models.TextField()))
    jobs.filter(result__isnull=False).update(result_size=size)


class Migration(migrations.Migration):
    dependencies = [("progrock", "0002_due_slot")]
    operations = [
        migrations.AddField(
            "job",
            "result_size",
            models.PositiveIntegerField(null=True, editable=False, help_text=HELP),
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
