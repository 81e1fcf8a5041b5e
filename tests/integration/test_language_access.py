"""How backends.toml gets access: tokens, TLS and proxies on the wire, and secrets that stay so."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from progrock.backends import BackendError, ConfigError, Status
from progrock.backends.http import HttpBackend, Outgoing
from tests import certificates, language
from tests.answering import Asked, Service, backend, look, looked, response, service
from tests.language import SECRET, job, options
from tests.logs import own

# Tokens


class Login(Service):
    """Gives the tokens t1, t2, …"""

    def __init__(self, made: Service, **more: Any) -> None:
        self.made, self.count = made, 0
        self.more = {"expires_in": 3600} | more
        made.says["/token"] = self.say

    def say(self, asked: Asked) -> Any:
        self.count += 1
        return {"access_token": f"t{self.count}"} | self.more


def auth(login: Service) -> str:
    return (
        f'{{ token_url = "{login.url}/token", client_id = "${{ID}}", client_secret = "${{S}}",'
        ' scope = "a b" }'
    )


ENVIRON = {"ID": "me & you", "S": SECRET}


async def test_a_token_is_asked_for_by_client_credentials_and_kept(render: Service) -> None:
    async with service() as login:
        Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await made.start(job(""))
            await asyncio.gather(*(look(made, f"h{n}") for n in range(20)))
        [asked] = login.asked
    assert asked.line == "POST /token"
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.body.decode() == (
        f"grant_type=client_credentials&client_id=me+%26+you&client_secret={SECRET}&scope=a+b"
    )
    assert "Authorization" not in asked.headers
    assert {each.headers["Authorization"] for each in render.asked} == {"Bearer t1"}


@pytest.mark.parametrize("life", [61, 60, 0, -5, "61"])
async def test_a_token_is_renewed_a_minute_before_it_expires(render: Service, life: Any) -> None:
    async with service() as login:
        Login(login, expires_in=life)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            await asyncio.sleep(1.1)
            await look(made)
    assert [each.headers["Authorization"] for each in render.asked] == ["Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("life", [None, "soon", True, [], 1e999])
async def test_a_token_without_a_life_is_kept_for_a_while(render: Service, life: Any) -> None:
    async with service() as login:
        made_login = Login(login)
        made_login.more = {} if life is None else {"expires_in": life}
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            await look(made)
    assert made_login.count == 1


async def test_after_a_401_one_other_token_is_asked_for(render: Service) -> None:
    good = {"t2"}

    def say(asked: Asked) -> web.Response:
        token = asked.headers["Authorization"].removeprefix("Bearer ")
        return response(200 if token in good else 401, {"id": "h1", "status": "running"})

    render.says["/v1/tasks"] = say
    async with service() as login:
        given = Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            assert await made.start(job("")) == "h1"
            assert (given.count, len(render.asked)) == (2, 2)
            await look(made)
            assert (given.count, len(render.asked)) == (2, 3)
            good.clear()
            error = await looked(made)
            assert (given.count, len(render.asked)) == (3, 5)
    assert isinstance(error, BackendError)
    assert error.status == 401


async def test_many_401_at_once_ask_for_one_other_token(render: Service) -> None:
    good: set[str] = {"t1"}

    def say(asked: Asked) -> web.Response:
        token = asked.headers["Authorization"].removeprefix("Bearer ")
        return response(200 if token in good else 401, {"status": "running"})

    render.says["/v1/tasks"] = say
    async with service() as login:
        given = Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            await look(made)
            good |= {"t2"}
            good.remove("t1")
            found = await made.poll([job(f"h{n}", id=f"j{n}") for n in range(20)])
    assert all(isinstance(each, Status) for each in found.values())
    assert given.count == 2


async def test_a_class_that_writes_its_own_authorization_gets_along_with_tokens(
    render: Service,
) -> None:
    class Own(HttpBackend):
        async def headers(self, request: Outgoing) -> Mapping[str, str]:
            return {"authorization": "Own x"}

    render.says["/v1/tasks"] = lambda _: response(401, {"detail": "no"})
    async with service() as login:
        Login(login)
        async with backend(render, ENVIRON, auth=auth(login)) as plain:
            made = Own(plain.options)
            error = await looked(made)
            await made.aclose()
    assert getattr(error, "status", None) == 401


@pytest.mark.parametrize(
    "said",
    [
        {"access_token": ""},
        {"access_token": None},
        {"access_token": 7},
        {"access_token": "a\r\nX: y"},
        {"access_token": "a b"},
        {"access_token": "é"},
        {},
        [],
        None,
        response(401, {"error": "invalid_client", "error_description": SECRET}),
        response(302, b"", Location="http://127.0.0.1:1/"),
        response(200, b"<html>"),
        response(200, b"[" * 100_000),
        response(200, b"\xff\xff"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_no_secret_is_shown(
    render: Service, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with service() as login:
        login.says["/token"] = lambda _: said
        async with backend(render, ENVIRON, auth=auth(login)) as made:
            with pytest.raises(BackendError, match=r"^the server of the access token") as raised:
                await made.start(job(""))
            assert isinstance(await looked(made), BackendError)
    assert (raised.value.sent, raised.value.final) == (False, False)
    assert SECRET not in raised.value.sentence
    assert not any(SECRET in each.getMessage() for each in own(caplog))
    assert render.asked == []


@pytest.mark.parametrize("url", ["login.internal/token", "ftp://x", "", "https://x y"])
def test_a_wrong_token_url_or_proxy_is_told(url: str) -> None:
    for lines in (
        {"auth": f'{{ token_url = "{url}", client_id = "a", client_secret = "b" }}'},
        {"proxy": f'"{url}"'},
    ):
        with pytest.raises(ConfigError, match=r"\[render\] (auth token_url|proxy)"):
            options(**lines)
    lines = {"auth": '{ token_url = "${U}", client_id = "a", client_secret = "b" }'}
    for more in (lines, {"proxy": '"${U}"'}):
        with pytest.raises(ConfigError, match=r"auth token_url|proxy") as raised:
            language.built({"U": f"{SECRET} {url}"}, **more)
        assert SECRET not in str(raised.value)


# TLS and proxies


@pytest.fixture
def made(tmp_path: Path) -> certificates.Certificates:
    return certificates.make(tmp_path / "tls")


def tls(made: certificates.Certificates, *, client: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(made.certificate, made.key)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(made.authority)
    return context


async def test_an_authority_of_ones_own_is_trusted_where_tls_names_it(
    made: certificates.Certificates,
) -> None:
    async with service(tls(made)) as render:
        render.says["/v1/tasks"] = {"id": "h1", "status": "done"}
        async with backend(render, tls=f'{{ ca = "{made.authority}" }}') as trusting:
            assert await trusting.start(job("")) == "h1"
            assert (await look(trusting)).state == "succeeded"
        async with backend(render) as doubting:
            error = await looked(doubting)
    assert str(error) == "no trusted TLS connection to the backend"


async def test_a_client_certificate_is_shown_where_tls_names_it(
    made: certificates.Certificates,
) -> None:
    async with service(tls(made, client=True)) as render:
        render.says["/v1/tasks"] = {"status": "done"}
        files = f'ca = "{made.authority}", cert = "{made.certificate}", key = "{made.key}"'
        async with backend(render, tls=f"{{ {files} }}") as known:
            assert (await look(known)).state == "succeeded"
        async with backend(render, tls=f'{{ ca = "{made.authority}" }}') as unknown:
            assert isinstance(await looked(unknown), BackendError)


def test_wrong_files_of_tls_stop_the_start(made: certificates.Certificates, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    for files in (
        f'ca = "{none}"',
        f'ca = "{made.key}"',
        f'cert = "{made.certificate}"',
        f'cert = "{made.certificate}", key = "{none}"',
        f'cert = "{made.authority}", key = "{made.key}"',
    ):
        with pytest.raises(ConfigError, match=r"\[render\] tls"):
            language.built(tls=f"{{ {files} }}")
    for wrong in (f'{{ key = "{made.key}" }}', '{ ca = "" }', '{ caa = "x" }', '"x"'):
        with pytest.raises(ConfigError, match=r"\[render\] tls"):
            options(tls=wrong)


def test_a_key_with_a_password_stops_the_start_and_does_not_ask_at_the_terminal(
    made: certificates.Certificates, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match=r"\[render\] tls"):
        language.built(tls=f'{{ cert = "{made.certificate}", key = "{locked}" }}')


async def test_a_proxy_is_used_only_where_the_table_says_so(
    render: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{held.getsockname()[1]}"
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, nobody)
        async with backend(render) as made:
            assert (await look(made)).state == "running"
    async with service() as proxy, service() as login:
        proxy.says["http://render.invalid"] = {"status": "done"}
        proxy.says[login.url] = {"access_token": "t"}
        through = f'"{proxy.url.replace("//", "//user:${PASSWORD}@")}"'
        async with backend(
            "http://render.invalid/v1",
            ENVIRON | {"PASSWORD": SECRET},
            proxy=through,
            auth=auth(login),
        ) as made:
            assert (await look(made)).state == "succeeded"
        assert proxy.lines == [f"POST {login.url}/token", "GET http://render.invalid/v1/tasks/h1"]
        assert login.asked == []


# Secrets


async def test_no_secret_is_logged_or_shown_whatever_goes_wrong(
    render: Service, caplog: pytest.LogCaptureFixture, unused: int
) -> None:
    caplog.set_level(logging.DEBUG)
    lines = {
        "headers": '{ Authorization = "Bearer ${S}" }',
        "poll": '{ path = "/tasks/{handle}?key=${S}" }',
        "start": '{ path = "/${S}", body = { token = "${S}" } }',
        "message": '"nothing"',
    }
    says: list[Any] = [
        {"status": "running"},
        {"status": "odd"},
        response(500),
        response(302, b"", Location="/"),
        response(200, b"<html>"),
        response(200, b"x" * 5000),
        response(200, b"no gzip", Content_Encoding="gzip"),
    ]
    errors = []
    for said in says:
        render.says["/v1"] = lambda _, said=said: said
        async with backend(render, ENVIRON, **lines, max_answer="2000") as made:
            errors.append(await looked(made))
            with pytest.raises(BackendError) as raised:
                await made.start(job(""))
            errors.append(raised.value)
    async with backend(f"http://127.0.0.1:{unused}", ENVIRON, **lines) as made:
        errors.append(await looked(made))
    assert SECRET not in repr(errors)
    shown = [each.getMessage() + str(each.exc_info) for each in own(caplog)]
    assert not any(SECRET in each for each in shown)


@pytest.fixture
def unused() -> int:
    """A port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def test_the_log_says_once_for_each_key_that_it_found_nothing(
    render: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with backend(render, message='"stage"', progress='"abs(id)"') as made:
        for _ in range(3):
            await look(made)
    said = [each.getMessage() for each in own(caplog)]
    assert len([each for each in said if "`message` (stage) found nothing" in each]) == 1
    assert len([each for each in said if "`progress` (abs(id)) found nothing" in each]) == 1
