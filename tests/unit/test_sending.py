"""What asynchronous code, and a logout, send to RabbitMQ holds no thread of the database."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.conf import settings

from progrock import api, dispatch, sending, sessions
from progrock.broker import blocking
from progrock.models import Job
from progrock.sessions import VISITOR, digests
from tests.jobs import row
from tests.logs import own
from tests.services import PATIENCE


class Silent:
    """A RabbitMQ that answers only when `speaks` is set; `threads` are those that waited."""

    def __init__(self) -> None:
        self.speaks = threading.Event()
        self.threads: list[str] = []
        self.sent: list[Any] = []
        self.done = threading.Event()

    def send(self, *what: Any) -> None:
        self.threads.append(threading.current_thread().name)
        assert self.speaks.wait(PATIENCE)
        self.sent.append(what)
        self.done.set()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch, django_db_blocker: Any) -> Iterator[Silent]:
    """RabbitMQ says nothing, and the ledger is not needed.

    The thread of the database may have a connection of an earlier test, and looks at it.
    """
    found = Silent()
    monkeypatch.setattr(dispatch, "send_now", found.send)
    monkeypatch.setattr(blocking, "group_send", found.send)
    monkeypatch.setattr(api.installation, "read", lambda: "x")
    monkeypatch.setattr(api, "create", lambda *args: (Job(id=row().id), True))
    monkeypatch.setattr(api.ledger, "load", lambda ids, **_: {each: row(id=each) for each in ids})
    monkeypatch.setattr(api.clock, "measured", lambda: 0.0)
    monkeypatch.setattr(api.ledger, "request_cancel", lambda *args: row())
    monkeypatch.setattr(api.transaction, "on_commit", lambda function: function())
    with django_db_blocker.unblock():
        yield found
    found.speaks.set()


async def test_the_database_thread_answers_while_starts_and_cancels_wait(silent: Silent) -> None:
    calls = [api.astart("render", audience="user:1") for _ in range(3)]
    waiting = [asyncio.create_task(each) for each in [*calls, api.acancel(row().id)]]
    async with asyncio.timeout(PATIENCE):
        while len(silent.threads) < 4:
            await asyncio.sleep(0.01)
        assert await database_sync_to_async(lambda: "an answer")() == "an answer"
    assert not any(task.done() for task in waiting), "they are over when RabbitMQ has it"
    assert all(name.startswith("progrock-sending") for name in silent.threads)
    silent.speaks.set()
    *jobs, asked = await asyncio.gather(*waiting)
    assert [type(job) for job in jobs] == [Job] * 3
    assert asked is True
    assert len(silent.sent) == 4


async def test_in_a_transaction_it_is_sent_at_the_commit(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_commit: list[Callable[[], None]] = []
    monkeypatch.setattr(api.transaction, "on_commit", at_commit.append)
    await api.astart("render", audience="user:1")
    assert silent.threads == []
    at_commit[0]()  # does not wait
    silent.speaks.set()
    async with asyncio.timeout(PATIENCE):
        while not silent.sent:
            await asyncio.sleep(0.01)


async def test_a_cancelled_caller_cancels_no_sending(silent: Silent) -> None:
    waiting = asyncio.create_task(api.astart("render", audience="user:1"))
    while not silent.threads:
        await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    silent.speaks.set()
    async with asyncio.timeout(PATIENCE):
        while not silent.sent:
            await asyncio.sleep(0.01)


def test_handing_over_never_raises_and_its_line_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = threading.Event()

    def fails() -> None:
        go.wait(PATIENCE)
        raise ValueError("a driver's own")

    def waits() -> None:
        go.wait(PATIENCE)

    calls = [fails, *[waits] * sending.MOST_WAITING]
    handed_over = [each for each in map(sending.hand_over, calls) if each]
    go.set()
    few = 10  # of other tests, which may wait as well
    assert sending.MOST_WAITING - few < len(handed_over) <= sending.MOST_WAITING
    for each in handed_over:
        each.result(PATIENCE)
    full, failed = [each.getMessage() for each in own(caplog)][-2:]
    assert full.startswith(
        f"a message was not sent to RabbitMQ, because {sending.MOST_WAITING} others wait already"
    )
    assert failed == "a message to RabbitMQ could not be sent"
    again = sending.hand_over(lambda: None)
    assert again
    again.result(PATIENCE)


async def test_a_caller_waits_for_rabbitmq_within_bounds(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "LONGEST_WAIT", 0.1)
    async with asyncio.timeout(PATIENCE / 2):
        await api.astart("render", audience="user:1")
    assert silent.sent == []


# Sessions


class Session(dict[str, Any]):
    """A session with a key."""

    def __init__(self, session_key: str | None, **values: Any) -> None:
        super().__init__(values)
        self.session_key = session_key


def told(silent: Silent) -> list[str]:
    """The names in the one message that was sent."""
    silent.speaks.set()
    assert silent.done.wait(PATIENCE)
    [(_, group, event, _)] = silent.sent
    assert (group, event["type"]) == ("progrock.sessions", "session.ended")
    names: list[str] = event["sessions"]
    return names


def test_a_session_keeps_its_first_name_when_its_key_changes() -> None:
    before, after = Session("one", **{VISITOR: "x"}), Session("two", **{VISITOR: "x"})
    assert digests(before)[0] == digests(after)[0]
    assert len({*digests(before), *digests(after)}) == 3
    assert digests(Session(None)) == []
    assert "x" not in digests(before)
    assert "one" not in digests(before)


def test_a_logout_names_the_session_by_both_and_does_not_wait(silent: Silent) -> None:
    session = Session("key", **{VISITOR: "x"})
    sessions.session_ended(None, SimpleNamespace(session=session))
    assert told(silent) == digests(session)


def test_a_login_in_place_of_another_session_names_that_one_by_its_cookie(silent: Silent) -> None:
    request = SimpleNamespace(
        session=Session(None), COOKIES={settings.SESSION_COOKIE_NAME: "the other's"}
    )
    sessions.session_begun(None, request)
    assert VISITOR in request.session
    assert told(silent) == digests(Session("the other's"))


@pytest.mark.parametrize(
    "request_",
    [
        SimpleNamespace(),
        SimpleNamespace(session=Session("new")),
        SimpleNamespace(session=Session("k"), COOKIES={settings.SESSION_COOKIE_NAME: "k"}),
        SimpleNamespace(
            session=Session("new", **{VISITOR: "x"}), COOKIES={settings.SESSION_COOKIE_NAME: "old"}
        ),
    ],
)
def test_a_login_that_ends_no_session_closes_nothing(request_: Any, silent: Silent) -> None:
    sessions.session_begun(None, request_)
    assert silent.threads == []
