"""Decides who may do what in RabbitMQ, and writes its definitions file."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from progrock.broker.names import Names
from progrock.broker.topology import Topology

_EVERYTHING = (".*", ".*", ".*")


def _rights(names: Names) -> dict[str, tuple[str, str, str]]:
    """The least rights (configure, write, read), as regular expressions over names."""
    ours = rf"^{re.escape(names.prefix)}\."
    return {
        "web": (
            rf"{ours}web\..*",
            rf"{ours}(poll|groups|web\..*)$",
            rf"{ours}(groups|web\..*)$",
        ),
        "worker": (
            r"^$",
            rf"{ours}(poll|delay|dead|groups|installation(\..*)?)$",
            rf"{ours}poll\..*",
        ),
    }


def definitions(
    topology: Topology, passwords: Mapping[str, str], vhost: str = "/"
) -> dict[str, Any]:
    """RabbitMQ's definitions file (`load_definitions`): the topology, and a user for each password.

    `passwords` maps a user's name to its password. The users `web` and `worker` get no more rights
    than they need and may configure nothing but their own queues. A user of any other name is an
    operator with all rights.
    """
    durable = {"vhost": vhost, "durable": True, "auto_delete": False}
    least = _rights(topology.names)
    rights = {user: least.get(user, _EVERYTHING) for user in passwords}
    return {
        "users": [
            {
                "name": user,
                "password_hash": _password_hash(user, password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": [] if user in least else ["administrator"],
            }
            for user, password in passwords.items()
        ],
        "vhosts": [{"name": vhost}],
        "permissions": [
            {"user": user, "vhost": vhost, "configure": configure, "write": write, "read": read}
            for user, (configure, write, read) in rights.items()
        ],
        "exchanges": [
            {
                "name": each.name,
                **durable,
                "type": each.type,
                "internal": False,
                "arguments": dict(each.arguments),
            }
            for each in topology.exchanges
        ],
        "queues": [
            {"name": each.name, **durable, "arguments": dict(each.arguments)}
            for each in topology.queues
        ],
        "bindings": [
            {
                "source": each.exchange,
                "vhost": vhost,
                "destination": each.queue,
                "destination_type": "queue",
                "routing_key": each.key,
                "arguments": {},
            }
            for each in topology.bindings
        ],
    }


def _password_hash(user: str, password: str) -> str:
    """RabbitMQ's salted SHA-256 (https://www.rabbitmq.com/docs/passwords).

    The salt comes from the input, so that the same passwords give the same file.
    """
    salt = hashlib.sha256(f"progrock {user} {password}".encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
