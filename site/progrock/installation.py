"""The id of this installation: random, in the database, and borne by all that it sends.

By it two installations on one virtual host of RabbitMQ leave each other's messages alone.
"""

from uuid import uuid4

_known = ""


def known() -> str:
    """The id, or "" before this process has read it. Asks nobody."""
    return _known


def read() -> str:
    """The id, which is read from the database once a process."""
    global _known
    if not _known:
        from progrock.models import Installation  # Django loads models later than this module

        # A migration made the row. A database that was emptied since gets a new one.
        found = Installation.objects.first()
        if found is None:
            Installation.objects.bulk_create(
                [Installation(pk=1, key=uuid4().hex)], ignore_conflicts=True
            )
            found = Installation.objects.get(pk=1)
        _known = found.key
    return _known
