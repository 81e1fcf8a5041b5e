"""Adds `label`, what people call a job. It is filled in once, when the job is created."""

from django.db import migrations, models

HELP = "What people call the job, by its backend's template"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0009_attention")]
    operations = [
        migrations.AddField(
            "job",
            "label",
            models.CharField(max_length=200, default="", db_default="", blank=True, help_text=HELP),
        ),
    ]
