"""`manage.py runworker` with shorter times than the product's, for tests that wait for one of them.

HASTY has the times as JSON, by their dotted names.
"""

import json
import os
import sys
from importlib import import_module

import django

#: A worker with these sweeps each second, and takes over soon what others have left behind.
SWEEPS = {
    "progrock.consumers.sweeper.SWEEP": 1.0,
    "progrock.consumers.sweeper.GRACE": 2.0,
    "progrock.consumers.sweeper.OWED": 3.0,
}


def main() -> None:
    """Set the times and run the command. Raises AttributeError for a time that is not there."""
    sys.argv = ["manage.py", "runworker", *sys.argv[1:]]  # the settings know a worker by it
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    for name, seconds in json.loads(os.environ["HASTY"]).items():
        module, _, constant = name.rpartition(".")
        found = import_module(module)
        getattr(found, constant)
        setattr(found, constant, seconds)
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
