"""Ends streams and waiting requests when the web server stops, because it waits for all answers.

Uvicorn closes sockets by itself, and tells an application of its end only after all else has ended.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Set
from typing import Any, Protocol

#: Seconds between two checks whether the server stops.
EVERY = 0.5


class Response(Protocol):
    """A stream, or the answer to a waiting request."""

    def end(self) -> Coroutine[Any, Any, None]:
        """End it now."""


def stopping() -> bool:
    """Whether uvicorn stops. False under other servers, because those cancel what is under way."""
    # Its handler of the signal is a method of the server.
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


async def end_with_server(
    responses: Set[Response], later: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """Wait until the server stops, and then end these answers, and those that still come.

    `later` runs each end as a background task, because a browser that reads nothing delays it.
    """
    while True:
        await asyncio.sleep(EVERY)
        if responses and stopping():
            for each in list(responses):
                later(each.end())
