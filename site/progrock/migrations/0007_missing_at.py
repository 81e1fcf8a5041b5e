"""Adds `missing_at`, since when a backend has not known a job, and an index of ended jobs."""

from django.db import migrations, models

HELP = "Since when the backend does not know the job, or refuses to start it"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0006_installation")]
    operations = [
        migrations.AddField(
            "job",
            "missing_at",
            models.DateTimeField(null=True, editable=False, help_text=HELP),
        ),
        migrations.AddIndex(
            "job",
            models.Index(
                fields=["audience", "-ended_at"],
                name="progrock_ended",
                condition=models.Q(ended_at__isnull=False),
            ),
        ),
    ]
