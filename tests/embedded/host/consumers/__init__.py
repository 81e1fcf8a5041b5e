"""The host's own package of this name: for whom things are printed."""


def addressee(outcome: str) -> str:
    """An outcome, and for whom it is."""
    return f"{outcome} for the readers"
