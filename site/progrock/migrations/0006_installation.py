"""Makes the table with the random id of this installation."""

from typing import Any
from uuid import uuid4

from django.db import migrations, models


def make_id(apps: Any, schema_editor: Any) -> None:
    """Write the only row."""
    installations = apps.get_model("progrock", "Installation").objects
    installations.using(schema_editor.connection.alias).create(pk=1, key=uuid4().hex)


class Migration(migrations.Migration):
    dependencies = [("progrock", "0004_owed")]
    operations = [
        migrations.CreateModel(
            "Installation",
            [
                (
                    "id",
                    models.PositiveSmallIntegerField(primary_key=True, default=1, serialize=False),
                ),
                ("key", models.CharField(max_length=40, editable=False)),
            ],
        ),
        migrations.RunPython(make_id, migrations.RunPython.noop),
    ]
