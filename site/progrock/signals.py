"""The two signals of a job's life, sent in the worker after the commit (job_finished: at least once)."""

from django.dispatch import Signal

#: A visible change was committed. Arguments: `job`, the update as a dict in the form of the wire's job frame.
job_changed = Signal()
#: A job came to its end. Arguments as for `job_changed`; may be sent again after a crash, so receivers are idempotent.
job_finished = Signal()
