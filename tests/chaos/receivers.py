"""A project's own receiver of `job_finished`, in the workers of chaos.

It writes each end into a file that the judge reads, and it hangs while a second file exists.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from django.apps import AppConfig

#: The environment variable that names the file.
FILE = "CHAOS_SIGNALS"


class Receivers(AppConfig):
    """The app; it has no models."""

    name = "tests.chaos"
    label = "chaos"
    path = str(Path(__file__).parent)

    def ready(self) -> None:
        """Connect the receiver."""
        from progrock.signals import job_finished

        job_finished.connect(finished)


def finished(*, job: dict[str, Any], **_: object) -> None:
    """Write down an end; one write without a buffer, so that it outlives a kill."""
    path = Path(os.environ[FILE])
    while hang_of(path).exists():
        time.sleep(0.1)
    line = orjson.dumps({"job": job["job"], "state": job["state"]}) + b"\n"
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(out, line)
    finally:
        os.close(out)


def hang_of(path: Path) -> Path:
    """While this file exists, receivers hang."""
    return path.with_suffix(".hang")


def told(path: Path) -> Iterator[tuple[str, str]]:
    """The id and the state of each job whose end was told, as often as it was."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        found = orjson.loads(line)
        yield found["job"], found["state"]
