"""Makes the table of watched audiences, and adds `free_at`, from when on watchers hasten a job."""

from django.db import migrations, models

HELP = "From when on who comes has the job looked at; empty: somebody has come"


class Migration(migrations.Migration):
    dependencies = [("progrock", "0008_cancel_taken")]
    operations = [
        migrations.AddField(
            "job", "free_at", models.DateTimeField(null=True, editable=False, help_text=HELP)
        ),
        migrations.CreateModel(
            "Attention",
            [
                (
                    "audience",
                    models.CharField(max_length=200, primary_key=True, serialize=False),
                ),
                ("until", models.DateTimeField()),
            ],
        ),
    ]
