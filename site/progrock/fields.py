"""The field of the ledger's times: the same moment for Django and for `progrock.sql`."""

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.utils.timezone import is_aware, make_aware, make_naive


class TimeField(models.DateTimeField):  # type: ignore[type-arg]
    """A DateTimeField that is text in UTC on SQLite, whatever `USE_TZ` and `TIME_ZONE` say.

    Django writes SQLite's times in the zone of the connection, or in the local one. Such text is
    ambiguous when summer time ends, and it cannot be compared with that of SQLite's own clock.
    Migrations see a plain DateTimeField.
    """

    def deconstruct(self) -> Any:
        """As a plain DateTimeField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """A datetime as the database takes it. One without a zone is in the project's."""
        value = value if prepared else self.get_prep_value(value)
        if isinstance(value, datetime):
            value = value if is_aware(value) else make_aware(value)
            if connection.vendor == "sqlite":
                return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        return super().get_db_prep_value(value, connection, prepared=True)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Take back the zone that Django has given to SQLite's text."""
        if value is None or connection.vendor != "sqlite":
            return value
        value = value.replace(tzinfo=UTC)
        return value if settings.USE_TZ else make_naive(value)
