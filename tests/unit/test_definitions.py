"""RabbitMQ's definitions file: least rights, and hashes in place of passwords."""

import base64
import hashlib
import re
from typing import Any

from progrock.broker.names import NAMES
from progrock.broker.operate.definitions import definitions
from progrock.broker.topology import Topology

TOPOLOGY = Topology({"render": 2, "long-report_2": 1})


def allowed(made: dict[str, Any], user: str, what: str, name: str) -> bool:
    pattern = next(each[what] for each in made["permissions"] if each["user"] == user)
    return re.search(pattern, name) is not None


def test_web_and_worker_may_do_what_they_do_and_no_more() -> None:
    made = definitions(TOPOLOGY, {"web": "a", "worker": "b"})
    assert [user["tags"] for user in made["users"]] == [[], []]
    web, worker = "progrock.web.host.17.abc", "progrock.poll.render.0"
    for user, what, name in [
        *(("web", what, web) for what in ("configure", "write", "read")),
        *(("web", "write", name) for name in (NAMES.poll, "progrock.groups")),
        ("web", "read", "progrock.groups"),
        *(
            ("worker", "write", name)
            for name in (NAMES.poll, NAMES.delay, "progrock.dead", "progrock.groups")
        ),
        ("worker", "read", worker),
    ]:
        assert allowed(made, user, what, name), (user, what, name)
    everything = [each.name for each in (*TOPOLOGY.exchanges, *TOPOLOGY.queues)]
    for name in everything:
        assert not allowed(made, "web", "configure", name)
        assert not allowed(made, "worker", "configure", name)
        assert not allowed(made, "web", "read", name) or name == "progrock.groups"
    assert not allowed(made, "web", "write", NAMES.delay)
    assert not allowed(made, "worker", "read", "progrock.delay.04-1s")
    assert not allowed(made, "worker", "write", worker)
    assert not allowed(made, "worker", "write", "amq.default")


def test_definitions_hold_hashes_and_never_a_password() -> None:
    made = definitions(
        TOPOLOGY, {"web": "correct horse", "worker": "b", "operator": "c"}, vhost="render farm"
    )
    assert "correct horse" not in str(made)
    raw = base64.b64decode(made["users"][0]["password_hash"])
    assert raw[4:] == hashlib.sha256(raw[:4] + b"correct horse").digest()
    assert made["users"][2]["tags"] == ["administrator"]
    assert {each["vhost"] for each in made["queues"]} == {"render farm"}
    assert made == definitions(
        TOPOLOGY, {"web": "correct horse", "worker": "b", "operator": "c"}, vhost="render farm"
    )
