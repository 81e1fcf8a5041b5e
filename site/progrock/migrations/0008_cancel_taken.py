"""Adds `cancel_taken`, for backends that need time to cancel, and makes room for longer handles."""

from django.db import migrations, models

TAKEN = "The backend has taken the cancel, and the job has not ended there"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0007_missing_at")]
    operations = [
        migrations.AddField(
            "job",
            "cancel_taken",
            models.BooleanField(default=False, db_default=False, editable=False, help_text=TAKEN),
        ),
        migrations.AlterField(
            "job",
            "handle",
            models.CharField(
                max_length=4096, default="", blank=True, help_text="The backend's id for the job"
            ),
        ),
    ]
