"""Who may do what, as SECURITY.md promises.

First origins, sessions, audiences, limits and headers; then least rights, TLS and secrets.
"""

import asyncio
import json
import re
import secrets
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aio_pika
import aiohttp
import psycopg
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed

from deploy.demo.rabbitmq_node import Node, free_port, installed
from progrock.broker.names import NAMES
from tests import certificates
from tests.certificates import Certificates
from tests.services import PATIENCE, ROOT, Broker, DemoBackend, Postgres, Stack, throwaway
from tests.visitor import Visitor, browse

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


@pytest.fixture(scope="module")
def running(stack: Callable[..., Stack]) -> Iterator[Stack]:
    """A stack with users, and open to anonymous visitors."""
    with stack(workers=1, env={"PROGROCK_MAX_SOCKETS": "3"}) as up:
        up.shell(PEOPLE)
        yield up


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


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "file://",
        "127.0.0.1",
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1@evil.example",
        "http://evil.example#127.0.0.1",
        "http://evil.example:99999999",
        "http://[::1",
    ],
)
async def test_pages_of_other_sites_get_no_socket(running: Stack, origin: str) -> None:
    before = len(running.logs("web"))
    async with client() as session:
        await get(running, session, "/")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with browse(running, session, Origin=origin):
                pass
    assert refused.value.status == 403
    assert "Traceback" not in running.logs("web")[before:]


@pytest.mark.parametrize("origin", ["{url}", "https://localhost", "HTTP://LOCALHOST:1234", None])
async def test_own_pages_and_programs_get_a_socket(running: Stack, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin.format(url=running.url)}
    async with browse(running, **headers) as visitor:
        await visitor.snapshot()


async def test_a_form_of_another_site_is_refused(running: Stack) -> None:
    async with client() as session:
        await get(running, session, "/login/")
        data = {
            "csrfmiddlewaretoken": cookie(session, "csrftoken") or "",
            "username": "alice",
            "password": "alice",
        }
        headers = {"Origin": "https://evil.example"}
        async with session.post(f"{running.url}/login/", data=data, headers=headers) as answer:
            assert answer.status == 403
    async with person(running, "alice") as session:
        assert (await get(running, session, "/logout/"))[0] == 405, "a link must log nobody out"


# Sessions


async def test_only_the_server_makes_sessions(running: Stack) -> None:
    async with client() as session:
        session.cookie_jar.update_cookies({"sessionid": "a" * 32}, aiohttp.client.URL(running.url))
        async with browse(running, session) as visitor:
            await visitor.snapshot()
        assert cookie(session) not in (None, "a" * 32)


async def test_a_login_changes_the_session_and_a_logout_ends_it_everywhere(running: Stack) -> None:
    async with client() as session:
        async with browse(running, session) as visitor:
            job = (await visitor.start(seconds=1))["job"]
        before = cookie(session)
        await sign_in(running, session, "alice")
        during = cookie(session)
        assert during not in (None, before)
        async with (
            browse(running, session) as one,
            browse(running, session) as two,
            person(running, "alice") as phone,
            browse(running, phone) as other,
        ):
            first = await one.snapshot()
            shown = {each["job"] for each in first["jobs"]}
            assert job in shown, "what this browser started stays in view"
            async with await post(running, session, "/logout/") as answer:
                assert answer.status == 302
            assert (await closed(one), await closed(two)) == (4402, 4402)
            await other.start(seconds=1)  # Another session of the same user goes on.
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        for old in (before, during):
            async with client() as thief:
                stolen = {"sessionid": old or ""}
                thief.cookie_jar.update_cookies(stolen, aiohttp.client.URL(running.url))
                assert (await get(running, thief, f"/jobs/{job}"))[0] == 404
                async with browse(running, thief) as visitor:
                    assert (await visitor.snapshot())["jobs"] == []


async def test_a_page_from_before_the_login_closes_at_the_logout(running: Stack) -> None:
    async with client() as session, browse(running, session) as page:
        job = (await page.start(seconds=1))["job"]
        await sign_in(running, session, "alice")
        await page.send({"action": "cancel", "job": job})  # the same browser may still do that
        await page.until(lambda frame: frame.get("job") == job and frame["complete"])
        async with await post(running, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(page) == 4402


async def test_signing_in_over_a_session_closes_the_sockets_of_the_other_user(
    running: Stack,
) -> None:
    async with (
        person(running, "alice") as session,
        browse(running, session) as hers,
        person(running, "alice") as phone,
        browse(running, phone) as elsewhere,
    ):
        await hers.snapshot()
        await elsewhere.snapshot()
        await sign_in(running, session, "bob")
        assert await closed(hers) == 4402
        async with browse(running, session) as his:
            await his.snapshot()
            await sign_in(running, session, "bob")  # once more: his session goes on
            await his.start(seconds=1)
        await elsewhere.start(seconds=1)


async def test_a_session_whose_key_changed_closes_at_the_logout(running: Stack) -> None:
    imports = "from django.contrib.auth.models import User"
    running.shell(f"{imports}; User.objects.create_superuser('changer', password='changer')")
    async with person(running, "changer") as session, browse(running, session) as page:
        await page.snapshot()
        before = cookie(session)
        await get(running, session, "/admin/password_change/")
        new = {
            "old_password": "changer",
            "new_password1": "ProgRock-1",
            "new_password2": "ProgRock-1",
        }
        async with await post(running, session, "/admin/password_change/", **new) as answer:
            assert answer.status == 302
        assert cookie(session) != before
        async with await post(running, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(page) == 4402


async def test_a_user_who_was_deactivated_sees_nothing_any_more(running: Stack) -> None:
    imports = "from django.contrib.auth.models import User"
    running.shell(f"{imports}; User.objects.create_user('leaver', password='leaver')")
    async with person(running, "leaver") as session:
        async with browse(running, session) as visitor:
            job = (await visitor.start(seconds=1))["job"]
        assert (await get(running, session, f"/jobs/{job}"))[0] == 200
        leaver = "User.objects.filter(username='leaver')"
        running.shell(f"{imports}; {leaver}.update(is_active=False)")
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        async with browse(running, session) as visitor:
            assert job not in {each["job"] for each in (await visitor.snapshot())["jobs"]}


# Audiences


async def test_nobody_sees_or_cancels_the_job_of_another_audience(running: Stack) -> None:
    async with person(running, "alice") as alice, browse(running, alice) as owner:
        request = str(uuid.uuid4())
        await owner.send({"action": "start", "params": {"seconds": 600}, "request": request})
        job = (await owner.until(lambda f: f.get("request") == request))["job"]
        await owner.until(lambda f: f.get("job") == job and f["state"] == "running")
        for name in ("bob", "clerk", "reader", None):
            async with (
                person(running, name) if name else client() as session,
                browse(running, session) as other,
            ):
                first = await other.snapshot()
                assert job not in {each["job"] for each in first["jobs"]}
                for spelling in (job, job.upper(), f"{{{job}}}", job.replace("-", "")):
                    await other.send({"action": "cancel", "job": spelling})
                    error = await other.error()
                    assert error["code"] == "unknown_job"
                await other.send({"action": "cancel", "job": str(uuid.uuid4())})
                assert (await other.error())["message"] == error["message"], (
                    "the answer must not tell that the job exists"
                )
                status, text = await get(running, session, f"/jobs/{job}")
                assert (status, json.loads(text)["code"]) == (404, "unknown_job")
                await other.send({"action": "start", "params": {"seconds": 1}, "request": request})
                own = await other.until(lambda f: f.get("request") == request)
                assert own["job"] != job, "another client's request of the same name is not ours"
                await other.ended(own["job"])
                assert job not in {f.get("job") for f in other.frames}
        assert (await get(running, alice, f"/jobs/{job}"))[0] == 200
        async with alice.post(f"{running.url}/jobs/{job}") as answer:
            assert answer.status in (403, 405)
        await owner.send({"action": "cancel", "job": job})
        assert (await owner.ended(job))["state"] == "cancelled"


async def test_the_admin_needs_the_permission(running: Stack) -> None:
    async with person(running, "alice") as alice, browse(running, alice) as owner:
        job = (await owner.start(seconds=600))["job"]
        await owner.until(lambda f: f.get("job") == job and f["state"] == "running")
        cancel = {"action": "cancel_jobs", "_selected_action": job}
        listing = "/admin/progrock/job/"
        assert (await get(running, alice, listing))[0] == 302, "she is sent to the admin's login"
        for name, status in (("clerk", 403), ("reader", 200), ("operator", 200)):
            async with person(running, name) as session:
                found, text = await get(running, session, listing)
                assert found == status, name
                assert (job[:8] in text) == (status == 200)
                assert ("Cancel the selected jobs" in text) == (name == "operator")
                async with await post(running, session, listing, **cancel) as answer:
                    assert answer.status in ((200, 302) if status == 200 else (403,))
                for path in (f"{listing}{job}/delete/", f"{listing}add/"):
                    assert (await get(running, session, path))[0] in (302, 403), path
            if name != "operator":
                _, text = await get(running, alice, f"/jobs/{job}")
                assert json.loads(text)["cancelling"] is False, name
        assert (await owner.ended(job))["state"] == "cancelled"


# Limits


async def test_a_session_has_a_limit_of_sockets(running: Stack) -> None:
    async with person(running, "bob") as session:
        async with browse(running, session), browse(running, session), browse(running, session):
            async with browse(running, session) as fourth:
                assert (await fourth.error())["code"] == "too_many_sockets"
                assert await closed(fourth) == 1013
            async with browse(running) as other:
                await other.snapshot()
        await asyncio.sleep(0.2)
        async with browse(running, session) as again:
            await again.snapshot()


async def test_sockets_that_broke_off_do_not_count(running: Stack) -> None:
    async with client() as session:
        await get(running, session, "/")
        for _ in range(6):
            async with browse(running, session) as visitor:
                await visitor.snapshot()
                for _ in range(5):  # When these are answered, the browser has gone.
                    await visitor.send("no JSON")
                visitor.socket._response.connection.transport.abort()  # type: ignore[union-attr]
            async with asyncio.timeout(PATIENCE), browse(running, session) as again:
                while (await again.until(lambda f: f["type"] != "status"))["type"] != "snapshot":
                    await again.socket.close()
                    again.socket = await session.ws_connect(running.ws_url)


async def test_a_flood_of_messages_is_read_slowly_and_delays_nobody_else(running: Stack) -> None:
    async with browse(running) as flooding, browse(running) as other:
        begun = time.monotonic()
        for n in range(480):
            await flooding.send({"action": "cancel", "job": str(n)})
        reading = asyncio.create_task(
            flooding.until(lambda f: len(flooding.frames) == 481, 2 * PATIENCE)
        )
        await other.start(seconds=1)
        assert not reading.done(), "the other must be served while the flood is still being read"
        await reading
        assert time.monotonic() - begun > 7.4, "it reads a hundred at once, then fifty a second"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        '"start"',
        "[" * 60_000,
        '{"a":' * 10_000,
        '{"action": "start", "params": {"x": 1e999}}',
        '{"action": "start", "params": {"x": "\\ud800"}}',
        '{"action": "start", "params": {"x": "\\u0000"}}',
        '{"action": "start", "request": ""}',
        '{"action": "start", "request": "a\\u0000b"}',
        '{"action": "start", "url": "https://evil.example/", "request": 1}',
        '{"action": "start", "backend": ["render"]}',
        '{"action": "start", "backend": "render\\u0000"}',
        '{"action": "start", "backend": "https://evil.example/"}',
        '{"action": "cancel", "job": {"$ne": 1}}',
        '{"action": "cancel", "job": "\' OR 1=1"}',
    ],
)
async def test_hostile_input_is_answered_with_an_error(running: Stack, text: str) -> None:
    before = len(running.logs("web"))
    async with browse(running) as visitor:
        await visitor.send(text)
        assert (await visitor.error())["message"]
        # Params go to the backend as they are; none of them is an address for us.
        jobs = await visitor.starts(1, seconds=0.2, url="https://evil.example/")
        assert await visitor.end_states(jobs) == {"succeeded"}
    assert "Traceback" not in running.logs("web")[before:]


# Pages


async def test_every_page_has_a_strict_content_policy(running: Stack) -> None:
    async with person(running, "operator") as session:
        for path in ("/", "/login/", "/admin/", "/admin/progrock/job/", "/healthz"):
            async with session.get(running.url + path) as answer:
                text = await answer.text()
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy, path
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["X-Frame-Options"] == "DENY"
                if answer.content_type == "text/html" and answer.status == 200:
                    inline = r"<script(?![^>]*(\bsrc=|application/json))|<style|\son\w+=|\sstyle="
                    assert not re.search(inline, text), path


async def test_in_production_cookies_travel_over_https_only(stack: Callable[..., Stack]) -> None:
    production = {"DEBUG": "0", "SECRET_KEY": secrets.token_urlsafe(60)}
    production |= {"ALLOWED_HOSTS": "127.0.0.1"}
    production |= {"PROGROCK_BEHIND_PROXY": "1", "PROGROCK_ANONYMOUS": "1"}
    with stack(workers=0, env=production) as up:
        checked = up.manage("check", "--deploy", "--fail-level", "WARNING")
        assert "no issues" in checked.stdout + checked.stderr
        async with client() as session:
            assert (await get(up, session, "/"))[0] == 301
            status, _ = await get(up, session, "/healthz")
            assert status == 200, "load balancers ask over plain HTTP"
            by_https = {"X-Forwarded-Proto": "https"}
            async with session.get(f"{up.url}/", headers=by_https) as answer:
                assert answer.status == 200
                assert "max-age=31536000" in answer.headers["Strict-Transport-Security"]
                morsel = answer.cookies["sessionid"]
                assert morsel["secure"]
                assert morsel["httponly"]
                assert morsel["samesite"] == "Lax"
            for path in ("/nothing", f"/jobs/{uuid.uuid4()}"):
                async with session.get(up.url + path, headers=by_https) as answer:
                    assert answer.status == 404
                    assert "urlpatterns" not in await answer.text()
                    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert (await get(up, session, "/login/", Host="evil.example", **by_https))[0] == 400
            status, _ = await get(up, session, "/healthz", Host="10.1.2.3:8000")
            assert status == 200, "a probe comes by IP"
        async with client() as session, session.ws_connect(up.ws_url) as socket:
            made = socket._response.headers.getall("set-cookie")[0]
            for word in ("Secure", "HttpOnly", "SameSite=Lax"):
                assert word in made


# Least rights, TLS, secrets


PASSWORDS = {name: f"{name}-{secrets.token_hex(8)}" for name in ("web", "worker", "operator")}
TOKEN = f"token-{secrets.token_hex(8)}"
SIGNED = f"signing-{secrets.token_hex(24)}"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate authority and a server's certificate."""
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_rabbitmq(
    ca: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Broker, int]]:
    """A RabbitMQ that speaks TLS, and the port for that."""
    if not installed():
        pytest.skip("RabbitMQ is not installed: `make test` installs it")
    port = free_port()
    conf = [f"listeners.ssl.1 = 127.0.0.1:{port}", f"ssl_options.cacertfile = {ca.authority}"]
    conf += [f"ssl_options.certfile = {ca.certificate}", f"ssl_options.keyfile = {ca.key}"]
    directory = tmp_path_factory.mktemp("tls")
    node = Node(
        directory, amqp_port=free_port(), management_port=free_port(), name="tls", conf=conf
    )
    with throwaway(node) as broker:
        yield broker, port


@pytest.fixture(scope="module")
def tls_database(postgres_url: Postgres, ca: Certificates) -> Iterator[str]:
    """The address of a database whose server has a certificate."""
    for path in (ca.certificate, ca.key):
        copy = postgres_url.directory / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        if postgres_url.user:
            shutil.chown(copy, postgres_url.user)

    def configure(**settings: str) -> None:
        with psycopg.connect(postgres_url.url(), autocommit=True) as connection:
            for name, value in settings.items():
                change = f"ALTER SYSTEM SET {name} = '{value}'"
                # The type wants a literal, against injection; name and value are ours.
                connection.execute(change)  # type: ignore[arg-type, unused-ignore]
            connection.execute("SELECT pg_reload_conf()")

    folder = postgres_url.directory
    configure(
        ssl_cert_file=f"{folder / ca.certificate.name}",
        ssl_key_file=f"{folder / ca.key.name}",
        ssl="on",
    )
    url = postgres_url.new_database().replace("127.0.0.1", "localhost")
    try:
        yield f"{url}?sslmode=verify-full&sslrootcert={ca.authority}"
    finally:
        configure(ssl="off")


class Secured:
    """A stack over TLS, and the AMQP addresses of its users by their names."""

    def __init__(self, up: Stack, urls: dict[str, str]) -> None:
        self.up, self.urls = up, urls


@pytest.fixture(scope="module")
def secured(
    tls_rabbitmq: tuple[Broker, int],
    tls_database: str,
    ca: Certificates,
    demo_backend: DemoBackend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Secured]:
    """A stack whose processes have TLS and users with the least rights.

    The web server is the user `web`, the worker is `worker`. The topology comes from the
    definitions, and a queue `recorder` gets a copy of all messages.
    """
    broker, port = tls_rabbitmq
    directory = tmp_path_factory.mktemp("secured")
    backends = directory / "backends.toml"
    text = (ROOT / "deploy" / "backends.toml").read_text()
    backends.write_text(text.replace("${DEMO_BACKEND_TOKEN:-none}", "${RENDER_TOKEN}"))
    env = {"PROGROCK_BACKENDS": str(backends), "PROGROCK_DECLARE": "0", "SECRET_KEY": SIGNED}
    with Stack(
        directory, broker, database_url=tls_database, backend_url=demo_backend.url, env=env
    ) as up:
        vhost = up.vhost

        def url(user: str) -> str:
            login = f"{user}:{PASSWORDS[user]}"
            return f"amqps://{login}@localhost:{port}/{vhost}?cafile={ca.authority}"

        urls = {user: url(user) for user in PASSWORDS}
        passwords = {f"RABBITMQ_{user.upper()}_PASSWORD": PASSWORDS[user] for user in PASSWORDS}
        up.env |= passwords
        definitions = json.loads(up.manage("topology", "--definitions").stdout)
        for name in passwords:
            del up.env[name]
        assert definitions["vhosts"] == [{"name": vhost}]
        broker.api("POST", "definitions", definitions)
        broker.api("PUT", f"queues/{vhost}/recorder", {"durable": True})
        feeds = [(NAMES.groups, f"progrock.feed.{n}") for n in range(4)]
        for exchange, key in ((NAMES.poll, "#"), (NAMES.delay, "#"), (NAMES.dead, ""), *feeds):
            broker.api("POST", f"bindings/{vhost}/e/{exchange}/q/recorder", {"routing_key": key})
        up.manage("migrate", "--verbosity", "0")
        up.shell(PEOPLE)
        up.env["AMQP_URL"] = urls["web"]
        up.start_web()
        up.start_worker(env={"AMQP_URL": urls["worker"], "RENDER_TOKEN": TOKEN})
        yield Secured(up, urls)


async def test_a_job_runs_with_the_least_rights_and_over_tls_only(secured: Secured) -> None:
    up = secured.up
    async with person(up, "alice") as session, browse(up, session) as visitor:
        job = (await visitor.start(seconds=3))["job"]
        await visitor.until(lambda f: f.get("job") == job and f["state"] == "running")
        code = (
            "import progrock; from progrock.models import Job\n"
            f"audience = Job.objects.get(pk='{job}').audience\n"
            "print(progrock.start('report', {'seconds': 1}, audience=audience).pk)"
        )
        by_api = await asyncio.to_thread(up.shell, code)
        assert await visitor.end_states({job, by_api}) == {"succeeded"}
        await visitor.send({"action": "cancel", "job": (await visitor.start(seconds=600))["job"]})
        assert (await visitor.until(lambda f: f.get("complete")))["state"] == "cancelled"
        found: set[tuple[str, bool]] = set()
        async with asyncio.timeout(PATIENCE):  # The management API knows some seconds later.
            while found != {("web", True), ("worker", True)}:
                await asyncio.sleep(0.2)
                connections = up.broker.api("GET", f"vhosts/{up.vhost}/connections")
                found = {(each.get("user"), each.get("ssl")) for each in connections}
        with psycopg.connect(up.database_url) as connection:
            rows = connection.execute(
                "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) "
                "WHERE datname = current_database()"
            ).fetchall()
        assert len(rows) >= 3
        assert {ssl for (ssl,) in rows} == {True}
        assert "updates are delayed" not in up.logs()


async def test_a_logout_closes_the_sockets_of_its_session(secured: Secured) -> None:
    async with person(secured.up, "bob") as session, browse(secured.up, session) as visitor:
        await visitor.snapshot()
        async with await post(secured.up, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(visitor) == 4402


# What a user may try; each takes a channel of aio-pika, or makes a function that takes one.


async def declare(channel: Any) -> None:
    """Declare a poll queue."""
    quorum = {"x-queue-type": "quorum"}
    await channel.declare_queue("progrock.poll.new.0", durable=True, arguments=quorum)


async def declare_exchange(channel: Any) -> None:
    """Declare an exchange."""
    await channel.declare_exchange("progrock.new", "topic", durable=True)


async def bind_group(channel: Any) -> None:
    """Listen to a feed, by a queue that RabbitMQ names."""
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(NAMES.groups, "progrock.feed.0")


async def bind_poll(channel: Any) -> None:
    """Listen to tasks, by a queue of one's own."""
    queue = await channel.declare_queue("progrock.web.test", exclusive=True)
    await queue.bind(NAMES.poll, "#")


def publish(exchange: str, key: str) -> Callable[[Any], Any]:
    """Publish a message to an exchange; "" is the default exchange."""

    async def attempt(channel: Any) -> None:
        to = channel.default_exchange
        if exchange:
            to = await channel.get_exchange(exchange, ensure=False)
        await to.publish(aio_pika.Message(b"{}"), key, mandatory=False)

    return attempt


def consume(queue: str) -> Callable[[Any], Any]:
    """Consume a queue."""

    async def ignore(message: Any) -> None:
        """No message comes, because the consumer is refused."""

    async def attempt(channel: Any) -> None:
        found = await channel.get_queue(queue, ensure=False)
        await found.consume(ignore, timeout=PATIENCE)

    return attempt


def delete(queue: str) -> Callable[[Any], Any]:
    """Delete a queue."""

    async def attempt(channel: Any) -> None:
        await channel.queue_delete(queue, timeout=PATIENCE)

    return attempt


@pytest.mark.parametrize(
    ("user", "attempt"),
    [
        ("web", consume("progrock.poll.render.0")),
        ("web", consume("progrock.dead")),
        ("web", consume("progrock.delay.04-1s")),
        ("web", publish(NAMES.delay, "1s.render.0")),
        ("web", publish(NAMES.dead, "")),
        ("web", publish("", "progrock.dead")),
        ("web", declare),
        ("web", declare_exchange),
        ("web", bind_poll),
        ("web", delete("progrock.poll.render.0")),
        ("worker", consume("progrock.dead")),
        ("worker", consume("progrock.delay.04-1s")),
        ("worker", publish("", "progrock.dead")),
        ("worker", publish("amq.topic", "x")),
        ("worker", declare),
        ("worker", declare_exchange),
        ("worker", bind_group),
        ("worker", delete("progrock.dead")),
    ],
)
async def test_a_user_is_refused_what_it_has_no_right_to(
    secured: Secured, user: str, attempt: Callable[[Any], Any]
) -> None:
    async with await aio_pika.connect(secured.urls[user]) as connection:
        channel = await connection.channel()
        with pytest.raises((ChannelAccessRefused, ChannelClosed), match=r"ACCESS_REFUSED|403"):
            await attempt(channel)


@pytest.mark.parametrize("command", ["web", "worker", "operator"])
def test_a_certificate_of_an_unknown_authority_is_refused(secured: Secured, command: str) -> None:
    up = secured.up
    plain = {"AMQP_URL": secured.urls["operator"].partition("?")[0]}
    before = dict(up.env)
    try:
        if command == "operator":
            up.env |= plain
            refused = up.manage("deadletters", check=False)
        elif command == "worker":
            up.env["DATABASE_URL"] = up.database_url.partition("&")[0] + "&sslrootcert=/dev/null"
            refused = up.manage("migrate", "--check", check=False)
        else:
            up.env |= plain
            code = "from progrock import conf; from progrock.broker.blocking import group_send\n"
            code += "group_send(conf.amqp_url(), 'x', {})"
            refused = up.manage("shell", "--verbosity", "0", "-c", code, check=False)
    finally:
        up.env.clear()
        up.env.update(before)
    assert refused.returncode != 0
    assert re.search("certificate", refused.stderr)
    assert PASSWORDS["operator"] not in refused.stderr


async def test_no_secret_is_in_a_log_or_in_a_message(secured: Secured) -> None:
    up = secured.up
    async with person(up, "alice") as session, browse(up, session) as visitor:
        jobs = await visitor.starts(1, seconds=2, secret="params stay in the ledger")
        assert await visitor.end_states(jobs) == {"succeeded"}
    wrong = f"wrong-{secrets.token_hex(8)}"
    env = {"AMQP_URL": secured.urls["worker"].replace(PASSWORDS["worker"], wrong)}
    env |= {"RENDER_TOKEN": TOKEN, "PROGROCK_LOG_LEVEL": "DEBUG"}
    worker = up.start_worker(env=env)
    async with asyncio.timeout(PATIENCE):
        while "login was refused" not in worker.output():
            await asyncio.sleep(0.1)
    worker.kill()
    hidden = [TOKEN, SIGNED, wrong, *PASSWORDS.values()]
    told = up.logs()
    for command in (["status"], ["topology", "--verify"]):
        told += up.manage(*command, check=False).stderr
    bodies = []
    async with await aio_pika.connect(up.broker.url + up.vhost) as connection:
        queue = await (await connection.channel()).get_queue("recorder")
        while message := await queue.get(fail=False):
            bodies.append(message.body.decode(errors="replace") + repr(message.headers))
            await message.ack()
    assert len(bodies) > 5
    kinds = "".join(bodies)
    assert '"turn"' in kinds, "poll tasks must have been recorded"
    assert "job.changed" in kinds, "pushes must have been recorded"
    for secret in hidden:
        assert secret not in told
        assert secret not in kinds
    assert "params stay in the ledger" not in kinds
    async with person(up, "alice") as session:
        key = cookie(session) or ""
        assert key
        assert key not in kinds + up.logs(), "a session's key is a secret too"


def test_the_web_process_needs_no_secret_of_a_backend(secured: Secured) -> None:
    assert "RENDER_TOKEN" not in secured.up.env
    refused = secured.up.manage("runworker", check=False)
    assert refused.returncode == 1
    assert "RENDER_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_repr_shows_the_secret_of_a_backend() -> None:
    from progrock.backends import build, load

    table = Path(ROOT / "deploy" / "backends.toml")
    options = load(table)["render"]
    assert TOKEN not in repr(options)
    assert TOKEN not in repr(build(options, {"DEMO_BACKEND_TOKEN": TOKEN}))
