"""What people call a job: the `label` of its backend's table, filled in from the job's params."""

from typing import Any

from progrock.backends.base import JobView
from progrock.backends.templates import MISSING, Hole, Scope, Text, Unfillable, as_text

#: The longest label of a job, in characters.
LONGEST_LABEL = 200
#: What stands for a value that is not there.
ABSENT = "…"
#: These join the parts of one character, such as an emoji. They are no characters by themselves.
_JOINERS = "\u200c\u200d"


def label_of(label: Text | None, params: dict[str, Any]) -> str:
    """The label of a job with these params: one line of plain text, `LONGEST_LABEL` at most.

    A value that is missing, null or empty shows as "…". The label is "" where the backend has no
    label, and where all of its values are missing.
    """
    if label is None:
        return ""
    scope = Scope(job=JobView("", "", params))
    values = [_shown(hole, scope.find(hole)) for hole in label.holes]
    if values and not any(values):
        return ""
    left = iter(values)
    text = _one_line(label.filled(scope, lambda hole, value: next(left) or ABSENT))
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1].rstrip()}…"


def _shown(hole: Hole, value: Any) -> str:
    """A value as text, in one line; "" where there is nothing to show."""
    if value is MISSING or value is None or value in ([], {}):
        return ""
    try:
        return _one_line(as_text(hole, value))
    except Unfillable:
        return ""


def _one_line(text: str) -> str:
    """The text without line breaks, and without characters that cannot be seen.

    Some of these change the direction of the text after them, which would garble the page.
    """
    seen = (each if each.isprintable() or each in _JOINERS else " " for each in text)
    return " ".join("".join(seen).split())
