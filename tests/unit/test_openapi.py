"""docs/openapi.yaml and the HTTP API agree: schemathesis asks what the file allows, and more."""

import os
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from django.urls import URLPattern
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from progrock import api
from progrock.models import Job
from progrock.urls import urlpatterns
from tests import bearer
from tests.ledgers import make

SCHEMA: Any = schemathesis.openapi.from_path(
    Path(__file__).parents[2] / "docs/openapi.yaml"
).exclude(path="/events")
SCHEMA.app = get_wsgi_application()
OPERATIONS = [each.ok() for each in SCHEMA.get_all_operations()]
#: A request that fits the file may be refused, for one because there is no such backend.
UNTRUE = [each for each in CHECKS.get_all() if each.__name__ == "positive_data_acceptance"]
MINE = "service:build"
#: For each operation; the same ones each time.
EXAMPLES = int(os.environ.get("PROGROCK_TEST_EXAMPLES", "15"))


@pytest.fixture(autouse=True)
def place(sqlite: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program with a token, and RabbitMQ left alone."""
    Job.objects.all().delete()
    settings.ALLOWED_HOSTS, settings.PROGROCK_ANONYMOUS = ["localhost"], False
    settings.PROGROCK_AUDIENCES = "tests.bearer.audiences"
    monkeypatch.setattr(api, "send_soon", lambda row: None)


def jobs() -> list[str]:
    """Jobs in all states, with all that a job can have."""
    many: list[dict[str, Any]] = [
        {"progress": 12.5, "label": "Invoice 7", "request": "one"},
        {"state": "queued", "cancel_requested": True},
        {"state": "failed", "error": "No paper"},
        {"state": "cancelled"},
        {"state": "succeeded", "progress": 100, "result": [1], "result_size": 3},
        {"state": "succeeded", "result": "x" * 20_000, "result_size": 20_002},
        {"audience": "user:0"},
    ]
    return [make(**{"audience": MINE} | changes).id for changes in many]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_each_answer_is_as_the_file_says(operation: Any) -> None:
    known = jobs()
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, job=st.none() | st.sampled_from(known))
    def ask(case: Any, job: str | None) -> None:
        if job is not None and case.meta.generation.mode is GenerationMode.POSITIVE:
            case.path_parameters.update({"job": job} if "job" in case.path_parameters else {})
        case.call_and_validate(headers={"Authorization": bearer.TOKEN}, excluded_checks=UNTRUE)

    ask()


def test_the_file_has_each_address_of_the_api() -> None:
    names = {"jobs", "job", "again", "result", "backends", "events"}
    ours = [each for each in urlpatterns if isinstance(each, URLPattern) and each.name in names]
    found = {"/" + str(each.pattern).replace("<uuid:job_id>", "{job}") for each in ours}
    assert SCHEMA.raw_schema["paths"].keys() == found
