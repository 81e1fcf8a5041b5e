"""Letters in a real dead queue: told with their reason, replayed, discarded, and the command."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from progrock.broker import tasks, topology
from progrock.broker.errors import BrokerUnavailable
from progrock.broker.names import NAMES
from progrock.broker.operate import letters
from progrock.broker.operate.letters import Letter
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import Task
from progrock.broker.topology import Topology
from tests.services import MANAGE, PATIENCE, ROOT

TOPOLOGY = Topology({"render": 2})
# Those whose last digit is even belong to shard 0.
JOBS = [f"{n:08x}-0000-4000-8000-00000000000{n}" for n in range(4)]


def every(letter: Letter) -> bool:
    return True


@pytest.fixture
async def channel(vhost_url: str) -> AsyncIterator[AbstractChannel]:
    """A channel in a vhost with the topology."""
    await topology.declare(vhost_url, TOPOLOGY)
    async with await aio_pika.connect(vhost_url) as connection:
        yield await connection.channel()


async def send(channel: AbstractChannel, key: str, body: bytes, **about: object) -> None:
    poll = await channel.get_exchange(NAMES.poll)
    await poll.publish(aio_pika.Message(body, delivery_mode=2, **about), key)  # type: ignore[arg-type]


async def waits(channel: AbstractChannel, queue: str, count: int) -> None:
    """Wait until so many messages are in a queue."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await channel.declare_queue(queue, passive=True)
            if found.declaration_result.message_count == count:
                return
            await asyncio.sleep(0.02)


def due(*jobs: str, turn: int = 3) -> bytes:
    return tasks.encode([Task(job, turn, time.time()) for job in jobs])


async def test_letters_are_told_with_reason_queue_key_time_and_jobs(
    channel: AbstractChannel, vhost_url: str
) -> None:
    begun = int(time.time())
    publisher = Publisher(vhost_url, "test")
    about = {"queue": "progrock.poll.render.1", "key": "1s.render.1"}
    await publisher.dead_letter(b"rubbish", "not JSON: of a worker's own words", about)
    await publisher.close()
    await send(channel, "now.nobody.0", due(JOBS[1], JOBS[2]), message_id="m1")
    await send(channel, "now.render.0", due(JOBS[0]), message_id="m2")
    queue = await channel.get_queue("progrock.poll.render.0")
    message = await queue.get(timeout=PATIENCE)
    assert message
    await message.reject(requeue=False)
    await waits(channel, NAMES.dead, 3)
    for _ in range(30):  # more looks than RabbitMQ 4 would allow by itself
        found, count = await letters.read(vhost_url, NAMES, every, 2)
        assert (len(found), count) == (2, 3), "a look removes nothing"
    found, _ = await letters.read(vhost_url, NAMES, every, 100)
    told = {letter.reason: letter for letter in found}
    own = told.pop("not JSON: of a worker's own words")
    assert (own.queue, own.key, own.job_ids, own.body) == (
        "progrock.poll.render.1",
        "1s.render.1",
        [],
        b"rubbish",
    )
    unrouted = told.pop("no queue for now.nobody.0")
    assert (unrouted.queue, unrouted.job_ids) == ("progrock.poll.nobody.0", [JOBS[1], JOBS[2]])
    [(reason, rejected)] = told.items()
    assert "rejected" in reason
    assert (rejected.queue, rejected.key, rejected.job_ids) == (
        "progrock.poll.render.0",
        "now.render.0",
        [JOBS[0]],
    )
    for letter in (own, rejected):
        assert letter.time
        assert begun <= letter.time.timestamp() <= time.time()
    again, _ = await letters.read(vhost_url, NAMES, every, 100)
    assert {letter.id for letter in again} == {letter.id for letter in found}, "an id stays"


@pytest.mark.parametrize(
    "forged", ["abc", ["abc"], [{"queue": "progrock.poll.render.0", "time": "now"}]]
)
async def test_a_forged_x_death_is_told_like_any_letter(
    channel: AbstractChannel, vhost_url: str, forged: object
) -> None:
    await send(channel, "now.nobody.0", due(JOBS[0]), headers={"x-death": forged})
    await waits(channel, NAMES.dead, 1)
    [letter], _ = await letters.read(vhost_url, NAMES, every, 100)
    assert (letter.job_ids, letter.time) == ([JOBS[0]], None)


async def test_a_message_that_was_delivered_too_often_says_so(
    channel: AbstractChannel, vhost_url: str
) -> None:
    await send(channel, "now.render.0", due(JOBS[0]))
    queue = await channel.get_queue("progrock.poll.render.0")
    for _ in range(1001):
        message = await queue.get(timeout=PATIENCE)
        assert message
        await message.reject(requeue=True)
    await waits(channel, NAMES.dead, 1)
    [letter], _ = await letters.read(vhost_url, NAMES, every, 100)
    assert "delivery_limit" in letter.reason
    assert letter.queue == "progrock.poll.render.0"


async def test_a_replay_brings_tasks_to_the_shard_they_belong_to_and_leaves_what_cannot_be_read(
    channel: AbstractChannel, vhost_url: str
) -> None:
    await send(channel, "now.render.7", due(*JOBS))  # from a time when there were more shards
    await send(channel, "now.nobody.0", due(JOBS[0]))
    await send(channel, "now.render.9", b"rubbish")
    await waits(channel, NAMES.dead, 3)
    count, stay = await letters.replay(vhost_url, TOPOLOGY, every)
    assert count == 1
    assert len(stay) == 2
    assert any("no backend is named 'nobody'" in sentence for sentence in stay)
    assert any("not JSON" in sentence for sentence in stay)
    await waits(channel, NAMES.dead, 2)
    for shard, jobs in ((0, [JOBS[0], JOBS[2]]), (1, [JOBS[1], JOBS[3]])):
        queue = await channel.get_queue(f"progrock.poll.render.{shard}")
        message = await queue.get(timeout=PATIENCE)
        assert message
        found = tasks.decode(message.body)
        assert [task.job_id for task in found] == jobs
        assert all(task.again for task in found), "a crash here would send them twice"
        await message.ack()


async def test_only_the_chosen_letters_go(channel: AbstractChannel, vhost_url: str) -> None:
    for n in range(250):  # more letters than are worked on at once
        await send(channel, "now.render.7", due(str(uuid.uuid4()), turn=n))
    await waits(channel, NAMES.dead, 250)
    found, _ = await letters.read(vhost_url, NAMES, every, 1000)
    [one, two] = [letter.id for letter in found[::125]]
    assert await letters.discard(vhost_url, NAMES, lambda letter: letter.id == one) == 1
    assert await letters.replay(vhost_url, TOPOLOGY, lambda letter: letter.id == two) == (1, [])
    left, count = await letters.read(vhost_url, NAMES, every, 1000)
    assert count == 248
    assert not {one, two} & {letter.id for letter in left}
    assert await letters.replay(vhost_url, TOPOLOGY, every) == (248, [])
    assert await letters.read(vhost_url, NAMES, every, 1000) == ([], 0)


async def test_without_the_topology_the_reason_is_told(vhost_url: str) -> None:
    with pytest.raises(BrokerUnavailable, match=r"cannot read progrock\.dead"):
        await letters.read(vhost_url, NAMES, every, 1)


async def test_the_command_lists_shows_replays_and_discards_letters(
    channel: AbstractChannel, vhost_url: str, tmp_path: Path
) -> None:
    async def manage(*args: str) -> tuple[int, str]:
        env = {"DEBUG": "1", "AMQP_URL": vhost_url, "PATH": ""}
        env["DATABASE_URL"] = f"sqlite:///{tmp_path / 'db.sqlite3'}"
        program = await asyncio.create_subprocess_exec(
            *MANAGE,
            *args,
            env=env,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        text, _ = await program.communicate()
        return program.returncode or 0, text.decode()

    async def command(*args: str) -> tuple[int, str]:
        return await manage("deadletters", *args)

    code, text = await command("replay", "--all")
    assert code == 1
    assert "the id of this installation cannot be read" in text
    assert (await manage("migrate", "--verbosity", "0"))[0] == 0
    await send(channel, "now.render.7", due(JOBS[1]))
    await send(channel, "now.render.9", b"\xffrubbish")
    await waits(channel, NAMES.dead, 2)
    code, text = await command()
    assert code == 0, text
    assert "2 in progrock.dead" in text
    line = next(line for line in text.splitlines() if JOBS[1][:8] in line)
    assert "no queue for now.render.7" in line
    wanted = line.split()[0]
    code, text = await command("show", wanted)
    assert code == 0
    assert f"jobs             {JOBS[1]}" in text
    assert '"turn":3' in text
    assert await command("replay") == (
        1,
        "CommandError: replay: found neither ids nor --all; wanted the ids of messages, or --all\n",
    )
    assert "replayed 1" in (await command("replay", wanted))[1]
    code, text = await command("replay", "--all")
    assert "stays: not JSON" in text
    assert "replayed 0" in text
    assert "discarded 1" in (await command("discard", "--all"))[1]
    assert "0 in progrock.dead" in (await command())[1]
    code, text = await command("show", wanted)
    assert code == 1
    assert "has no message with such an id" in text
