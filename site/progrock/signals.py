"""The two signals of a job's life, which a worker sends after the commit."""

from django.dispatch import Signal

#: A change that browsers see was committed. The argument `job` is the frame of the job, a dict
#: (docs/wire.md).
job_changed = Signal()
#: A job has ended. The argument `job` is the same. After a crash of the worker this signal may come
#: once more, so a receiver must be able to take it twice.
job_finished = Signal()
