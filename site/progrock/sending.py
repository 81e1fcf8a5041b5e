"""Sends to RabbitMQ from threads of its own, so that nobody else's thread waits for the network.

The sockets and the asynchronous views of a web process share one thread for the database. A
RabbitMQ that accepts a connection and says nothing would hold that thread for seconds, and
everybody would read that the database is away.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

logger = logging.getLogger(__name__)

THREADS = 4
#: So many may wait for a thread. What is more is not sent: a sweep or a repair does it later.
MOST_WAITING = 1000

_threads = ThreadPoolExecutor(THREADS, "progrock-sending")
_room = threading.BoundedSemaphore(MOST_WAITING)


def hand_over(send: Callable[[], None]) -> Future[None] | None:
    """Call `send` soon, in another thread. Never raises, and logs what `send` raises.

    None where too many wait already.
    """
    if not _room.acquire(blocking=False):
        logger.error("not sent: %d messages to RabbitMQ wait already", MOST_WAITING)
        return None

    def run() -> None:
        try:
            send()
        except Exception:  # nobody else would see it
            logger.exception("a message to RabbitMQ could not be sent")
        finally:
            _room.release()

    try:
        return _threads.submit(run)
    except RuntimeError:  # the interpreter is ending
        _room.release()
        return None
