"""Each recipe against the API that it is for: every scenario of its cassette, look by look."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import orjson
import pytest

from progrock import clock, lifecycle
from progrock.backends import JobView, build, load, schemas
from progrock.backends.templates import Scope
from progrock.consumers.calls import Calls
from progrock.ledger import Row
from progrock.lifecycle import Decision, Step
from tests import jobs
from tests.apis import mock
from tests.services import ROOT

CASSETTES = {path.stem: path for path in sorted((ROOT / "tests/apis/cassettes").glob("*.json"))}
RECIPES = {path.stem: path for path in sorted((ROOT / "site/progrock/recipes").glob("*.toml"))}
#: What a table cannot reach. It needs a class in Python.
NEED_A_CLASS = {
    "gradio_call": "a job that is a stream of events",
    "stability": "a multipart upload",
}
#: Variables of recipes. Those that end in _URL are the mock's address, and all others "t0ken".
SECRETS = {
    "AZURE_DOCUMENT_INTELLIGENCE_KEY": "k3y",
    "AZURE_FUNCTIONS_CODE": "c0de",
    "AZURE_FUNCTIONS_HUB": "hub",
    "AZURE_SPEECH_KEY": "k3y",
    "ELASTICSEARCH_API_KEY": "k3y",
    "FLOWER_BASIC": "bGFiOnB3",
    "GALAXY_API_KEY": "k3y",
    "JENKINS_BASIC": "bGFiOnB3",
    "MUX_BASIC": "bGFiOnB3",
    "OGC_PROCESS": "survey",
    "SCRAPYD_PROJECT": "shop",
    "SCRAPYD_SPIDER": "prices",
    "TRANSLOADIT_KEY": "k3y",
}


def comment(name: str) -> str:
    """The first comment of a recipe, as one line."""
    lines = RECIPES[name].read_text().partition("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in lines), name
    return " ".join(line.removeprefix("# ") for line in lines)


def variables(name: str) -> dict[str, str | None]:
    """The variables of a recipe's table, each with its default."""
    table = RECIPES[name].read_text().partition("\n\n")[2]
    return dict(re.findall(r"\$\{(\w+)(?::-([^}]*))?\}", table))


def environment(name: str, origin: str) -> dict[str, str]:
    """What a worker needs to have in its environment to play a recipe against its mock."""
    return {
        each: origin if each.endswith("_URL") else SECRETS.get(each, "t0ken")
        for each, default in variables(name).items()
        if not default or each.endswith("_URL")
    }


class Play:
    """One job of a recipe against its mock, driven as a worker drives it."""

    def __init__(self, calls: Calls, params: Any) -> None:
        self.calls, self.options = calls, calls.options
        deadline = clock.now() + self.options.deadline
        self.row = jobs.row(
            backend=self.options.name, params=orjson.dumps(params).decode(), deadline_at=deadline
        )

    async def start(self) -> Decision:
        """Send the start, as a worker does after its intent."""
        assert self._next() is Step.START
        jobs.advance(self.row, lifecycle.intent(self.row, options=self.options))
        return self._done(await self.calls.start(self.row, repeated=False))

    async def step(self) -> Decision:
        """The next step of a job that runs: a look, or a cancel where one was asked for."""
        step = self._next()
        call = {Step.POLL: self._poll, Step.CANCEL: self.calls.cancel}
        return self._done(
            await call[step](self.row) if isinstance(step, Step) else [(self.row, step)]
        )

    async def _poll(self, row: Row) -> list[tuple[Row, Decision]]:
        return await self.calls.poll([row])

    def _next(self) -> Step | Decision:
        return lifecycle.next_step(self.row, now=clock.now(), options=self.options)

    def _done(self, decided: list[tuple[Row, Decision]]) -> Decision:
        [(_, decision)] = decided
        jobs.advance(self.row, decision)
        return decision


def scenarios() -> list[Any]:
    """Each scenario of each cassette that has a recipe."""
    found = [
        pytest.param(name, scenario, id=f"{name}-{scenario}")
        for name in CASSETTES.keys() - NEED_A_CLASS.keys()
        for scenario in mock.load(CASSETTES[name])["scenarios"]
    ]
    return sorted(found, key=lambda each: each.id)


@asynccontextmanager
async def playing(name: str, cassette: mock.Cassette) -> AsyncIterator[tuple[mock.Mock, Play]]:
    """The mock of a cassette, and a job of the recipe that has not been started."""
    options = load(RECIPES[name])[name]
    async with mock.Mock(cassette) as server:
        backend = build(options, environment(name, server.origin))
        async with aclosing(backend):
            yield server, Play(Calls(backend, options, lambda: 0.0), cassette["params"])


@pytest.mark.parametrize(("name", "scenario"), scenarios())
async def test_a_recipe_plays_the_scenarios_of_its_api(name: str, scenario: str) -> None:
    async with playing(name, mock.load(CASSETTES[name])) as (server, play):
        await _played(play, server, server.scenario(scenario, play.row.id))
    assert not server.problems


async def _played(play: Play, server: mock.Mock, played: dict[str, Any]) -> None:
    row, expect = play.row, played["expect"]
    row.params = orjson.dumps(played["params"]).decode()
    await play.start()
    assert row.state == "running", row.error
    states, progress, waits = [], [], []
    for at, step in enumerate(played["steps"]):
        server.step = step
        # Two steps may have the same name. A cancel comes once, at the first one.
        row.cancel_requested = row.cancel_requested or step == played.get("cancel_at")
        decision = await play.step()
        states.append(row.state)
        progress.append(row.progress)
        waits.append(decision.delay)
        assert row.state == expect["states"][at], row.error or row.message
    assert states == expect["states"]
    assert progress == expect.get("progress", progress)
    for wait, least in zip(waits, expect.get("waits", []), strict=False):
        assert least is None or wait >= least
    if "result" in expect:
        assert row.result == expect["result"]
    assert expect.get("error", "") in row.error
    if "cancel_at" in played:
        assert {"cancel", "stop"} & set(server.asked), "the backend was not told of the cancel"


@pytest.mark.parametrize("status", [401, 403, 429, 500, 502, 503])
@pytest.mark.parametrize("name", RECIPES)
async def test_an_error_of_the_server_ends_no_job(name: str, status: int) -> None:
    """Some expressions find the state of a job in an `error`, which such an answer has as well."""
    cassette = mock.load(CASSETTES[name])
    for body in (
        {"error": {"code": status, "message": "no luck"}},
        {"error": "no luck", "message": "no luck", "code": str(status)},
    ):
        for exchange in cassette["exchanges"].keys() - {"start"}:
            cassette["exchanges"][exchange]["answers"] = {}
            cassette["exchanges"][exchange]["answer"] = {"status": status, "json": body}
        async with playing(name, cassette) as (server, play):
            server.scenario("success", play.row.id)
            await play.start()
            await play.step()
        assert play.row.state == "running", play.row.error
        assert str(status) in play.row.message
        assert "no luck" in play.row.message
        assert not server.problems


@pytest.mark.parametrize(("name", "status"), [("airflow", 409), ("ray_jobs", 500)])
async def test_a_start_that_came_twice_is_one_job(name: str, status: int) -> None:
    cassette = mock.load(CASSETTES[name])
    cassette["exchanges"]["start"]["answer"] = {"status": status, "json": {"detail": "is there"}}
    async with playing(name, cassette) as (server, play):
        await _played(play, server, server.scenario("success", play.row.id))
    assert play.options.repeat


async def test_a_cancel_finds_the_build_of_jenkins_that_has_just_begun() -> None:
    """The queue says in the look before the cancel that the job is a build by now."""
    async with playing("jenkins", mock.load(CASSETTES["jenkins"])) as (server, play):
        server.scenario("stop", play.row.id)
        await play.start()
        server.step = "running"
        play.row.cancel_requested = True
        for _ in range(3):
            if play.row.state == "running":
                await play.step()
    assert play.row.state == "cancelled"
    assert "stop" in server.asked
    assert "cancel" not in server.asked
    assert not server.problems


def test_every_cassette_has_a_recipe_or_needs_a_class() -> None:
    assert CASSETTES.keys() == RECIPES.keys() | NEED_A_CLASS.keys()
    assert not RECIPES.keys() & NEED_A_CLASS.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_one_table_with_a_name_for_people(name: str) -> None:
    options = load(RECIPES[name])
    assert list(options) == [name]
    assert options[name].title
    assert not options[name].browser, "whoever copies a recipe opens it to browsers, not we"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_was_confirmed_and_what_to_fill_in(name: str) -> None:
    text, source = comment(name), mock.load(CASSETTES[name])["source"]
    assert ("Confirmed: nothing." in text) == ("confirmed" not in source)
    assert "Confirmed: " in text
    assert "Own knowledge: " in text
    fill_in = text.partition("Fill in: ")[2]
    for variable, default in variables(name).items():
        assert default or variable in fill_in, variable


@pytest.mark.parametrize("name", RECIPES)
def test_a_start_comes_twice_only_where_the_api_knows_it_again(name: str) -> None:
    if mock.load(CASSETTES[name])["repeat"].startswith("none"):
        assert not load(RECIPES[name])[name].repeat


@pytest.mark.parametrize("name", RECIPES)
def test_the_params_of_a_cassette_fit_the_schema_of_its_recipe(name: str) -> None:
    cassette, options = mock.load(CASSETTES[name]), load(RECIPES[name])[name]
    chosen = [cassette["params"]]
    chosen += [each["params"] for each in cassette["scenarios"].values() if "params" in each]
    for params in chosen:
        assert schemas.complaint(options.params_schema, params) is None
        if options.label:
            assert options.label.filled(Scope(JobView("1", "", params)))


def test_a_param_adds_no_line_to_the_yaml_of_seqera() -> None:
    options = load(RECIPES["seqera_tower"])["seqera_tower"]
    for text in ("s3://lab/a\noutdir: s3://other", "s3://lab/a # b", "a: b"):
        assert schemas.complaint(options.params_schema, {"input": text})
