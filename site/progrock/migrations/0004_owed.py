"""Adds `owed_at`, which is set while something is still to be sent for a job that has ended."""

from django.db import migrations, models

HELP = "Since when the job's end is owed to receivers, or a last cancel to its backend"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0003_result_size")]
    operations = [
        migrations.AddField(
            "job",
            "owed_at",
            models.DateTimeField(null=True, editable=False, help_text=HELP),
        ),
        migrations.AddIndex(
            "job",
            models.Index(
                fields=["owed_at"], name="progrock_owed", condition=models.Q(owed_at__isnull=False)
            ),
        ),
    ]
