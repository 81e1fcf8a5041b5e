"""Two installations on one virtual host of RabbitMQ never touch each other."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from progrock.broker import mark
from progrock.broker import subscriber as subscriber_module
from progrock.broker.address import vhost_of
from progrock.broker.errors import NotOurs
from progrock.broker.names import Names
from progrock.broker.operate import letters
from progrock.broker.operate.management import verify
from progrock.broker.operate.prune import prune
from progrock.broker.publisher import Publisher
from progrock.broker.topology import Topology, declare
from tests.amqp import QUEUE, TOPOLOGY, Receiver, dead_messages, take, tasks, until
from tests.hasty import SWEEPS
from tests.logs import own
from tests.services import PATIENCE, Broker, Stack
from tests.visitor import browse

OURS, THEIRS = Names(installation=lambda: "ours"), Names(installation=lambda: "theirs")


async def test_a_task_of_another_installation_goes_to_the_dead_queue(vhost_url: str) -> None:
    await declare(vhost_url, TOPOLOGY)
    mine, other, old = (
        Publisher(vhost_url, "test", names=names) for names in (OURS, THEIRS, Names())
    )
    subscriber = Receiver(vhost_url, "test", [QUEUE], mine)
    run = asyncio.create_task(subscriber.run())
    try:
        await until(lambda: subscriber.consumes(QUEUE))
        foreign = tasks()
        await other.publish("render", 0, foreign, delay=0)
        for publisher in (mine, old):
            await publisher.publish("render", 0, sent := tasks(), delay=0)
            [delivery] = await take(subscriber)
            assert [each.job_id for each in delivery.tasks] == [each.job_id for each in sent]
        assert not subscriber.received[QUEUE]
        # Whoever replays the letter must be the one whose it is.
        topology = Topology(TOPOLOGY.backends, OURS)
        while not (found := await letters.read(vhost_url, OURS, lambda _: True, 9))[1]:
            await asyncio.sleep(0.05)
        assert "another installation 'theirs': wanted 'ours'" in found[0][0].reason
        count, stay = await letters.replay(vhost_url, topology, lambda _: True)
        assert count == 0
        assert "another installation" in stay[0]
        [letter] = await dead_messages(vhost_url, 1)
        assert foreign[0].job_id.encode() in letter.body
        assert letter.headers["installation"] == "theirs"
    finally:
        await subscriber.close()
        for publisher in (mine, other, old):
            await publisher.close()
        await run


OURS_TOPOLOGY, THEIRS_TOPOLOGY = (Topology(TOPOLOGY.backends, names) for names in (OURS, THEIRS))


async def test_the_first_to_declare_marks_the_names_and_a_second_one_is_told(
    rabbitmq: Broker, vhost_url: str
) -> None:
    vhost, api = vhost_of(vhost_url), rabbitmq.management_url
    for _ in range(2):
        assert await declare(vhost_url, OURS_TOPOLOGY) == ""
    assert await verify(api, vhost, OURS_TOPOLOGY) == []
    told = await declare(vhost_url, THEIRS_TOPOLOGY)
    assert told.startswith("another installation, with another database than ours ('theirs'), has")
    assert "a virtual host (AMQP_URL) or a PROGROCK_PREFIX of its own" in told
    assert [line.split(",")[0] for line in await verify(api, vhost, THEIRS_TOPOLOGY)] == [
        "another installation 'ours'"
    ]
    assert [line.split(",")[0] for line in await verify(api, vhost, OURS_TOPOLOGY)] == [
        "another installation"
    ], "the first one is told that there was a second one"


async def test_prune_asks_before_it_removes_what_may_be_another_installations(
    rabbitmq: Broker, vhost_url: str
) -> None:
    vhost, api = vhost_of(vhost_url), rabbitmq.management_url
    fewer = {"render": 2}
    left = "queue progrock.poll.report.0: would be emptied and removed"
    await declare(vhost_url, TOPOLOGY)  # as a release before the marks, or a definitions file
    with pytest.raises(NotOurs, match="nobody has marked whose these names are") as raised:
        await prune(vhost_url, api, Topology(fewer, OURS))
    assert left in str(raised.value).splitlines()
    await declare(vhost_url, OURS_TOPOLOGY)
    await declare(vhost_url, THEIRS_TOPOLOGY)
    for names in (OURS, THEIRS):
        with pytest.raises(NotOurs, match="another installation") as raised:
            await prune(vhost_url, api, Topology(fewer, names))
        assert left in str(raised.value).splitlines()
    assert await verify(api, vhost, Topology(fewer)) == [
        "queue progrock.poll.report.0: left over, no backend of yours uses it"
        " (--prune drains it first)"
    ], "nothing was removed"
    done = await prune(vhost_url, api, Topology(fewer, THEIRS), sure=True)
    assert "the prefix 'progrock' is this installation's now" in done
    assert await verify(api, vhost, Topology(fewer, THEIRS)) == []
    assert await prune(vhost_url, api, Topology(fewer, THEIRS)) == []
    assert await declare(vhost_url, Topology(fewer, THEIRS)) == ""
    await declare(vhost_url, Topology({"old": 1, **fewer}, THEIRS))
    [done_now] = await prune(vhost_url, api, Topology(fewer, THEIRS))
    assert done_now.startswith("queue progrock.poll.old.0: removed"), "what is ours needs no word"


@pytest.mark.parametrize("may_declare", [True, False])
async def test_a_worker_says_once_that_the_names_are_anothers_and_works(
    vhost_url: str,
    may_declare: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also one with the least rights, which may declare nothing."""
    answers: list[str] = []

    async def claim(*args: Any, **options: Any) -> str:
        answers.append(await mark.claim(*args, **options))
        return answers[-1]

    monkeypatch.setattr(subscriber_module, "claim", claim)

    async def told(topology: Topology) -> list[str]:
        caplog.clear()
        answers.clear()
        publisher = Publisher(vhost_url, "test", names=topology.names)
        subscriber = Receiver(
            vhost_url, "test", [QUEUE], publisher, declare=topology if may_declare else None
        )
        run = asyncio.create_task(subscriber.run())
        try:
            await until(lambda: answers and subscriber.consumes(QUEUE))
            subscriber.restart("a test")
            await until(lambda: not subscriber.consumes(QUEUE))
            await until(lambda: subscriber.consumes(QUEUE))
            await publisher.publish("render", 0, sent := tasks(), delay=0)
            [delivery] = await take(subscriber)
            assert [each.job_id for each in delivery.tasks] == [each.job_id for each in sent]
            await delivery.ack()
        finally:
            await subscriber.close()
            await publisher.close()
            await run
        assert len(answers) == 1, "asked once a process"
        return [each.getMessage() for each in own(caplog) if each.levelname == "ERROR"]

    await declare(vhost_url, TOPOLOGY)
    assert await told(Topology(TOPOLOGY.backends, Names())) == []
    assert await told(OURS_TOPOLOGY) == [], "nobody has marked the names, or we do it now"
    assert await declare(vhost_url, OURS_TOPOLOGY) == ""
    assert await told(OURS_TOPOLOGY) == []
    [sentence] = await told(THEIRS_TOPOLOGY)
    assert sentence.startswith("another installation, with another database than ours ('theirs')")


START = """
import progrock
for _ in range(3):
    print(progrock.start("render", {"seconds": 1}, audience="all").pk)
"""
DONE = "SELECT count(*) FROM progrock_job WHERE state = 'succeeded'"
EVERYBODY = {"PROGROCK_AUDIENCES": "tests.integration.test_installations.one_audience"}


async def test_two_stacks_with_one_prefix_keep_their_messages_apart(
    stack: Callable[..., Stack],
) -> None:
    """Everybody is in one audience, so that only the id tells whose job it is."""
    with stack(workers=0, web=False) as first:
        with stack(env={"AMQP_URL": first.amqp_url, **EVERYBODY}) as second:
            async with browse(second) as visitor:
                await visitor.snapshot()
                theirs = set((await asyncio.to_thread(first.shell, START)).split())
                ours = await visitor.starts(3, seconds=1)
                await visitor.ends(ours)
                shown = {frame.get("job") for frame in visitor.frames} - {None}
            assert shown == ours
            assert "pushes on the channel layer are ignored" in second.processes["web"].output()
            assert "another installation, with another database than ours" in second.logs("worker1")
            verified = await asyncio.to_thread(second.manage, "topology", "--verify", check=False)
            assert verified.returncode == 1
            assert "a PROGROCK_PREFIX of its own" in verified.stderr
            replay = second.manage
            told = (await asyncio.to_thread(replay, "deadletters", "replay", "--all")).stdout
            assert told.count("of another installation") == len(theirs)
            assert "replayed 0" in told
        found, _ = await letters.read(first.amqp_url, Names(), lambda _: True, 9)
        assert {job_id for letter in found for job_id in letter.job_ids} == theirs
        assert all("of another installation" in letter.reason for letter in found)
        first.start_worker(hasty=SWEEPS)  # its sweep brings back what the other one put aside
        async with asyncio.timeout(PATIENCE):
            while first.rows(DONE) != [(3,)]:
                await asyncio.sleep(0.5)


async def test_two_stacks_with_a_prefix_each_work_undisturbed(stack: Callable[..., Stack]) -> None:
    with stack(web=False) as first:
        env = {"AMQP_URL": first.amqp_url, "PROGROCK_PREFIX": "shop", **EVERYBODY}
        with stack(env=env) as second:
            async with browse(second) as visitor:
                await visitor.snapshot()
                await asyncio.to_thread(first.shell, START)
                ours = await visitor.starts(3, seconds=1)
                await visitor.ends(ours)
                shown = {frame.get("job") for frame in visitor.frames} - {None}
                assert shown == ours
                async with asyncio.timeout(PATIENCE):
                    while first.rows(DONE) != [(3,)]:
                        await asyncio.sleep(0.5)
            for each in (first, second):
                said = "".join(process.output() for process in each.processes.values())
                assert "swept" not in said
                assert "ignored" not in said
                assert "another installation" not in said
                verified = await asyncio.to_thread(each.manage, "topology", "--verify")
                assert "has all that is wanted" in verified.stdout
        assert await letters.read(first.amqp_url, Names(), lambda _: True, 9) == ([], 0)
        assert await letters.read(first.amqp_url, Names("shop"), lambda _: True, 9) == ([], 0)


def one_audience(scope: object) -> list[str]:
    """For PROGROCK_AUDIENCES: everybody sees the same jobs."""
    return ["all"]
