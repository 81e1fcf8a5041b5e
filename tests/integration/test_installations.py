"""Two installations on one virtual host of RabbitMQ never touch each other."""

import asyncio
from collections.abc import Callable

from progrock.broker.names import Names
from progrock.broker.operate import letters
from progrock.broker.publisher import Publisher
from progrock.broker.topology import Topology, declare
from tests.amqp import QUEUE, TOPOLOGY, Receiver, dead_messages, take, tasks, until
from tests.services import PATIENCE, Stack
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


START = "import progrock; print(progrock.start('render', {'seconds': 1}, audience='all').pk)"
DONE = "from progrock.models import Job; print(Job.objects.filter(state='succeeded').count())"
EVERYBODY = {"PROGROCK_AUDIENCES": "tests.integration.test_installations.one_audience"}


async def test_two_stacks_with_one_prefix_keep_their_messages_apart(
    stack: Callable[..., Stack],
) -> None:
    """Everybody is in one audience, so that only the id tells whose job it is."""
    with stack(workers=0, web=False) as first:
        with stack(env={"AMQP_URL": first.amqp_url, **EVERYBODY}) as second:
            async with browse(second) as visitor:
                await visitor.snapshot()
                theirs = {await asyncio.to_thread(first.shell, START) for _ in range(3)}
                ours = await visitor.starts(3, seconds=1)
                await visitor.ends(ours)
                shown = {frame.get("job") for frame in visitor.frames} - {None}
            assert shown == ours
            assert "pushes on the channel layer are ignored" in second.processes["web"].output()
            replay = second.manage
            told = (await asyncio.to_thread(replay, "deadletters", "replay", "--all")).stdout
            assert told.count("of another installation") == len(theirs)
            assert "replayed 0" in told
        found, _ = await letters.read(first.amqp_url, Names(), lambda _: True, 9)
        assert {job_id for letter in found for job_id in letter.jobs} == theirs
        assert all("of another installation" in letter.reason for letter in found)
        first.start_worker()  # its sweep brings back what the other one put aside
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(first.shell, DONE) != "3":
                await asyncio.sleep(0.5)


async def test_two_stacks_with_a_prefix_each_work_undisturbed(stack: Callable[..., Stack]) -> None:
    with stack(web=False) as first:
        env = {"AMQP_URL": first.amqp_url, "PROGROCK_PREFIX": "shop", **EVERYBODY}
        with stack(env=env) as second:
            async with browse(second) as visitor:
                await visitor.snapshot()
                for _ in range(3):
                    await asyncio.to_thread(first.shell, START)
                ours = await visitor.starts(3, seconds=1)
                await visitor.ends(ours)
                shown = {frame.get("job") for frame in visitor.frames} - {None}
                assert shown == ours
                async with asyncio.timeout(PATIENCE):
                    while await asyncio.to_thread(first.shell, DONE) != "3":
                        await asyncio.sleep(0.5)
            for each in (first, second):
                said = "".join(process.output() for process in each.processes.values())
                assert "swept" not in said
                assert "ignored" not in said
        assert await letters.read(first.amqp_url, Names(), lambda _: True, 9) == ([], 0)
        assert await letters.read(first.amqp_url, Names("shop"), lambda _: True, 9) == ([], 0)


def one_audience(scope: object) -> list[str]:
    """For PROGROCK_AUDIENCES: everybody sees the same jobs."""
    return ["all"]
