"""The model field of the ledger's times, which Django and `progrock.sql` read alike."""

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.utils.timezone import is_aware, make_aware, make_naive


class TimeField(models.DateTimeField):  # type: ignore[type-arg]
    """A DateTimeField whose text on SQLite is in UTC, whatever `USE_TZ` and `TIME_ZONE` are.

    Django writes times into SQLite in the zone of the connection, or in the local zone. Such a text
    is ambiguous when summer time ends, and it cannot be compared with the time that SQLite's own
    clock gives. Migrations see a plain DateTimeField.
    """

    def deconstruct(self) -> Any:
        """Describe a plain DateTimeField, so that migrations do not name this class."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """A datetime as the database wants it. One without a zone is in the project's zone."""
        value = value if prepared else self.get_prep_value(value)
        if isinstance(value, datetime):
            value = value if is_aware(value) else make_aware(value)
            if connection.vendor == "sqlite":
                return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return super().get_db_prep_value(value, connection, prepared=True)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Read SQLite's text as UTC. Django has read it as a time of another zone."""
        if value is None or connection.vendor != "sqlite":
            return value
        value = value.replace(tzinfo=UTC)
        return value if settings.USE_TZ else make_naive(value)
