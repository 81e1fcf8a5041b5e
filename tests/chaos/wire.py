"""Reads along at the gate: the poll tasks that were published, and those that were delivered.

It reads the frames of AMQP 0-9-1 as they pass. So the judge knows of each task without a word from
the processes that it judges.
"""

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import orjson
from pamqp import exceptions, frame
from pamqp.header import ContentHeader

_METHOD, _HEADER, _BODY = 1, 2, 3
_PUBLISH, _DELIVER = (60, 40), (60, 60)
_HEAD = struct.Struct(">BHI")  # a frame's type, channel and size; one byte follows the payload
_BEFORE = "x-delivery-count"


class Noted(NamedTuple):
    """A task in a message that passed; `due` in epoch seconds, `marked` if it says `again`."""

    job: str
    turn: int
    due: float
    marked: bool


@dataclass(frozen=True, slots=True)
class Passed:
    """A message of tasks that passed the gate at a time (epoch seconds).

    `before` is how often RabbitMQ says that it was delivered before; None where one of our
    processes published it.
    """

    at: float
    id: str
    before: int | None
    tasks: tuple[Noted, ...]


@dataclass(slots=True)
class _Content:
    """A message of which not all frames have passed."""

    redelivered: bool | None
    header: ContentHeader | None = None
    body: bytearray = field(default_factory=bytearray)


class Wire:
    """What passed on all connections, oldest first."""

    def __init__(self) -> None:
        self.passed: list[Passed] = []
        self.unread: list[str] = []  # why a connection could not be read any further

    def reader(self) -> Callable[[bytes], None]:
        """A function that takes the bytes of one direction of one connection, as they pass."""
        return _Reader(self).feed


class _Reader:
    def __init__(self, wire: Wire) -> None:
        self._wire, self._rest, self._greeted, self._gone = wire, bytearray(), False, False
        self._open: dict[int, _Content] = {}

    def feed(self, data: bytes) -> None:
        if self._gone:
            return
        self._rest += data
        try:
            while self._next():
                pass
        except (ValueError, LookupError, struct.error, exceptions.UnmarshalingException) as error:
            self._wire.unread.append(f"{type(error).__name__}: {error}")
            self._gone = True

    def _next(self) -> bool:
        """Take one frame; False if it has not passed as a whole."""
        rest = self._rest
        if len(rest) < 8:
            return False
        if not self._greeted:
            self._greeted = True
            if rest.startswith(b"AMQP"):  # a client greets with its version
                del rest[:8]
                return True
        kind, channel, size = _HEAD.unpack_from(rest)
        end = _HEAD.size + size + 1
        if len(rest) < end:
            return False
        whole = bytes(rest[:end])
        del rest[:end]
        self._take(kind, channel, whole)
        return True

    def _take(self, kind: int, channel: int, whole: bytes) -> None:
        payload = memoryview(whole)[_HEAD.size : -1]
        if kind == _METHOD:
            method = struct.unpack_from(">HH", payload)
            if method == _PUBLISH:
                self._open[channel] = _Content(None)
            elif method == _DELIVER:
                # after the consumer's tag with its length, and the number of the delivery
                self._open[channel] = _Content(bool(payload[4 + 1 + payload[4] + 8] & 1))
            return
        if (content := self._open.get(channel)) is None:
            return
        if kind == _HEADER:
            _, _, header = frame.unmarshal(whole)
            if not isinstance(header, ContentHeader):
                raise ValueError(f"a {type(header).__name__} in place of a header")
            content.header = header
            if header.properties.message_type != "progrock.poll":
                del self._open[channel]
        elif kind == _BODY and content.header is not None:
            content.body += payload
            if len(content.body) >= content.header.body_size:
                del self._open[channel]
                self._note(content.redelivered, content.header, content.body)

    def _note(self, redelivered: bool | None, header: ContentHeader, body: bytearray) -> None:
        before = None
        if redelivered is not None:
            count = (header.properties.headers or {}).get(_BEFORE)
            before = max(count if isinstance(count, int) else 0, int(redelivered))
        tasks = tuple(
            Noted(
                each["job"],
                each["turn"],
                datetime.fromisoformat(each["due"]).timestamp(),
                bool(each.get("again")),
            )
            for each in orjson.loads(body)["tasks"]
        )
        key = header.properties.message_id or ""
        self._wire.passed.append(Passed(time.time(), key, before, tasks))
