"""Adds `milestones`, what happened to a job. Older jobs have only their creation and their end."""

from django.db import migrations, models

HELP = "What happened to the job, a line each (progrock.milestones)"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0010_label")]
    operations = [
        migrations.AddField(
            "job",
            "milestones",
            models.TextField(default="", db_default="", blank=True, editable=False, help_text=HELP),
        ),
    ]
