"""A mixin for the TestCase classes of a project."""

import unittest

from progrock.testing.jobs import Jobs
from progrock.testing.memory import without_rabbitmq


class JobsMixin(unittest.TestCase):
    """`class MyTests(JobsMixin, TestCase)`: no RabbitMQ, and `self.progrock_jobs` is a `Jobs`."""

    progrock_jobs = Jobs()

    @classmethod
    def setUpClass(cls) -> None:
        """Change the settings before the class sets up its data."""
        cls.enterClassContext(without_rabbitmq())
        super().setUpClass()
