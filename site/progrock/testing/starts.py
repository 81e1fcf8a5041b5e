"""Captures the jobs that are started within a block of a test."""

from typing import Any

from channels.db import database_sync_to_async
from django.db.models.signals import post_save

from progrock.models import Job
from progrock.testing.memory import without_rabbitmq


class capture_starts:
    """A context manager that gives a list of the jobs that are started within it, in their order.

    Each is a `Job`, with its backend, params, audience and request. It is in the list at once, even
    before the transaction commits. At the end of the block, jobs whose start was rolled back are
    dropped from the list. In asynchronous code write `async with`. Nothing is sent to RabbitMQ.
    """

    def __init__(self) -> None:
        self._started: list[Job] = []
        self._memory = without_rabbitmq()

    def __enter__(self) -> list[Job]:
        self._memory.enable()
        post_save.connect(self._saved, sender=Job)
        return self._started

    def __exit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self._stop()
        if kind is None:
            self._forget_rolled_back()

    async def __aenter__(self) -> list[Job]:
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *more: object) -> None:
        self._stop()
        if kind is None:
            await database_sync_to_async(self._forget_rolled_back)()

    def _saved(self, instance: Job, created: bool, **more: Any) -> None:
        if created:
            self._started.append(instance)

    def _stop(self) -> None:
        post_save.disconnect(self._saved, sender=Job)
        self._memory.disable()

    def _forget_rolled_back(self) -> None:
        ids = [job.pk for job in self._started]
        there = set(Job.objects.filter(pk__in=ids).values_list("pk", flat=True))
        self._started[:] = [job for job in self._started if job.pk in there]
