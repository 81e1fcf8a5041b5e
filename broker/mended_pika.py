"""Mends pika: gives a blocking connection a time limit, which reaches into its private timers.

pika (1.4) waits for an answer without an end while heartbeats come. Its public `call_later` does
not help, because its callbacks run only after the answer. This file may go when pika has a limit of
its own. `tests/unit/test_blocking.py` fails when a release moves a name that is used here.
"""

import logging
from functools import cache

from pika import BlockingConnection
from pika.exceptions import AMQPHeartbeatTimeout

logger = logging.getLogger(__name__)


def limit(connection: BlockingConnection, seconds: float) -> None:
    """End a connection after `seconds`; whoever waits for an answer then gets an AMQPError.

    If pika has changed, the connection has no limit, which is better than to publish nothing.
    """
    try:
        line = connection._impl
        end = line._terminate_stream
        line._adapter_call_later(seconds, lambda: end(AMQPHeartbeatTimeout("no answer in time")))
    except (AttributeError, TypeError) as error:
        _warn(str(error))


@cache
def _warn(reason: str) -> None:
    """Log a reason once, and not for each connection."""
    logger.warning("publishing has no time limit, because pika has changed: %s", reason)
