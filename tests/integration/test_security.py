"""Who may do what: origins, sessions, audiences, limits, headers; least rights, TLS and secrets (SECURITY.md)."""

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
from progrock.broker.topology import DEAD, DELAY, GROUPS, POLL
from tests import certificates
from tests.certificates import Certificates
from tests.services import PATIENCE, ROOT, Broker, DemoBackend, Postgres, Stack
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
    """One stack with people in it, open to visitors as well."""
    with stack(workers=1, env={"PROGROCK_MAX_SOCKETS": "3"}) as up:
        up.manage("shell", "--verbosity", "0", "-c", PEOPLE)
        yield up


@asynccontextmanager
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """A browser without a page."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


@asynccontextmanager
async def person(up: Stack, name: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser in which somebody has signed in; the password is the name."""
    async with client() as session:
        await sign_in(up, session, name)
        yield session


async def post(
    up: Stack, session: aiohttp.ClientSession, path: str, **fields: str
) -> aiohttp.ClientResponse:
    """A form, with the token of the cookie."""
    token = next(cookie.value for cookie in session.cookie_jar if cookie.key == "csrftoken")
    data = {"csrfmiddlewaretoken": token, **fields}
    return await session.post(
        up.url + path, data=data, headers={"Origin": up.url}, allow_redirects=False
    )


async def sign_in(up: Stack, session: aiohttp.ClientSession, name: str) -> None:
    await get(up, session, "/login/")
    async with await post(up, session, "/login/", username=name, password=name) as answer:
        assert answer.status == 302, await answer.text()


async def get(
    up: Stack, session: aiohttp.ClientSession, path: str, **headers: str
) -> tuple[int, str]:
    async with session.get(up.url + path, headers=headers, allow_redirects=False) as answer:
        return answer.status, await answer.text()


def cookie(session: aiohttp.ClientSession, name: str = "sessionid") -> str | None:
    return next((cookie.value for cookie in session.cookie_jar if cookie.key == name), None)


async def closed(visitor: Visitor) -> int | None:
    """The code that the server closes a socket with."""
    async with asyncio.timeout(PATIENCE):
        while (await visitor.socket.receive()).type == aiohttp.WSMsgType.TEXT:
            pass
    return visitor.socket.close_code


# Origins


@pytest.mark.parametrize(
    "origin",
    [
        *("https://evil.example", "http://127.0.0.1.evil.example", "http://127.0.0.1@evil.example", "null", "", "file://"),
        *("127.0.0.1", "http://[::1", "http://evil.example#127.0.0.1", "http://evil.example:99999999"),
    ],
)  # fmt: skip
async def test_pages_of_other_sites_get_no_socket(running: Stack, origin: str) -> None:
    async with client() as session:
        await get(running, session, "/")
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with browse(running, session, Origin=origin):
                pass
    assert refused.value.status == 403
    assert "Traceback" not in running.logs("web")


@pytest.mark.parametrize("origin", ["{url}", "https://localhost", "HTTP://LOCALHOST:1234", None])
async def test_own_pages_and_programs_get_one(running: Stack, origin: str | None) -> None:
    headers = {} if origin is None else {"Origin": origin.format(url=running.url)}
    async with browse(running, **headers) as visitor:
        await visitor.until(lambda f: f["type"] == "snapshot")


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
        assert (await get(running, session, "/logout/"))[0] == 405, "a link logs nobody out"


# Sessions


async def test_a_session_is_made_by_the_server_alone(running: Stack) -> None:
    async with client() as session:
        session.cookie_jar.update_cookies({"sessionid": "a" * 32}, aiohttp.client.URL(running.url))
        async with browse(running, session) as visitor:
            await visitor.until(lambda f: f["type"] == "snapshot")
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
            first = await one.until(lambda f: f["type"] == "snapshot")
            assert job in {each["job"] for each in first["jobs"]}, (
                "what this browser started stays in view"
            )
            async with await post(running, session, "/logout/") as answer:
                assert answer.status == 302
            assert (await closed(one), await closed(two)) == (4402, 4402)
            await other.start(seconds=1)  # another session of the same person lives
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        for old in (before, during):
            async with client() as thief:
                thief.cookie_jar.update_cookies(
                    {"sessionid": old or ""}, aiohttp.client.URL(running.url)
                )
                assert (await get(running, thief, f"/jobs/{job}"))[0] == 404
                async with browse(running, thief) as visitor:
                    assert (await visitor.until(lambda f: f["type"] == "snapshot"))["jobs"] == []


async def test_a_person_who_was_deactivated_gets_no_new_socket(running: Stack) -> None:
    code = "from django.contrib.auth.models import User; User.objects.create_user('leaver', password='leaver')"
    running.manage("shell", "--verbosity", "0", "-c", code)
    async with person(running, "leaver") as session:
        async with browse(running, session) as visitor:
            job = (await visitor.start(seconds=1))["job"]
        assert (await get(running, session, f"/jobs/{job}"))[0] == 200
        code = "from django.contrib.auth.models import User; User.objects.filter(username='leaver').update(is_active=False)"
        running.manage("shell", "--verbosity", "0", "-c", code)
        assert (await get(running, session, f"/jobs/{job}"))[0] == 404
        async with browse(running, session) as visitor:
            assert job not in {
                each["job"]
                for each in (await visitor.until(lambda f: f["type"] == "snapshot"))["jobs"]
            }


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
                first = await other.until(lambda f: f["type"] == "snapshot")
                assert job not in {each["job"] for each in first["jobs"]}
                for spelling in (job, job.upper(), f"{{{job}}}", job.replace("-", "")):
                    await other.send({"action": "cancel", "job": spelling})
                    error = await other.error()
                    assert error["code"] == "unknown_job"
                await other.send({"action": "cancel", "job": str(uuid.uuid4())})
                assert (await other.error())["message"] == error["message"], "nor whether it exists"
                status, text = await get(running, session, f"/jobs/{job}")
                assert (status, json.loads(text)["code"]) == (404, "unknown_job")
                await other.send({"action": "start", "params": {"seconds": 1}, "request": request})
                own = await other.until(lambda f: f.get("request") == request)
                assert own["job"] != job, "a request is the client's own"
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
        assert (await get(running, alice, listing))[0] == 302, "to the admin's login"
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
                assert (
                    json.loads((await get(running, alice, f"/jobs/{job}"))[1])["cancelling"]
                    is False
                ), name
        assert (await owner.ended(job))["state"] == "cancelled"


# Limits


async def test_a_session_has_a_limit_of_sockets(running: Stack) -> None:
    async with person(running, "bob") as session:
        async with browse(running, session), browse(running, session), browse(running, session):
            async with browse(running, session) as fourth:
                assert (await fourth.error())["code"] == "too_many_sockets"
                assert await closed(fourth) == 1013
            async with browse(running) as other:
                await other.until(lambda f: f["type"] == "snapshot")
        await asyncio.sleep(0.2)
        async with browse(running, session) as again:
            await again.until(lambda f: f["type"] == "snapshot")


async def test_sockets_that_broke_off_do_not_count(running: Stack) -> None:
    async with client() as session:
        await get(running, session, "/")
        for _ in range(6):
            async with browse(running, session) as visitor:
                await visitor.until(lambda f: f["type"] == "snapshot")
                for _ in range(5):  # a browser that is not there any more when these are answered
                    await visitor.send("no JSON")
                visitor.socket._response.connection.transport.abort()  # type: ignore[union-attr]
            async with asyncio.timeout(PATIENCE), browse(running, session) as again:
                while (await again.until(lambda f: f["type"] != "status"))["type"] != "snapshot":
                    await again.socket.close()
                    again.socket = await session.ws_connect(running.ws_url)


async def test_a_flood_of_messages_is_read_slowly_and_holds_up_nobody_else(running: Stack) -> None:
    async with browse(running) as flooding, browse(running) as other:
        begun = time.monotonic()
        for n in range(480):
            await flooding.send({"action": "cancel", "job": str(n)})
        reading = asyncio.create_task(
            flooding.until(lambda f: len(flooding.frames) == 481, 2 * PATIENCE)
        )
        await other.start(seconds=1)
        assert not reading.done(), "the flood is still being read while the other was served"
        await reading
        assert time.monotonic() - begun > 7.4, "a hundred at once, then fifty a second"


@pytest.mark.parametrize(
    "text",
    [
        *('{"action": "start", "params": {"x": 1e999}}', '{"action": "start", "params": {"x": "\\ud800"}}'),
        *('{"action": "start", "params": {"x": "\\u0000"}}', '{"action": "start", "request": "a\\u0000b"}'),
        *('{"action": "start", "request": ""}', "[" * 60_000, '{"a":' * 10_000, '"start"', "null", ""),
        *('{"action": "start", "backend": "render\\u0000"}', '{"action": "cancel", "job": {"$ne": 1}}'),
        *('{"action": "start", "backend": ["render"]}', '{"action": "start", "backend": "https://evil.example/"}'),
        *('{"action": "start", "url": "https://evil.example/", "request": 1}', '{"action": "cancel", "job": "\' OR 1=1"}'),
    ],
)  # fmt: skip
async def test_hostile_input_is_answered_with_an_error(running: Stack, text: str) -> None:
    before = len(running.logs("web"))
    async with browse(running) as visitor:
        await visitor.send(text)
        assert (await visitor.error())["message"]
        job = (await visitor.start(seconds=0.2, url="https://evil.example/"))[
            "job"
        ]  # params are the backend's, no address
        assert (await visitor.ended(job))["state"] == "succeeded"
    assert "Traceback" not in running.logs("web")[before:]


# Pages


async def test_every_page_has_a_strict_content_policy(running: Stack) -> None:
    async with person(running, "operator") as session:
        for path in (
            "/",
            "/login/",
            "/admin/",
            "/admin/progrock/job/",
            "/healthz",
        ):
            async with session.get(running.url + path) as answer:
                text = await answer.text()
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy, path
                assert "unsafe" not in policy
                assert "frame-ancestors 'none'" in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["X-Frame-Options"] == "DENY"
                if answer.content_type == "text/html" and answer.status == 200:
                    assert not re.search(
                        r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text
                    ), path


async def test_in_production_cookies_travel_over_https_alone(stack: Callable[..., Stack]) -> None:
    production = {
        "DEBUG": "0",
        "SECRET_KEY": secrets.token_urlsafe(60),
        "ALLOWED_HOSTS": "127.0.0.1",
    }
    production |= {"PROGROCK_BEHIND_PROXY": "1", "PROGROCK_ANONYMOUS": "1"}
    with stack(workers=0, env=production) as up:
        checked = up.manage("check", "--deploy", "--fail-level", "WARNING")
        assert "no issues" in checked.stdout + checked.stderr
        async with client() as session:
            assert (await get(up, session, "/"))[0] == 301
            assert (await get(up, session, "/healthz"))[0] == 200, (
                "the balancer asks over plain HTTP"
            )
            async with session.get(f"{up.url}/", headers={"X-Forwarded-Proto": "https"}) as answer:
                assert answer.status == 200
                assert "max-age=31536000" in answer.headers["Strict-Transport-Security"]
                morsel = answer.cookies["sessionid"]
                assert morsel["secure"]
                assert morsel["httponly"]
                assert morsel["samesite"] == "Lax"
            for path in ("/nothing", f"/jobs/{uuid.uuid4()}"):
                async with session.get(
                    up.url + path, headers={"X-Forwarded-Proto": "https"}
                ) as answer:
                    assert answer.status == 404
                    assert "urlpatterns" not in await answer.text()
                    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert (await get(up, session, "/healthz", Host="evil.example"))[0] == 400
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
    """A node that speaks TLS, and its port."""
    if not installed():
        pytest.skip("RabbitMQ is not installed: `make test` installs it")
    port = free_port()
    conf = [f"listeners.ssl.1 = 127.0.0.1:{port}", f"ssl_options.cacertfile = {ca.authority}"]
    conf += [f"ssl_options.certfile = {ca.certificate}", f"ssl_options.keyfile = {ca.key}"]
    directory = tmp_path_factory.mktemp("tls")
    node = Node(
        directory, amqp_port=free_port(), management_port=free_port(), name="tls", conf=conf
    )
    node.start()
    try:
        yield Broker(node.amqp_url, node.management_url, node), port
    finally:
        node.kill()
        node.wipe()


@pytest.fixture(scope="module")
def tls_database(postgres_url: Postgres, ca: Certificates) -> Iterator[str]:
    """The address of a database whose server has a certificate."""
    for path in (ca.certificate, ca.key):
        copy = postgres_url.directory / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o600)
        if user := postgres_url._as.get("user"):
            shutil.chown(copy, user)

    def configure(**settings: str) -> None:
        with psycopg.connect(postgres_url.url(), autocommit=True) as connection:
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")  # type: ignore[arg-type, unused-ignore]
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
    """A stack over TLS with a user each, and what was on its exchanges."""

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
    """Web as `web`, a worker as `worker`, the topology from the definitions, TLS on every connection."""
    broker, port = tls_rabbitmq
    directory = tmp_path_factory.mktemp("secured")
    backends = directory / "backends.toml"
    text = (ROOT / "deploy" / "backends.toml").read_text()
    backends.write_text(text.replace("${DEMO_BACKEND_TOKEN:-none}", "${RENDER_TOKEN}"))
    env = {"PROGROCK_BACKENDS": str(backends), "PROGROCK_DECLARE": "0", "SECRET_KEY": SIGNED}
    with Stack(
        directory, broker, database_url=tls_database, backend_url=demo_backend.url, env=env
    ) as up:
        vhost = up.amqp_url.rsplit("/", 1)[1]

        def url(user: str) -> str:
            return (
                f"amqps://{user}:{PASSWORDS[user]}@localhost:{port}/{vhost}?cafile={ca.authority}"
            )

        urls = {user: url(user) for user in PASSWORDS}
        up.env |= {
            f"RABBITMQ_{name.upper()}_PASSWORD": password for name, password in PASSWORDS.items()
        }
        definitions = json.loads(up.manage("topology", "--definitions").stdout)
        for name in PASSWORDS:
            del up.env[f"RABBITMQ_{name.upper()}_PASSWORD"]
        assert definitions["vhosts"] == [{"name": vhost}]
        broker.api("POST", "definitions", definitions)
        for exchange, key in (
            (POLL, "#"),
            (DELAY, "#"),
            (DEAD, ""),
            *((GROUPS, f"progrock.feed.{n}") for n in range(4)),
        ):
            broker.api("PUT", f"queues/{vhost}/recorder", {"durable": True})
            broker.api("POST", f"bindings/{vhost}/e/{exchange}/q/recorder", {"routing_key": key})
        up.manage("migrate", "--verbosity", "0")
        up.manage("shell", "--verbosity", "0", "-c", PEOPLE)
        up.env["AMQP_URL"] = urls["web"]
        up.start_web()
        up.start_worker(env={"AMQP_URL": urls["worker"], "RENDER_TOKEN": TOKEN})
        yield Secured(up, urls)


async def test_a_job_runs_with_least_rights_and_over_tls_alone(secured: Secured) -> None:
    up = secured.up
    async with person(up, "alice") as session, browse(up, session) as visitor:
        job = (await visitor.start(seconds=3, secret="params stay in the ledger"))["job"]
        await visitor.until(lambda f: f.get("job") == job and f["state"] == "running")
        code = (
            "import progrock; from progrock.models import Job\n"
            f"print(progrock.start('report', {{'seconds': 1}}, audience=Job.objects.get(pk='{job}').audience).pk)"
        )
        by_api = (
            await asyncio.to_thread(up.manage, "shell", "--verbosity", "0", "-c", code)
        ).stdout.split()[-1]
        ended = await visitor.ends({job, by_api})
        assert {frame["state"] for frame in ended.values()} == {"succeeded"}
        await visitor.send({"action": "cancel", "job": (await visitor.start(seconds=600))["job"]})
        assert (await visitor.until(lambda f: f.get("complete")))["state"] == "cancelled"
        broker = up.broker
        vhost = up.amqp_url.rsplit("/", 1)[1]
        async with asyncio.timeout(PATIENCE):  # the management API tells it some seconds later
            while {
                (c.get("user"), c.get("ssl"))
                for c in broker.api("GET", f"vhosts/{vhost}/connections")
            } != {
                ("web", True),
                ("worker", True),
            }:
                await asyncio.sleep(0.2)
        with psycopg.connect(up.database_url) as connection:
            rows = connection.execute(
                "SELECT s.ssl FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) WHERE datname = current_database()"
            ).fetchall()
        assert len(rows) >= 3
        assert {ssl for (ssl,) in rows} == {True}
        assert "updates are delayed" not in up.logs()


async def test_a_logout_closes_the_sockets_of_its_session(secured: Secured) -> None:
    async with person(secured.up, "bob") as session, browse(secured.up, session) as visitor:
        await visitor.until(lambda f: f["type"] == "snapshot")
        async with await post(secured.up, session, "/logout/") as answer:
            assert answer.status == 302
        assert await closed(visitor) == 4402


async def declare(channel: Any) -> None:
    await channel.declare_queue(
        "progrock.poll.new.0", durable=True, arguments={"x-queue-type": "quorum"}
    )


async def declare_exchange(channel: Any) -> None:
    await channel.declare_exchange("progrock.new", "topic", durable=True)


async def bind_group(channel: Any) -> None:
    """Listen to a feed by a queue that RabbitMQ names."""
    queue = await channel.declare_queue(exclusive=True)
    await queue.bind(GROUPS, "progrock.feed.0")


async def bind_poll(channel: Any) -> None:
    """Tasks by way of a queue of one's own."""
    queue = await channel.declare_queue("progrock.web.test", exclusive=True)
    await queue.bind(POLL, "#")


def publish(exchange: str, key: str) -> Callable[[Any], Any]:
    async def attempt(channel: Any) -> None:
        to = (
            await channel.get_exchange(exchange, ensure=False)
            if exchange
            else channel.default_exchange
        )
        await to.publish(aio_pika.Message(b"{}"), key, mandatory=False)

    return attempt


def consume(queue: str) -> Callable[[Any], Any]:
    async def ignore(message: Any) -> None:
        """It never comes."""

    async def attempt(channel: Any) -> None:
        found = await channel.get_queue(queue, ensure=False)
        await found.consume(ignore, timeout=PATIENCE)

    return attempt


def delete(queue: str) -> Callable[[Any], Any]:
    async def attempt(channel: Any) -> None:
        await channel.queue_delete(queue, timeout=PATIENCE)

    return attempt


@pytest.mark.parametrize(
    ("user", "attempt"),
    [
        *(
            ("web", consume(name))
            for name in ("progrock.poll.render.0", "progrock.dead", "progrock.delay.04-1s")
        ),
        *(
            ("web", publish(name, key))
            for name, key in ((DELAY, "1s.render.0"), (DEAD, ""), ("", "progrock.dead"))
        ),
        *(
            ("web", attempt)
            for attempt in (declare, declare_exchange, bind_poll, delete("progrock.poll.render.0"))
        ),
        *(("worker", consume(name)) for name in ("progrock.dead", "progrock.delay.04-1s")),
        *(
            ("worker", publish(name, key))
            for name, key in (("", "progrock.dead"), ("amq.topic", "x"))
        ),
        *(
            ("worker", attempt)
            for attempt in (declare, declare_exchange, bind_group, delete("progrock.dead"))
        ),
    ],
)
async def test_what_a_user_has_no_right_to_is_refused(
    secured: Secured, user: str, attempt: Callable[[Any], Any]
) -> None:
    async with await aio_pika.connect(secured.urls[user]) as connection:
        channel = await connection.channel()
        with pytest.raises((ChannelAccessRefused, ChannelClosed), match=r"ACCESS_REFUSED|403"):
            await attempt(channel)


@pytest.mark.parametrize("command", ["web", "worker", "operator"])
def test_a_certificate_that_nobody_vouches_for_is_refused(secured: Secured, command: str) -> None:
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
            code = "from progrock.broker.blocking import group_send; from progrock import conf; group_send(conf.amqp_url(), 'x', {})"
            refused = up.manage("shell", "--verbosity", "0", "-c", code, check=False)
    finally:
        up.env.clear()
        up.env.update(before)
    assert refused.returncode != 0
    assert re.search("certificate", refused.stderr)
    assert PASSWORDS["operator"] not in refused.stderr


async def test_no_secret_is_in_a_log_or_in_a_message(secured: Secured) -> None:
    up = secured.up
    wrong = f"wrong-{secrets.token_hex(8)}"
    bad = {
        "AMQP_URL": secured.urls["worker"].replace(PASSWORDS["worker"], wrong),
        "RENDER_TOKEN": TOKEN,
    }
    worker = up.start_worker(env={**bad, "PROGROCK_LOG_LEVEL": "DEBUG"})
    async with asyncio.timeout(PATIENCE):
        while "login was refused" not in worker.output():
            await asyncio.sleep(0.1)
    worker.kill()
    hidden = [TOKEN, SIGNED, wrong, *PASSWORDS.values()]
    told = up.logs() + "".join(
        up.manage(*command, check=False).stderr
        for command in (["status"], ["topology", "--verify"])
    )
    bodies = []
    async with await aio_pika.connect(up.broker.url + up.amqp_url.rsplit("/", 1)[1]) as connection:
        queue = await (await connection.channel()).get_queue("recorder")
        while message := await queue.get(fail=False):
            bodies.append(message.body.decode(errors="replace") + repr(message.headers))
            await message.ack()
    assert len(bodies) > 5
    kinds = "".join(bodies)
    assert '"turn"' in kinds, "poll tasks were recorded"
    assert "job.changed" in kinds, "pushes were recorded"
    for secret in hidden:
        assert secret not in told
        assert secret not in kinds
    assert "params stay in the ledger" not in kinds
    async with person(up, "alice") as session:
        key = cookie(session) or ""
        assert key
        assert key not in kinds + up.logs(), "a session's key is a secret, too"


def test_the_web_process_needs_no_backends_secret(secured: Secured) -> None:
    assert "RENDER_TOKEN" not in secured.up.env
    refused = secured.up.manage("runworker", check=False)
    assert refused.returncode == 1
    assert "RENDER_TOKEN" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_backends_secret_is_shown_by_no_repr() -> None:
    from progrock.backends import build, load

    options = load(Path(ROOT / "deploy" / "backends.toml"), environ={"DEMO_BACKEND_TOKEN": TOKEN})[
        "render"
    ]
    assert TOKEN not in repr(options)
    assert TOKEN not in repr(build(options))
