"""The host's own tests, with `progrock.testing`: RabbitMQ and the press are not there."""

from typing import Any

import pytest
from django.test import TestCase
from people.models import Person

from jobs.models import Job
from progrock.testing import BackendError, Jobs, JobsMixin, Status


class PrintTests(JobsMixin, TestCase):
    """Ann, of the team blue, prints a poster."""

    def setUp(self) -> None:
        self.client.force_login(Person.objects.create_user("ann", team="blue"))

    def test_a_print_is_started_for_the_team_and_its_end_is_remembered(self) -> None:
        with self.progrock_jobs.capture_starts() as started:
            page = self.client.get("/printing/")
        [run] = started
        assert (run.backend, run.audience) == ("press", "team:blue")
        self.assertContains(page, str(run.pk))
        self.progrock_jobs.run(
            run,
            [
                Status(state="running", progress=40),
                BackendError("the press is jammed"),
                Status(state="succeeded", result={"sheets": 1}),
            ],
        )
        assert Job.objects.get().outcome == "succeeded for the readers"


@pytest.mark.django_db
def test_a_print_fails(
    client: Any, progrock_jobs: Jobs, django_capture_on_commit_callbacks: Any
) -> None:
    client.force_login(Person.objects.create_user("ann", team="blue"))
    with (
        progrock_jobs.capture_starts() as started,
        django_capture_on_commit_callbacks(execute=True),
    ):
        client.get("/printing/")
    progrock_jobs.fail(started[0], error="no paper")
    assert Job.objects.get().outcome == "failed for the readers"
