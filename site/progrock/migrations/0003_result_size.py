"""`result_size`: how large a result is, decided once, so that all frames agree on it."""

from django.db import migrations, models
from django.db.models.functions import Cast, Length

HELP = "Bytes of the result as compact JSON"


def fill(apps, schema_editor):
    """The database's text of a result is a good guess for the jobs that ended before."""
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
