"""Fixtures: real services, started once a session.

Where a service is missing, its tests are skipped at home and fail in CI.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from deploy.demo.rabbitmq_node import installed
from tests.ledgers import own_database
from tests.services import Broker, DemoBackend, Postgres, Stack, private_broker

settings.register_profile("progrock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("progrock")  # a busy machine is not a broken law

#: The addresses of running RabbitMQs. Tests run against each of them, or against a private node.
#: The management API is expected at the AMQP port + 10000.
BROKERS = os.environ.get("PROGROCK_TEST_AMQP_URL", "").replace(",", " ").split()


#: Parts of the paths of tests that take long, the longest first. Those that run last should be
#: short, because several processes share the files.
LONG = (
    "misbehaviour",
    "failover",
    "rabbitmq_outage",
    "recovery",
    "test_promise",
    "test_element",
    "test_page.py",
    "embed_page",
    "security",
    "test_rights",
    "attention",
    "chaos",
    "clocks",
    "test_demo",
    "test_outages",
)
#: Tests that keep a processor busy. The others of the integration tests mostly wait.
BUSY = ("/browser/", "/embedded/", "/test_promise")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long; a busy one and one that waits come by turns."""

    def rank(file: Path) -> int:
        return next((n for n, part in enumerate(LONG) if part in str(file)), len(LONG))

    files = sorted(dict.fromkeys(item.path for item in items), key=rank)
    busy = [file for file in files if any(part in str(file) for part in BUSY)]
    waiting = [file for file in files if "/integration/" in str(file)]
    turns = {file: n for kind in (busy, waiting) for n, file in enumerate(kind)}
    items.sort(key=lambda item: turns.get(item.path, len(files)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure, because nobody would notice the silence."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("CI", "").lower() in ("1", "true")
        and reporter
        and reporter.stats.get("skipped")
    ):
        reporter.write_line("a test was skipped, and CI is set: that is a failure", red=True)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", params=BROKERS if len(BROKERS) > 1 else None)
def rabbitmq(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    """A RabbitMQ with `new_vhost(name)`, `management_url`, `api(…)`; a private one has a `node`."""
    if BROKERS:
        yield Broker.running_at(getattr(request, "param", BROKERS[0]))
        return
    if not installed():
        pytest.skip(
            "RabbitMQ is not installed: `make test` installs it; "
            "or name one in PROGROCK_TEST_AMQP_URL"
        )
    with private_broker(tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture
def vhost_url(rabbitmq: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The AMQP address of a vhost of this test's own."""
    url = rabbitmq.new_vhost()
    yield url
    with suppress(OSError):  # Slow disks let it time out; the node is thrown away anyway.
        rabbitmq.delete_vhost(url)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[Postgres]:
    """A private PostgreSQL; `.new_database()` gives the address of an empty database."""
    if not Postgres.installed():
        pytest.skip("PostgreSQL is not installed: `make test` installs it")
    postgres = Postgres()
    try:
        yield postgres.start()
    finally:
        postgres.stop()


@pytest.fixture(scope="module")
def sqlite(django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The default connection of this thread, on a SQLite of its own, which is here at once."""
    file = tmp_path_factory.mktemp("ledger") / "db.sqlite3"
    with django_db_blocker.unblock(), own_database(f"sqlite:///{file}"):
        yield


@pytest.fixture(scope="session")
def demo_backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoBackend]:
    """The demo backend with its test hooks; `.url`."""
    backend = DemoBackend(tmp_path_factory.mktemp("backend"))
    try:
        yield backend.start()
    finally:
        backend.stop()


@pytest.fixture(scope="session")
def stack(
    rabbitmq: Broker,
    demo_backend: DemoBackend,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[..., Stack]]:
    """A factory of whole ProgRocks, each a context manager; all of them are stopped at the end.

    `stack(workers=2, web=True, database="postgres", backends=path, env={"DEBUG": "0"})`
    `database` is "sqlite", "postgres", or the address of a database.
    """
    made: list[Stack] = []

    def make(
        *,
        workers: int = 1,
        web: bool = True,
        database: str = "sqlite",
        backends: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Stack:
        if database == "postgres":
            database = request.getfixturevalue("postgres_url").new_database()
        own = {"PROGROCK_BACKENDS": str(backends)} if backends else {}
        new = Stack(
            tmp_path_factory.mktemp("stack"),
            rabbitmq,
            database_url="" if database == "sqlite" else database,
            backend_url=demo_backend.url,
            env={**own, **(env or {})},
        )
        made.append(new)
        try:
            new.prepare()
            for _ in range(workers):
                new.start_worker()
            if web:
                new.start_web()
        except BaseException:
            new.stop()
            raise
        return new

    yield make
    for each in made:
        each.stop()
