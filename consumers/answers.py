"""HTTP in the form of ASGI: reads a request, sends a response of Django's, keeps an answer."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpResponse

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]


async def read_body(receive: Receive) -> None:
    """Read the body of a request, and drop it. Then `receive` gives nothing but the end."""
    while (await receive()).get("more_body"):
        pass


async def until_gone(receive: Receive) -> None:
    """Wait until the browser has left, or the answer is complete."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_response(send: Send, response: HttpResponse) -> None:
    """Send a whole response of Django's."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


@dataclass(kw_only=True)
class Answer:
    """What an ASGI application answered, if it was given `keep` in place of ASGI's `send`."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    async def keep(self, message: Message) -> None:
        """Keep one message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in message["headers"]]
        else:
            self.body += message.get("body", b"")

    def header(self, name: bytes) -> bytes:
        """The value of a header, whose name is given in small letters, or nothing."""
        return next((value for each, value in self.headers if each.lower() == name), b"")

    async def send(self, send: Send) -> None:
        """Send the answer now."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})
