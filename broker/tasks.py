"""The poll task and its message: how "look at this job now" is written, and how it is read back."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

import orjson

from progrock.broker.errors import BrokenMessage
from progrock.broker.names import INSTALLATION

VERSION = 1
MAX_TASKS = 200

_is_job_id = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


class Task(NamedTuple):
    """Look at a job (canonical UUID) at `due` (epoch seconds), if its turn is still `turn`.

    `again` says that there may be a second task of this turn, because this one was sent on from a
    message that had been delivered before, or by an operator's command.
    """

    job_id: str
    turn: int
    due: float
    again: bool = False


def shard_of(job_id: str, shards: int) -> int:
    """Which of `shards` poll queues a job belongs to."""
    return bucket_of(job_id) % shards


def bucket_of(job_id: str) -> int:
    """The last four hex digits of a job's id, 0 to 65535, which decide its shard."""
    return int(job_id[-4:], 16)


def encode(tasks: Sequence[Task]) -> bytes:
    """The body of one message. Each `due` is in UTC, to the microsecond."""
    dues = {due: datetime.fromtimestamp(due, UTC) for due in {task.due for task in tasks}}
    entries: list[dict[str, Any]] = [
        {"job": job_id, "turn": turn, "due": dues[due], "again": True}
        if again
        else {"job": job_id, "turn": turn, "due": dues[due]}
        for job_id, turn, due, again in tasks
    ]
    return orjson.dumps({"v": VERSION, "tasks": entries}, option=orjson.OPT_UTC_Z)


def decode(body: bytes) -> list[Task]:
    """The tasks of one body. Raises BrokenMessage with a reason a person can act on."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BrokenMessage(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BrokenMessage(f"not a JSON object: found {type(message).__name__}")
    if message.get("v") != VERSION:
        found = reprlib.repr(message.get("v"))  # short, however deeply it is nested
        raise BrokenMessage(f"unknown version {found}: this worker reads {VERSION}")
    entries = message.get("tasks")
    if not isinstance(entries, list) or not entries:
        raise BrokenMessage("'tasks' is not a list of one task or more")
    dues: dict[Any, float] = {}  # one message's tasks mostly share their due
    tasks = []
    for entry in entries:
        try:
            job_id, turn, text = entry["job"], entry["turn"], entry["due"]
            due = dues.get(text) or dues.setdefault(text, _epoch(text))
            if not _is_job_id(job_id):
                raise ValueError("job is not a UUID")
            if type(turn) is not int or turn < 0:
                raise ValueError("turn is not a whole number")
            again = "again" in entry and entry["again"]
            if again is not True and again is not False:
                raise ValueError("again is neither true nor false")
        except (KeyError, TypeError, ValueError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise BrokenMessage(f"broken task {reprlib.repr(entry)}: {what}") from None
        tasks.append(Task(job_id, turn, due, again))
    return tasks


def _epoch(text: str) -> float:
    due = datetime.fromisoformat(text)
    if due.tzinfo is None:
        raise ValueError("due has no time zone")
    if not 2000 <= due.year < 9000:
        raise ValueError("due is not in the years 2000 to 8999")
    return due.timestamp()


def properties(tasks: Sequence[Task], now: float, installation: str = "") -> dict[str, Any]:
    """The AMQP properties of a message, by the names that aio-pika and pika share.

    `now` is in epoch seconds. The headers are for people who read the message in the management UI,
    except for the id of the installation: by that a worker knows whose message it is.
    """
    first = min(task.due for task in tasks)
    return {
        "content_type": "application/json",
        "type": "progrock.poll",
        "app_id": "progrock",
        "message_id": uuid4().hex,
        "timestamp": int(now),
        "delivery_mode": 2,  # persistent: at-least-once dead-lettering needs it
        "headers": {
            **({INSTALLATION: installation} if installation else {}),
            "tasks": len(tasks),
            "jobs": [task.job_id for task in tasks[:3]],
            "due": datetime.fromtimestamp(first, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
        },
    }


def last_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    """What RabbitMQ says about the latest dead-lettering of a message.

    Empty if there was none, or if the header has another form. A client can forge it before
    RabbitMQ 4.0.
    """
    deaths = headers.get("x-death")
    return deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict) else {}


def dead_headers(queue: str, key: str, headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a message for the dead queue: its queue, its routing key, and whose it is."""
    whose = {INSTALLATION: str(headers[INSTALLATION])} if INSTALLATION in headers else {}
    return {"queue": queue, "key": key, **whose}


def entered_queue(headers: Mapping[str, Any], published: Any, now: float) -> float:
    """When a message entered its poll queue (epoch seconds, to the second).

    That is when it left its lane, by RabbitMQ's clock. Because that clock may be wrong, it is never
    before `published`, the message's `timestamp` by our clock. It is `now` if neither is known.
    """
    times = (last_death(headers).get("time"), published)
    return max((each.timestamp() for each in times if isinstance(each, datetime)), default=now)


def deliveries_before(headers: Mapping[str, Any], redelivered: bool) -> int:
    """How often a message was delivered before: 0 the first time."""
    count = headers.get("x-delivery-count")
    return max(count if isinstance(count, int) else 0, int(redelivered))
