"""What each process may do, as SECURITY.md promises: least rights, TLS only, and kept secrets."""

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import psycopg
import pytest
from aiormq.exceptions import ChannelAccessRefused, ChannelClosed

from deploy.demo.rabbitmq_node import Node, free_port, installed
from progrock.broker.names import NAMES
from tests import certificates
from tests.certificates import Certificates
from tests.people import PEOPLE, closed, cookie, person, post
from tests.services import PATIENCE, ROOT, Broker, DemoBackend, Postgres, Stack, throwaway
from tests.visitor import browse

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
