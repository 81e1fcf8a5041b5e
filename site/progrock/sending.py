"""Sends to RabbitMQ from threads of its own, so that no other thread waits for the network.

The sockets and the asynchronous views of a web process share one thread for the database. A
RabbitMQ that accepts a connection and then says nothing would hold that thread for seconds.
Everybody would then read that the database is away.
"""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

logger = logging.getLogger(__name__)

THREADS = 4
#: How many calls may wait for a thread. More are dropped, because a sweep or repair sends later.
MOST_WAITING = 1000

_threads = ThreadPoolExecutor(THREADS, "progrock-sending")
_room = threading.BoundedSemaphore(MOST_WAITING)


def hand_over(send: Callable[[], None]) -> Future[None] | None:
    """Call `send` soon, in another thread. Never raises, and logs what `send` raises.

    Returns None where `send` is not called, because too many wait already or the process ends.
    """
    if not _room.acquire(blocking=False):
        logger.error(
            "a message was not sent to RabbitMQ, because %d others wait already:"
            " RabbitMQ is away or too slow",
            MOST_WAITING,
        )
        return None

    def run() -> None:
        try:
            send()
        except Exception:  # the edge of the thread, where nobody else would see it
            logger.exception("a message to RabbitMQ could not be sent")
        finally:
            _room.release()

    try:
        return _threads.submit(run)
    except RuntimeError:  # the interpreter is ending
        _room.release()
        return None
