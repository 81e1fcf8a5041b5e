"""Fixtures: real services, started once a session; what is missing is a skip at home and a failure in CI."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from deploy.demo.rabbitmq_node import Node, free_port, installed
from tests.services import Broker, DemoBackend, Postgres, Stack

settings.register_profile("progrock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("progrock")  # a busy machine is not a broken law

# Tests run against each of these; management is expected on the AMQP port + 10000. None: a private node.
BROKERS = os.environ.get("PROGROCK_TEST_AMQP_URL", "").replace(",", " ").split()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: nobody would notice the silence."""
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
    """A RabbitMQ with `.new_vhost(name)`, `.management_url`, `.api(…)`; `.node` is set where it is a private one."""
    if BROKERS:
        yield Broker.running_at(getattr(request, "param", BROKERS[0]))
        return
    if not installed():
        pytest.skip(
            "RabbitMQ is not installed: `make test` installs it, or name one in PROGROCK_TEST_AMQP_URL"
        )
    node = Node(
        tmp_path_factory.mktemp("rabbitmq"), amqp_port=free_port(), management_port=free_port()
    )
    node.start()
    try:
        yield Broker(node.amqp_url, node.management_url, node)
    finally:
        node.kill()  # its data is thrown away: no need to wait for a graceful end
        node.wipe()


@pytest.fixture
def vhost_url(rabbitmq: Broker, request: pytest.FixtureRequest) -> Iterator[str]:
    """The AMQP address of a vhost of this test's own."""
    url = rabbitmq.new_vhost()
    yield url
    with suppress(OSError):  # a slow disk: the node is thrown away anyhow
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
    """A factory of whole ProgRocks; each is a context manager, and what is still up at the end is stopped.

    `stack(workers=2, database="postgres", web=True, backends=path, env={"PROGROCK_MAX_ACTIVE_JOBS": "3"})`
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
        database_url = (
            request.getfixturevalue("postgres_url").new_database() if database == "postgres" else ""
        )
        own = {"PROGROCK_BACKENDS": str(backends)} if backends else {}
        new = Stack(
            tmp_path_factory.mktemp("stack"),
            rabbitmq,
            database_url=database_url,
            backend_url=demo_backend.url,
            env={**own, **(env or {})},
        )
        made.append(new)
        try:
            new.manage("migrate", "--verbosity", "0")
            new.manage("topology", "--declare")
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
