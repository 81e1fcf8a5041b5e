"""Users in browsers: an HTTP session that signs in, posts forms and shows its cookies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from tests.services import PATIENCE, Stack
from tests.visitor import Visitor

#: Code for `Stack.shell` that makes users; the password of each is the name.
PEOPLE = """
from django.contrib.auth.models import Permission, User
for name in ("alice", "bob"):
    User.objects.create_user(name, password=name)
staff = User.objects.create_user("clerk", password="clerk", is_staff=True)
User.objects.create_user("reader", password="reader", is_staff=True).user_permissions.add(
    Permission.objects.get(codename="view_job"))
User.objects.create_user("operator", password="operator", is_staff=True).user_permissions.add(
    *Permission.objects.filter(codename__in=["view_job", "change_job"]))
"""


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser with no cookies."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@asynccontextmanager
async def person(up: Stack, name: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser in which a user has signed in, whose password is the name."""
    async with client() as session:
        await sign_in(up, session, name)
        yield session


async def post(
    up: Stack, session: aiohttp.ClientSession, path: str, **fields: str
) -> aiohttp.ClientResponse:
    """Post a form, with the token of the cookie."""
    token = next(cookie.value for cookie in session.cookie_jar if cookie.key == "csrftoken")
    data = {"csrfmiddlewaretoken": token, **fields}
    return await session.post(
        up.url + path, data=data, headers={"Origin": up.url}, allow_redirects=False
    )


async def sign_in(up: Stack, session: aiohttp.ClientSession, name: str) -> None:
    """Sign a user in, whose password is the name."""
    await get(up, session, "/login/")
    async with await post(up, session, "/login/", username=name, password=name) as answer:
        assert answer.status == 302, await answer.text()


async def get(
    up: Stack, session: aiohttp.ClientSession, path: str, **headers: str
) -> tuple[int, str]:
    """Status and text of a page."""
    async with session.get(up.url + path, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text()


def cookie(session: aiohttp.ClientSession, name: str = "sessionid") -> str | None:
    """The value of a cookie, or None."""
    return next((cookie.value for cookie in session.cookie_jar if cookie.key == name), None)


async def closed(visitor: Visitor) -> int | None:
    """Wait until the server closes a socket; returns the code."""
    async with asyncio.timeout(PATIENCE):
        while (await visitor.socket.receive()).type == aiohttp.WSMsgType.TEXT:
            pass
    return visitor.socket.close_code
