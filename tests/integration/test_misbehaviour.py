"""Backends and jobs that misbehave: what the browser reads, and that no other job suffers."""

import asyncio
import itertools
import re
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from progrock.lifecycle import MOST_CRASHES
from progrock.storable import LONGEST_MESSAGE
from tests.fragile import POLLS, STARTS, STATUSES
from tests.hasty import SWEEPS
from tests.sentences import RETRYING, retrying
from tests.services import PATIENCE, DemoBackend, Stack, http
from tests.visitor import Frame, Visitor, browse

TABLE = """
[{name}]
url = "${{DEMO_BACKEND_URL}}"
start = {{ path = "/tasks", headers = {{ Idempotency-Key = "{{job}}" }} }}
browser = true
poll = {{ path = "/tasks/{{handle}}" }}
cancel = {{ path = "/tasks/{{handle}}" }}
handle = "id"
state = "status"
states.running = ["running"]
states.succeeded = ["done"]
states.failed = ["failed"]
states.cancelled = ["cancelled"]
progress = "percent"
message = "stage"
result = "output"
error = "error.message"
timeout = {timeout}
interval = 0.3
missing_for = {missing_for}
max_answer = 100000
"""
FRAGILE = """
[fragile]
class = "tests.fragile.Fragile"
browser = true
interval = 0.3
timeout = 1.0
shards = 1
deadline = {deadline}
"""
CARELESS = """
[careless]
class = "tests.fragile.Careless"
browser = true
interval = 0.3
timeout = 1.0
shards = 1
"""


@pytest.fixture(scope="module")
def running(
    stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One worker for a good backend and one that will be told to misbehave."""
    backends = tmp_path_factory.mktemp("backends") / "backends.toml"
    backends.write_text(
        TABLE.format(name="good", timeout=5, missing_for=30)
        + TABLE.format(name="bad", timeout=1, missing_for=3)
        + CARELESS
    )
    with stack(workers=1, backends=backends) as up:
        yield up


@pytest.fixture
async def visitor(running: Stack, demo_backend: DemoBackend) -> AsyncIterator[Visitor]:
    """A visitor; afterwards the backend behaves again."""
    try:
        async with browse(running) as visitor:
            yield visitor
    finally:
        http("DELETE", f"{demo_backend.url}/_test/behave")


def misbehave(backend: DemoBackend, mode: str, **rule: Any) -> None:
    http("POST", f"{backend.url}/_test/behave", {"mode": mode, **rule})


#: What the browser reads while a job runs on, by mode of the demo backend.
TOLD = {
    **{mode: retrying(mode) for mode in ("503", "429", "redirect", "html", "huge", "hang")},
    **{mode: retrying(mode) for mode in ("close", "reset", "garbage", "state", "stateless")},
    "404": "the backend does not know this job at the moment, asking again",
    "nan": "not a number",  # the backend's own message, because such a progress counts as none
}


async def test_the_browser_is_told_what_is_wrong_with_a_backend_and_jobs_end_when_it_behaves_again(
    running: Stack, visitor: Visitor, demo_backend: DemoBackend
) -> None:
    jobs = {mode: (await visitor.start("bad", seconds=600))["job"] for mode in TOLD}
    while not set(jobs.values()) <= {
        f["job"] for f in visitor.frames if f.get("state") == "running"
    }:
        await visitor.until(lambda f: f.get("state") == "running")
    handle = running.handles()
    worker = psutil.Process(running.workers()[0].pid)
    before = worker.memory_info().rss
    for mode, job_id in jobs.items():
        retry_after = {"retry_after": "2"} if mode == "429" else {}
        count = {"count": 1} if mode == "404" else {}  # some seconds of it would end the job
        misbehave(demo_backend, mode, on="poll", task=handle[job_id], **retry_after, **count)
    began = time.time()
    missing = {(job_id, TOLD[mode]) for mode, job_id in jobs.items()}
    seen: dict[str, Frame] = {}
    async with asyncio.timeout(PATIENCE):
        while missing:
            frame = await visitor.until(lambda f: f["type"] == "job")
            missing.discard((frame["job"], frame["message"]))
            seen[frame["job"]] = frame
    assert seen[jobs["nan"]]["progress"] is None
    assert {frame["state"] for frame in seen.values()} == {"running"}
    assert worker.memory_info().rss - before < 60_000_000, (
        "answers of 100 MB are not read to their end"
    )
    over = time.time()
    http("DELETE", f"{demo_backend.url}/_test/behave")
    demo_backend.finish(handle[job_id] for job_id in jobs.values())
    ended = await visitor.ends(set(jobs.values()), 2 * PATIENCE)  # a backoff may have grown
    assert {frame["state"] for frame in ended.values()} == {"succeeded"}
    times = http("GET", f"{demo_backend.url}/_test/tasks/{handle[jobs['429']]}")["times"]
    waits = [b - a for a, b in itertools.pairwise(times) if began < a < over]
    assert waits
    assert min(waits) > 1.95, "Retry-After is honoured"


async def test_a_text_type_with_the_right_body_is_no_error(
    visitor: Visitor, demo_backend: DemoBackend
) -> None:
    misbehave(demo_backend, "text", on="poll")
    job_id = (await visitor.start("good", seconds=1))["job"]
    assert (await visitor.ended(job_id))["state"] == "succeeded"
    assert not any("retrying" in f["message"] for f in visitor.frames if f.get("job") == job_id)


@pytest.mark.parametrize("mode", ["404", "410", "proxy"])
async def test_a_backend_that_knows_no_job_for_some_seconds_ends_none(
    running: Stack, visitor: Visitor, demo_backend: DemoBackend, mode: str
) -> None:
    jobs = await visitor.starts(20, "good", seconds=600)
    misbehave(demo_backend, mode, on="poll")
    told, sentence = set[str](), retrying(mode) if mode == "proxy" else TOLD["404"]
    while not jobs <= told:
        told.add((await visitor.until(lambda f: f.get("message") == sentence))["job"])
    http("DELETE", f"{demo_backend.url}/_test/behave")
    demo_backend.finish(h for job_id, h in running.handles().items() if job_id in jobs)
    assert await visitor.end_states(jobs, 2 * PATIENCE) == {"succeeded"}


@pytest.mark.parametrize("mode", ["401", "403", "404"])
async def test_a_start_that_is_refused_for_some_seconds_is_done_later(
    visitor: Visitor, demo_backend: DemoBackend, mode: str
) -> None:
    misbehave(demo_backend, mode, on="start")
    job_id = (await visitor.start("good", seconds=0.3))["job"]
    await visitor.until(
        lambda f: f.get("job") == job_id and f["message"].startswith("the start was refused, ")
    )
    stats = f"{demo_backend.url}/_test/stats"
    starts = http("GET", stats)["starts"]
    async with asyncio.timeout(PATIENCE):
        while http("GET", stats)["starts"] < starts + 2:  # it is refused again and again
            await asyncio.sleep(0.1)
    http("DELETE", f"{demo_backend.url}/_test/behave")
    assert (await visitor.ended(job_id, 2 * PATIENCE))["state"] == "succeeded"
    misbehave(demo_backend, mode, on="start")
    last = await visitor.ended((await visitor.start("bad", seconds=0.3))["job"])
    assert last["state"] == "failed"
    assert last["error"].startswith(f"the backend answered {mode}")


async def test_a_forgotten_handle_ends_the_job(
    visitor: Visitor, demo_backend: DemoBackend, running: Stack
) -> None:
    job_id = (await visitor.start("bad", seconds=60))["job"]
    await visitor.until(lambda f: f.get("state") == "running")
    handle = running.handles()[job_id]
    misbehave(demo_backend, "404", on="poll", task=handle)
    last = await visitor.ended(job_id)
    assert (last["state"], last["error"]) == ("failed", "the backend no longer knows this job")
    assert any(f["message"] == TOLD["404"] for f in visitor.frames if f.get("job") == job_id)


@pytest.mark.parametrize("mode", ["503", "429", "hang"])
async def test_a_start_that_goes_wrong_is_told_and_tried_again(
    visitor: Visitor, demo_backend: DemoBackend, mode: str
) -> None:
    misbehave(demo_backend, mode, on="start")
    job_id = (await visitor.start("bad", seconds=0.3))["job"]
    await visitor.until(lambda f: f.get("job") == job_id and f["message"] == retrying(mode))
    http("DELETE", f"{demo_backend.url}/_test/behave")
    assert (await visitor.ended(job_id, 2 * PATIENCE))["state"] == "succeeded"


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("handleless", "the backend answered 200, but `handle` found nothing"),
        ("dots", "the backend answered without a usable handle for the job"),
    ],
)
async def test_a_start_that_was_answered_without_a_handle_is_not_sent_again(
    visitor: Visitor, demo_backend: DemoBackend, mode: str, told: str
) -> None:
    misbehave(demo_backend, mode, on="start")
    last = await visitor.ended((await visitor.start("bad", seconds=0.3))["job"])
    http("DELETE", f"{demo_backend.url}/_test/behave")
    assert (last["state"], last["error"]) == ("failed", told)


async def test_a_start_that_is_refused_ends_the_job_with_the_backends_words(
    visitor: Visitor,
) -> None:
    last = await visitor.ended((await visitor.start("bad", seconds="long"))["job"])
    assert last["state"] == "failed"
    assert last["error"] == "the backend answered 422: seconds must be a number from 0.05 to 86400"


@pytest.mark.parametrize(
    ("mode", "told", "many"),
    [("hang", "did not answer", 30), ("huge", "is larger than", 5), ("bomb", "is larger than", 5)],
)
async def test_a_backend_without_end_slows_no_other_backends_jobs(
    running: Stack, visitor: Visitor, demo_backend: DemoBackend, mode: str, told: str, many: int
) -> None:
    async def gap() -> float:
        """The median seconds between two polls of a good job."""
        job_id = (await visitor.start("good", seconds=4))["job"]
        assert (await visitor.ended(job_id))["state"] == "succeeded"
        handle = running.handles()[job_id]
        times = http("GET", f"{demo_backend.url}/_test/tasks/{handle}")["times"]
        return statistics.median(b - a for a, b in itertools.pairwise(times))

    calm = await gap()
    bad = [(await visitor.start("bad", seconds=600))["job"] for _ in range(many)]
    last = bad[-1]
    await visitor.until(lambda f: f.get("job") == last and f["state"] == "running")
    for handle in [h for job_id, h in running.handles().items() if job_id in bad]:
        misbehave(demo_backend, mode, on="poll", task=handle)
    await visitor.until(lambda f: told in f.get("message", ""))
    assert await gap() < calm + 0.5, "who waits for the bad backend waits for its timeout, 1 s"
    for job_id in bad:
        await visitor.send({"action": "cancel", "job": job_id})
    await visitor.ends(set(bad))


async def test_a_class_that_answers_nonsense_is_told_of_and_harms_nobody(
    running: Stack, visitor: Visitor
) -> None:
    nonsense = [("start", name) for name in STARTS] + [
        ("poll", name) for name in [*POLLS, *STATUSES, "hang"]
    ]
    good = (await visitor.start("good", seconds=2))["job"]
    jobs = {
        (await visitor.start("careless", **{call: name}))["job"]: (call, name)
        for call, name in nonsense
    }
    ended = await visitor.ends({good, *jobs})
    assert {
        (jobs.get(job_id), frame["state"])
        for job_id, frame in ended.items()
        if frame["state"] != "succeeded"
    } == set()
    frames = [frame for frame in visitor.frames if frame.get("job") in jobs]
    assert max(len(frame["message"]) for frame in frames) <= LONGEST_MESSAGE
    # of these the browser reads nothing, because the wrong value is made a text or left out
    silent = {
        "number for a message",
        "bytes for a progress",
        "text for a wait",
        "NaN for a wait",
    }
    told = {frame["job"] for frame in frames if frame["message"].startswith(RETRYING)}
    untold = {kind for job_id, kind in jobs.items() if job_id not in told}
    assert {kind for kind in untold if kind[1] not in silent} == set()
    assert "a round failed" not in running.logs("worker1")


async def test_a_hung_poll_of_a_class_ends_with_the_timeout(visitor: Visitor) -> None:
    job_id = (await visitor.start("careless", poll="hang"))["job"]
    told = await visitor.until(
        lambda f: f.get("job") == job_id and f["message"].startswith(RETRYING)
    )
    assert "1 s" in told["message"]
    assert (await visitor.ended(job_id))["state"] == "succeeded"


async def test_a_class_that_holds_the_worker_is_named_in_the_log(
    running: Stack, visitor: Visitor
) -> None:
    await visitor.ended((await visitor.start("careless", poll="block"))["job"])
    async with asyncio.timeout(PATIENCE):
        while "the event loop goes on" not in (log := running.logs("worker1")):
            await asyncio.sleep(0.1)
    assert re.search(r"the event loop is held for more than 1 s: poll, \S+/fragile\.py:\d+", log)


@pytest.mark.parametrize("deadly", ["start", "poll"])
async def test_a_job_that_kills_its_worker_is_given_up_and_the_others_of_its_batch_live(
    stack: Callable[..., Stack], tmp_path: Path, deadly: str
) -> None:
    backends = tmp_path / "backends.toml"
    backends.write_text(FRAGILE.format(deadline=3600))
    with stack(workers=0, backends=backends) as up:
        crashes = 0

        async def keep_a_worker() -> None:
            nonlocal crashes
            while True:
                worker = up.start_worker(hasty=SWEEPS)  # a sweep finds who died in a start
                while worker.alive:
                    await asyncio.sleep(0.05)
                crashes += 1

        async with browse(up) as visitor:
            calm = [(await visitor.start("fragile"))["job"] for _ in range(6)]
            killer = (await visitor.start("fragile", deadly=deadly))["job"]
            calm += [(await visitor.start("fragile"))["job"] for _ in range(6)]
            keeper = asyncio.create_task(keep_a_worker())
            try:
                ended = await visitor.ends({killer, *calm}, 480)
            finally:
                keeper.cancel()
        assert ended[killer]["state"] == "failed"
        assert (
            ended[killer]["error"]
            == f"given up: {MOST_CRASHES} workers crashed while they handled this job"
        )
        assert {ended[job_id]["state"] for job_id in calm} == {"succeeded"}
        assert MOST_CRASHES - 1 <= crashes <= MOST_CRASHES + 3


async def test_jobs_of_a_backend_that_was_taken_out_end_at_their_deadline(
    stack: Callable[..., Stack], tmp_path: Path
) -> None:
    backends = tmp_path / "backends.toml"
    backends.write_text(
        TABLE.format(name="good", timeout=5, missing_for=30) + FRAGILE.format(deadline=3600)
    )
    imports = "from datetime import UTC, datetime, timedelta; from progrock.models import Job"
    past = "datetime.now(UTC) - timedelta(seconds=70)"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        with stack(workers=0, backends=backends) as up:
            async with browse(up, session) as visitor:
                late, cancelled = [(await visitor.start("fragile"))["job"] for _ in range(2)]
            backends.write_text(TABLE.format(name="good", timeout=5, missing_for=30))
            code = f"Job.objects.filter(pk='{cancelled}').update(state='running', handle='h')"
            up.manage("shell", "--verbosity", "0", "-c", f"{imports}; {code}")
            up.stop_web()
            up.start_web()
            async with browse(up, session) as visitor:
                await visitor.send({"action": "cancel", "job": cancelled})
                assert (await visitor.until(lambda f: f.get("job") == cancelled))["cancelling"]
                code = f"Job.objects.update(due_at={past}, due_slot=0, deadline_at={past})"
                up.manage("shell", "--verbosity", "0", "-c", f"{imports}; {code}")
                up.start_worker()
                ended = await visitor.ends({late, cancelled})
            assert ended[cancelled]["state"] == "cancelled"
            assert ended[late]["state"] == "expired"
            assert "no longer configured" in ended[late]["error"]
            assert "ended 2 jobs of backends that are no longer configured" in up.logs()
            assert "Traceback" not in up.logs()
