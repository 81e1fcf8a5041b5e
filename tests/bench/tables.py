"""The backends' files of the bench, and which of its jobs have news."""

#: A backend that costs nothing. `changes` is the part of the jobs that have news at each look.
NOOP = """[noop]
class = "tests.bench.noop.Noop"
browser = true
interval = {interval}
shards = 2
deadline = 100000
changes = {changes}
"""
#: The demo backend over HTTP.
HTTP = """[demo]
url = "{url}"
start = {{ path = "/tasks", headers = {{ Idempotency-Key = "{{job}}" }} }}
browser = true
poll = {{ path = "/tasks/{{handle}}" }}
{many}
{answers}progress = "percent"
interval = {interval}
deadline = 100000
"""
MANY = 'poll_many = { path = "/tasks?ids={handles}", items = "tasks", id = "id", max = 100 }'
#: Params for the demo backend: a job that answers each look alike, and one that never does, because
#: its progress moves by a tenth of a percent in 0.6 s.
STILL, MOVING = '{"seconds": 86400, "steps": 1}', '{"seconds": 600}'


def news_below(part: float) -> str:
    """The jobs whose id is below this text are so large a part of all; it is from 0 to 1."""
    return f"{round(part * 0x10000):04x}" if part < 1 else "g"  # no digit of an id is above f
