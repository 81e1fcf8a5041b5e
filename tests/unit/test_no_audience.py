"""Somebody who is signed in and has no audience is told that, and is not sent to the login."""

import json
from http import HTTPStatus
from typing import Any

import pytest
from channels.testing import HttpCommunicator, WebsocketCommunicator
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, TestCase, override_settings

import progrock
from progrock.consumers.routing import http_application, websocket_application
from progrock.testing import JobsMixin

NOBODYS = {
    "code": "no_audience",
    "message": "You are signed in, but your account may see no jobs here.",
}
STRANGERS = {"code": "login_required", "message": "Sign in to run jobs and to see yours."}


def audiences(scope: Any) -> list[str]:
    """A project's function that lets nobody in."""
    return []


@override_settings(
    PROGROCK_AUDIENCES=f"{__name__}.audiences", PROGROCK_ANONYMOUS=False, ALLOWED_HOSTS=["*"]
)
class NoAudience(JobsMixin, TestCase):
    async def cookies(self) -> list[tuple[bytes, bytes]]:
        """The headers of somebody who is signed in."""
        client = Client()
        await client.aforce_login(await User.objects.acreate(username="ada"))
        cookie = f"sessionid={client.cookies['sessionid'].value}"
        return [(b"cookie", cookie.encode()), (b"host", b"jobs.example")]

    async def told(self, headers: list[tuple[bytes, bytes]]) -> tuple[dict[str, Any], int]:
        """What a socket is told, and the code with which it closes."""
        socket = WebsocketCommunicator(websocket_application, "/prog/", headers)
        assert (await socket.connect())[0]
        frame = json.loads(await socket.receive_from(timeout=30))
        closed = await socket.receive_output(timeout=30)
        await socket.wait()
        return frame, closed["code"]

    async def test_a_socket_says_so_and_closes_with_a_code_of_its_own(self) -> None:
        frame, code = await self.told(await self.cookies())
        assert NOBODYS.items() <= frame.items()
        assert code == 4403
        frame, code = await self.told([])
        assert STRANGERS.items() <= frame.items()
        assert code == 4401

    async def test_http_says_so_with_403(self) -> None:
        application = http_application(None)
        for headers, status, said in (
            (await self.cookies(), HTTPStatus.FORBIDDEN, NOBODYS),
            ([(b"host", b"jobs.example")], HTTPStatus.UNAUTHORIZED, STRANGERS),
        ):
            asked = HttpCommunicator(application, "GET", "/events", headers=headers)
            answer = await asked.get_response(timeout=30)
            problem = json.loads(answer["body"])
            assert answer["status"] == status
            assert (problem["code"], problem["detail"]) == tuple(said.values())

    def test_a_start_on_behalf_of_a_request_says_so(self) -> None:
        request = HttpRequest()
        for user, said in ((User.objects.create_user("bob"), NOBODYS), (None, STRANGERS)):
            if user is not None:
                request.user = user
            else:
                del request.user
            with pytest.raises(progrock.Refused) as refused:
                progrock.start("render", audience=request)
            assert (refused.value.code, refused.value.message) == tuple(said.values())
