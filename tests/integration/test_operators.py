"""What operators do with the topology of a real RabbitMQ: verify, prune, depths and rights."""

import asyncio
from urllib.parse import quote, urlsplit

import pytest

from progrock.broker.address import vhost_of
from progrock.broker.connection import connect, shut
from progrock.broker.errors import BrokerUnavailable, PublishFailed
from progrock.broker.mark import claim
from progrock.broker.names import NAMES, Names
from progrock.broker.operate.definitions import definitions
from progrock.broker.operate.management import depths, verify
from progrock.broker.operate.prune import prune
from progrock.broker.publisher import Publisher
from progrock.broker.tasks import shard_of
from progrock.broker.topology import Topology, declare
from tests.amqp import (
    QUEUE,
    TOPOLOGY,
    NewLayer,
    dead_messages,
    publish_tasks,
    raw_publish,
    running,
    take,
    tasks,
    up,
)
from tests.services import PATIENCE, Broker

# aiormq (6.9) leaves the socket of a connection that was lost to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning"),
    pytest.mark.usefixtures("unhurried"),
]


async def test_verify_says_found_wanted_and_left_over(rabbitmq: Broker, vhost_url: str) -> None:
    vhost, api = vhost_of(vhost_url), rabbitmq.management_url
    before = await verify(api, vhost, TOPOLOGY)
    assert "queue progrock.poll.render.0: wanted, not found" in before
    assert "exchange progrock.poll: wanted, not found" in before
    await declare(vhost_url, TOPOLOGY)
    assert await verify(api, vhost, TOPOLOGY) == []
    await declare(vhost_url, TOPOLOGY)  # again: nothing to do
    rabbitmq.api("DELETE", f"queues/{vhost}/{QUEUE}")
    wrong = {
        "durable": True,
        "arguments": {"x-queue-type": "quorum", "x-delivery-limit": 5, "x-max-length": 9},
    }
    rabbitmq.api("PUT", f"queues/{vhost}/{QUEUE}", wrong)
    found = await verify(api, vhost, Topology({"render": 2}))
    assert f"queue {QUEUE}: found x-delivery-limit 5, wanted 1000" in found
    assert f"queue {QUEUE}: found x-max-length 9, wanted (not set)" in found
    assert f"queue {QUEUE}: found x-dead-letter-exchange (not set), wanted progrock.dead" in found
    assert f"binding progrock.poll --*.render.0--> {QUEUE}: wanted, not found" in found
    assert [line for line in found if "left over" in line] == [
        "queue progrock.poll.report.0: left over, no backend of yours uses it"
        " (--prune drains it first)"
    ]
    with pytest.raises(BrokerUnavailable, match="verify"):
        await declare(vhost_url, TOPOLOGY)


async def test_prune_moves_tasks_to_where_they_belong_now(rabbitmq: Broker, vhost_url: str) -> None:
    await declare(vhost_url, Topology({"render": 4, "old": 1}))
    publisher = Publisher(vhost_url, "test")
    some = tasks(60)
    for task in some:
        await publisher.publish("render", shard_of(task.job_id, 4), [task], delay=0)
    await publisher.publish("old", 0, tasks(3), delay=0)
    await raw_publish(vhost_url, NAMES.poll_queue("render", 3), b"broken")
    await publisher.close()
    now = Topology({"render": 2})
    done = await prune(vhost_url, rabbitmq.management_url, now)
    assert len(done) == 3
    assert all("removed" in each for each in done)
    assert await verify(rabbitmq.management_url, vhost_of(vhost_url), now) == []
    assert len(await dead_messages(vhost_url, 2)) == 2
    async with running(vhost_url, now.poll_queues, declared=False) as (_, subscriber):
        for shard in range(2):
            belongs = {task.job_id for task in some if shard_of(task.job_id, 2) == shard}
            while belongs:
                for delivery in await take(subscriber, NAMES.poll_queue("render", shard)):
                    belongs -= {task.job_id for task in delivery.tasks}
                    assert {shard_of(task.job_id, 2) for task in delivery.tasks} == {shard}
                    await delivery.ack()


async def test_prune_keeps_what_somebody_consumes(rabbitmq: Broker, vhost_url: str) -> None:
    async with running(vhost_url, [NAMES.poll_queue("report", 0)]):
        [kept] = await prune(vhost_url, rabbitmq.management_url, Topology({"render": 2}))
        assert kept.startswith("queue progrock.poll.report.0: kept, because it has 1 consumers")


async def test_depths_name_every_queue(rabbitmq: Broker, vhost_url: str) -> None:
    await declare(vhost_url, TOPOLOGY)
    found = await depths(rabbitmq.management_url, vhost_of(vhost_url), NAMES)
    assert set(found) == {queue.name for queue in TOPOLOGY.queues}


async def test_the_management_api_says_what_is_wrong(rabbitmq: Broker) -> None:
    with pytest.raises(BrokerUnavailable, match="knows no virtual host 'nowhere'"):
        await verify(rabbitmq.management_url, "nowhere", TOPOLOGY)
    with pytest.raises(BrokerUnavailable, match="refused the login"):
        await verify(rabbitmq.management_url.replace("guest:guest", "guest:wrong"), "/", TOPOLOGY)
    with pytest.raises(BrokerUnavailable, match="management API at 127"):
        await verify("http://guest:guest@127.0.0.1:1", "/", TOPOLOGY)


async def test_a_password_may_have_any_letters(rabbitmq: Broker, vhost_url: str) -> None:
    vhost, name, password = vhost_of(vhost_url), f"é-{vhost_of(vhost_url)}", "пароль:/@#é"
    rabbitmq.api("PUT", f"users/{quote(name)}", {"password": password, "tags": "management"})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    rabbitmq.api("PUT", f"permissions/{vhost}/{quote(name)}", rights)
    try:
        login = f"{quote(name, safe='')}:{quote(password, safe='')}"
        place = urlsplit(vhost_url).netloc.rpartition("@")[2]
        url = f"amqp://{login}@{place}/{vhost}"
        await declare(url, TOPOLOGY)
        await asyncio.to_thread(publish_tasks, url, "render", 0, tasks())
        api = rabbitmq.management_url.replace("guest:guest", login)
        assert await verify(api, vhost, TOPOLOGY) == []
    finally:
        rabbitmq.api("DELETE", f"users/{quote(name)}")


async def test_a_wrong_virtual_host_is_told_in_a_sentence(rabbitmq: Broker) -> None:
    url = urlsplit(rabbitmq.url)._replace(path="/nowhere").geturl()
    with pytest.raises(BrokerUnavailable, match=r"cannot connect to RabbitMQ at .*nowhere"):
        await declare(url, TOPOLOGY)
    with pytest.raises(BrokerUnavailable, match=r"cannot connect to RabbitMQ at .*nowhere"):
        await asyncio.to_thread(publish_tasks, url, "render", 0, tasks())


async def test_web_and_worker_work_with_the_rights_of_the_definitions(
    rabbitmq: Broker, vhost_url: str, new_layer: NewLayer
) -> None:
    """With the generated file imported, everything works, and nothing more is allowed."""
    vhost = vhost_of(vhost_url)
    made = definitions(TOPOLOGY, {"web": "w p:/@", "worker": "b"}, vhost=vhost)
    names = {user: f"{user}-{vhost}" for user in ("web", "worker")}
    for each in (*made["users"], *made["permissions"]):
        key = "name" if "name" in each else "user"
        each[key] = names[each[key]]
    rabbitmq.api("POST", "definitions", made)
    try:
        assert await verify(rabbitmq.management_url, vhost, TOPOLOGY) == []
        parts = urlsplit(vhost_url)

        def as_user(user: str, password: str) -> str:
            place = parts.netloc.rpartition("@")[2]
            return parts._replace(
                netloc=f"{quote(names[user])}:{quote(password, safe='')}@{place}"
            ).geturl()

        web_url, worker_url = as_user("web", "w p:/@"), as_user("worker", "b")
        web, worker = await up(new_layer(web_url)), await up(new_layer(worker_url))
        channel = await web.new_channel()
        await web.group_add("feed", channel)
        assert await worker.group_send("feed", {"type": "x"})
        assert await asyncio.wait_for(web.receive(channel), PATIENCE) == {"type": "x"}
        await asyncio.to_thread(publish_tasks, web_url, "render", 0, tasks())
        async with running(worker_url, declared=False) as (publisher, subscriber):
            await (await take(subscriber))[0].ack()
            await publisher.publish("render", 1, tasks(), delay=0.1)
            await (await take(subscriber, NAMES.poll_queue("render", 1)))[0].ack()
            await publisher.dead_letter(b"x", "a test", {})
        mine, theirs = (Names(installation=lambda key=key: key) for key in ("mine", "theirs"))
        connection = await connect(worker_url, "test")
        try:
            for may_declare in (False, True):
                assert await claim(connection, mine, declare=may_declare) == ""
            assert await declare(vhost_url, Topology(TOPOLOGY.backends, mine)) == ""
            for may_declare in (False, True):  # the worker may not, whatever it tries
                assert await claim(connection, mine, declare=may_declare) == ""
                told = await claim(connection, theirs, declare=may_declare)
                assert told.startswith("another installation")
        finally:
            await shut(connection)
        for url in (web_url, worker_url):
            with pytest.raises(BrokerUnavailable, match="declare"):
                await declare(url, Topology({"more": 1}))
        with pytest.raises(PublishFailed):
            await asyncio.to_thread(publish_tasks, web_url, "render", 0, tasks(), delay=1.0)
    finally:
        for name in names.values():
            rabbitmq.api("DELETE", f"users/{quote(name)}")
