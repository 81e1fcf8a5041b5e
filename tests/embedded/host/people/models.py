"""Users who belong to a team."""

from django.contrib.auth.models import AbstractUser
from django.db import models


class Person(AbstractUser):
    """A user with a team."""

    team = models.CharField(max_length=20, default="")
