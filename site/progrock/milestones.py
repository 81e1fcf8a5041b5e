"""The milestones of a job: what happened to it, and when.

A job's creation and end have columns of their own. All other milestones are lines in one text
column, to which the ledger appends. Each kind is there at most once, except `again`. Progress is no
milestone.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from django.utils.timezone import is_naive, make_aware
from django.utils.translation import gettext_lazy as _

#: How much of a text is kept in a line, in characters.
LONGEST = 200
#: How many lines a job has at most for the jobs that were started again from it.
MOST_AGAIN = 6


class Milestone(StrEnum):
    """What can happen to a job, in the order of its life."""

    QUEUED = "queued"
    STARTED = "started"
    REFUSED = "refused"
    CANCEL_ASKED = "cancel_asked"
    CANCEL_TAKEN = "cancel_taken"
    ENDED = "ended"  # an Event has the job's state in its place, such as "failed"
    AGAIN = "again"


#: Each milestone in words for people.
WORDS = {
    "queued": _("Queued"),
    "started": _("Started at the backend"),
    "refused": _("A call failed for the first time"),
    "cancel_asked": _("Cancellation asked for"),
    "cancel_taken": _("The backend has accepted the cancellation"),
    "succeeded": _("Succeeded"),
    "failed": _("Failed"),
    "cancelled": _("Cancelled"),
    "expired": _("Expired"),
    "again": _("Started again"),
}


class Event(NamedTuple):
    """A milestone: when it happened (in UTC), a key of WORDS, and a text, which may be empty.

    The text is the reason of a failure, or the id of the new job where this one was run again.
    """

    at: datetime
    what: str
    text: str


def mark(milestone: Milestone) -> str:
    """How the line of a milestone begins. No text has a line break, so only its line begins so."""
    return f"\n{milestone} "


def one_line(text: str, longest: int = LONGEST) -> str:
    """A text on one line, cut to `longest` characters."""
    return " ".join(text.split())[:longest]


def told(
    kept: str, *, created: datetime, ended: datetime | None, state: str, error: str
) -> list[Event]:
    """All milestones of a job, in their order.

    `kept` is the text column. `created` and `ended` are taken to be in the project's time zone if
    they have none.
    """
    events = [Event(_utc(created), Milestone.QUEUED, "")]
    after: list[Event] = []
    for line in kept.splitlines():
        if line:
            what, date, time, text = line.split(" ", 3)
            event = Event(datetime.fromisoformat(f"{date} {time}+00:00"), what, text)
            (after if what == Milestone.AGAIN else events).append(event)
    if ended is not None:
        events.append(Event(_utc(ended), state, error))
    return events + after


def _utc(time: datetime) -> datetime:
    return (make_aware(time) if is_naive(time) else time).astimezone(UTC)
