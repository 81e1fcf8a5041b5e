"""What operators do with many jobs at once: cancel them, have them polled now, run them again.

Tasks and pushes are sent when the transaction commits, over one connection for many jobs.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from django.db import transaction

from progrock import api, clock, conf, creation, dispatch, installation, journal, ledger
from progrock.attempts import attempt
from progrock.errors import Refused
from progrock.ledger import Committed
from progrock.models import Job

#: The tasks and pushes of so many jobs are sent over one connection.
ONE_CONNECTION = 500


class Again(NamedTuple):
    """The ids of the jobs that were started again, and of each other job why it was not."""

    started: list[str]
    refused: list[str]


def cancel(job_ids: Iterable[str]) -> list[str]:
    """Ask for the cancellation of these jobs.

    Returns the ids of those that were active and not being cancelled already.
    """
    asked: list[str] = []
    try:
        asked.extend(
            job_id
            for job_id in job_ids
            if attempt(partial(ledger.request_cancel, job_id, clock.measured())) is not None
        )
    finally:  # also when one of them fails, because the cancels before it are in the ledger
        _at_commit(api.send_after_commit, asked)
    return asked


def look_now(job_ids: Iterable[str]) -> list[str]:
    """Make due now those of these jobs that wait for their next step. Returns their ids.

    A wait that the backend has asked for is kept where the ledger knows it (`ledger.make_due`).
    """
    installation.read()  # messages bear its id
    due = attempt(partial(ledger.make_due, list(job_ids), clock.measured()))
    _at_commit(_send_tasks, due)
    return [each.row.id for each in due]


def again(jobs: Iterable[Job]) -> Again:
    """Start a new job for each of these, with the same audience, backend and params."""
    found, new = Again([], []), []
    try:
        for job in jobs:
            job_id = str(job.pk)
            create = partial(
                creation.create, job.audience, job.backend, job.params, None, original_id=job_id
            )
            try:
                copy, _ = attempt(create)
            except Refused as refused:
                found.refused.append(refused.message)
                continue
            journal.again(job_id, str(copy.pk), job.backend)
            found.started.append(job_id)
            new.append(str(copy.pk))
    finally:
        _at_commit(api.send_after_commit, new)
    return found


def _send_tasks(due: Sequence[Committed]) -> None:
    api.send_now([each.row.id for each in due], dispatch.after(due, conf.backends()))


def _at_commit(send: Callable[[Sequence[Any]], None], items: Sequence[Any]) -> None:
    for i in range(0, len(items), ONE_CONNECTION):
        transaction.on_commit(partial(send, items[i : i + ONE_CONNECTION]))
