"""Fixtures: a real server of each kind, and a ProgRock that knows it by its recipe alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers.programs import BIN, Flower, PyGeoApi, Scrapyd, Server
from tests.services import ROOT, Broker, Stack

SERVERS = {each.recipe: each for each in (Flower, PyGeoApi, Scrapyd)}


@pytest.fixture(scope="session", params=SERVERS)
def server(
    request: pytest.FixtureRequest, rabbitmq: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One of the servers, started."""
    if not BIN.exists():
        pytest.skip("the servers are not installed: `make test-servers` installs them")
    made: Server = SERVERS[request.param](tmp_path_factory.mktemp(request.param), rabbitmq)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture(scope="session")
def running(
    server: Server, stack: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A worker and a web process; their one backend is the recipe, opened to browsers."""
    name = server.recipe
    recipe = (ROOT / "site/progrock/recipes" / f"{name}.toml").read_text(encoding="utf-8")
    file = tmp_path_factory.mktemp("backends") / "backends.toml"
    file.write_text(recipe.replace(f"[{name}]\n", f"[{name}]\nbrowser = true\n", 1))
    with stack(backends=file, env=server.environment) as running:
        yield running
