"""Finds everybody's jobs for staff, in pages: the job that changed last comes first.

The work for a page has a bound, however many jobs there are. A filter reads the next `WINDOW` jobs
of the list and no more. The page after it reads on from there.
"""

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Self

from django.db.models import Q
from django.utils.timezone import is_naive, make_aware

from progrock.models import STATES_OF, Job
from progrock.owners import audiences_like

#: How many jobs a page shows.
A_PAGE = 50
#: How many jobs are read to find those of a page with a filter.
WINDOW = 10_000


class Place(NamedTuple):
    """A place in the list: when the job there changed last, and its id."""

    changed: datetime
    job_id: uuid.UUID

    @classmethod
    def of(cls, job: Job) -> Self:
        """The place of this job."""
        changed = job.changed_at
        return cls(make_aware(changed) if is_naive(changed) else changed, job.pk)

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The place that was written as this text by `str`; None for any other text."""
        time, _, id_text = text.rpartition("_")
        try:
            changed, job_id = datetime.fromisoformat(time), uuid.UUID(id_text)
        except ValueError:
            return None
        return None if is_naive(changed) else cls(changed, job_id)

    def __str__(self) -> str:
        text = self.changed.astimezone(UTC).isoformat(timespec="microseconds")
        return f"{text.removesuffix('+00:00')}Z_{self.job_id}"


class Page(NamedTuple):
    """The jobs of a page, perhaps none. The next page is behind `after`; None: this is the last."""

    jobs: list[Job]
    after: Place | None


def page(wanted: Mapping[str, str], before: Place | None) -> Page:
    """The page that follows the place `before`, or the first page. Results are left out.

    `wanted` is the filter. Its keys, all optional, are `state` (a state, "active" or "ended"),
    `backend`, `owner` (a part of a login name, or the beginning of an audience) and `q` (a part of
    the label, the message, the error or the id).
    """
    jobs = Job.objects.defer("result", "params").order_by("-changed_at", "-pk")
    if before is not None:
        jobs = jobs.filter(_beyond(before))
    floor: Place | None = None
    if condition := _condition(wanted):
        window = list(jobs.only("changed_at")[WINDOW - 1 : WINDOW])
        jobs = jobs.filter(condition)
        if window:
            floor = Place.of(window[0])
            jobs = jobs.filter(changed_at__gte=floor.changed).exclude(_beyond(floor))
    found = list(jobs[: A_PAGE + 1])
    more = len(found) > A_PAGE
    return Page(found[:A_PAGE], Place.of(found[A_PAGE - 1]) if more else floor)


def _beyond(place: Place) -> Q:
    """The condition that a job comes after this place in the list."""
    older = Q(changed_at__lt=place.changed)
    return Q(changed_at__lte=place.changed) & (older | Q(pk__lt=place.job_id))


def _condition(wanted: Mapping[str, str]) -> Q:
    """The condition of the filter; empty where it lets all jobs through."""
    condition = Q()
    if states := STATES_OF.get(wanted.get("state", "")):
        condition &= Q(state__in=states)
    if backend := wanted.get("backend", ""):
        condition &= Q(backend=backend)
    if owner := wanted.get("owner", "").strip():
        condition &= Q(audience__istartswith=owner) | Q(audience__in=audiences_like(owner))
    if text := wanted.get("q", "").strip():
        fields = ("label", "message", "error", "pk")
        some = Q()
        for field in fields:
            some |= Q(**{f"{field}__icontains": text})
        condition &= some
    return condition
