"""Reads the random id of this installation, which is in the database and in all messages.

It is how two installations in one virtual host of RabbitMQ leave each other's messages alone.
"""

from uuid import uuid4

_known = ""


def known() -> str:
    """The id, or "" before this process has read it. Asks nobody."""
    return _known


def read() -> str:
    """The id. The first call in each process reads it from the database."""
    global _known
    if not _known:
        from progrock.models import Installation  # Django loads models later than this module

        # A migration has made the row. If the database was emptied since, it gets a new one.
        found = Installation.objects.first()
        if found is None:
            Installation.objects.bulk_create(
                [Installation(pk=1, key=uuid4().hex)], ignore_conflicts=True
            )
            found = Installation.objects.get(pk=1)
        _known = found.key
    return _known
