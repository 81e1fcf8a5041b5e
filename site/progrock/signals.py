"""The two signals of a job's life, which a worker sends after the commit."""

from django.dispatch import Signal

#: A visible change was committed. The argument `job` is the wire's frame of the job, a dict.
job_changed = Signal()
#: A job came to its end; `job` as above. After a crash it may be sent again, so a receiver must be
#: able to take it twice.
job_finished = Signal()
