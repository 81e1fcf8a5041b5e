"""Changes the help text of `due_at`. Nothing changes in the database."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("progrock", "0012_words"),
    ]

    operations = [
        migrations.AlterField(
            model_name="job",
            name="due_at",
            field=models.DateTimeField(
                help_text="When the next step is due at the latest;"
                " a running job is looked at before that, too",
                verbose_name="due at",
            ),
        ),
    ]
