"""Everything that chaos runs and ruins: RabbitMQ, the database, the backend, web servers and workers, each a real process."""

import asyncio
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from deploy.demo.rabbitmq_node import Node, free_port
from tests.chaos.audit import Audit
from tests.chaos.gate import Gate
from tests.services import ROOT, Broker, Postgres, Stack, answers, http, vhost_of

BACKENDS = """
[{name}]
url = "{url}"
start = {{ path = "/tasks", repeat = {repeat} }}
poll = {{ path = "/tasks/{{handle}}" }}
{many}cancel = {{ path = "/tasks/{{handle}}" }}
handle = "id"
state = "status"
states = {{ running = ["running"], succeeded = ["done"], failed = ["failed"], cancelled = ["cancelled"] }}
progress = "percent"
message = "stage"
result = "output"
error = "error.message"
interval = {interval}
shards = {shards}
"""
MANY = 'poll_many = { path = "/tasks?ids={handles}", items = "tasks", id = "id" }\n'
#: name → (interval in seconds, many jobs in one request, may be started twice with one key, shards)
KINDS = {
    "quick": (0.5, True, True, 2),
    "render": (1.0, True, True, 2),
    "single": (2.0, False, True, 1),
    "once": (1.0, False, False, 1),
}


_claims: list[socket.socket] = []


def claimed_port() -> int:
    """A free TCP port that stays ours while what listens there is down: we hold the UDP port of that number."""
    while True:
        port = free_port()
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:  # another run of chaos has it
            claim.close()
        else:
            _claims.append(claim)
            return port


class Cluster:
    """The RabbitMQ under test: a private node, or brokers that run already and which `command` may stop and start."""

    def __init__(self, directory: Path, urls: list[str], command: str) -> None:
        self.node: Node | None = None
        self.command = shlex.split(command)
        if not urls:
            self.node = Node(
                directory / "rabbitmq",
                amqp_port=claimed_port(),
                management_port=claimed_port(),
                name="chaos",
            )
            urls = [self.node.amqp_url]
        if len(urls) > 1 and len(Broker.running_at(urls[0]).api("GET", "nodes")) < len(urls):
            urls = urls[:1]  # brokers of their own, and no cluster: the first will do
        self.urls = urls
        self.brokers = [Broker.running_at(url) for url in urls]
        if self.node:
            self.brokers = [Broker(self.node.amqp_url, self.node.management_url, self.node)]
        self.addresses = [
            (parts.hostname or "127.0.0.1", parts.port or 5672) for parts in map(urlsplit, urls)
        ]
        self.vhost_url = ""

    @property
    def spared(self) -> bool:
        """Whether nobody can end the broker itself."""
        return not (self.node or self.command)

    @property
    def version(self) -> str:
        """RabbitMQ's version, and how many nodes there are."""
        overview = self.any("GET", "overview")
        many = (
            f", {len(self.urls)} nodes" if len(self.urls) > 1 else ", private" if self.node else ""
        )
        return f"RabbitMQ {overview['rabbitmq_version']}{many}"

    def any(self, method: str, path: str, body: object = None) -> Any:
        """A request to the management API of whichever node answers."""
        for broker in self.brokers:
            with suppress(OSError):
                return broker.api(method, path, body)
        raise OSError("no node of RabbitMQ answers")

    def make_vhost(self) -> None:
        """The vhost again, after its node was replaced by an empty one."""
        vhost, user = vhost_of(self.vhost_url), urlsplit(self.vhost_url).username or "guest"
        self.any("PUT", f"vhosts/{vhost}", {})
        self.any(
            "PUT", f"permissions/{vhost}/{user}", {"configure": ".*", "write": ".*", "read": ".*"}
        )

    def queues(self) -> list[str]:
        """The poll queues and lanes that there are."""
        found = [queue["name"] for queue in self.any("GET", f"queues/{vhost_of(self.vhost_url)}")]
        return sorted(
            name for name in found if name.startswith(("progrock.poll.", "progrock.delay."))
        )

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it."""
        self.any("DELETE", f"queues/{vhost_of(self.vhost_url)}/{name}")

    def do(self, what: str, number: int) -> None:
        """`kill`, `stop` or `start` node `number` (from 1), and wait until that is done."""
        if self.node:
            {"kill": self.node.kill, "stop": self.node.stop, "start": self.node.start}[what]()
        else:
            done = subprocess.run(
                [*self.command, what, str(number)], capture_output=True, text=True, timeout=180
            )
            if done.returncode:
                raise RuntimeError(f"{what} of node {number} failed: {done.stdout}{done.stderr}")

    def pids(self) -> list[int]:
        """The processes of the private node."""
        return _family(self.node.process.pid) if self.node and self.node.process else []


class World(Stack):
    """All of ProgRock with two web servers, between a gate to RabbitMQ and a backend that remembers."""

    def __init__(
        self,
        directory: Path,
        cluster: Cluster,
        gate: Gate,
        postgres: Postgres | None,
        *,
        webs: int,
        workers: int,
    ) -> None:
        self.cluster, self.gate, self.postgres = cluster, gate, postgres
        self.journal = directory / "backend.journal"
        self.backend_port = claimed_port()
        self.webs = [claimed_port() for _ in range(webs)]
        super().__init__(
            directory,
            cluster.brokers[0],
            database_url=postgres.new_database() if postgres else "",
            backend_url=f"http://127.0.0.1:{self.backend_port}",
        )
        cluster.vhost_url = self.amqp_url
        login, _, _ = urlsplit(self.amqp_url).netloc.rpartition("@")
        gated = urlsplit(self.amqp_url)._replace(netloc=f"{login}@127.0.0.1:{gate.port}").geturl()
        own = directory / "backends.toml"
        own.write_text("".join(_table(name, self.env["DEMO_BACKEND_URL"]) for name in KINDS))
        self.env |= {
            "AMQP_URL": gated,
            "PROGROCK_BACKENDS": str(own),
            "PROGROCK_MAX_ACTIVE_JOBS": "1000",
        }
        self.audit = Audit(self.database_url)
        command = [sys.executable, "-m", "tests.chaos.backend", "--port", str(self.backend_port)]
        self._process("backend", [*command, "--journal", str(self.journal)])
        for number, port in enumerate(self.webs, 1):
            uvicorn = [
                sys.executable,
                "-m",
                "uvicorn",
                "config.asgi:application",
                "--port",
                str(port),
            ]
            options = [
                "--ws",
                "websockets-sansio",
                "--ws-max-size",
                "1048576",
                "--ws-per-message-deflate",
                "false",
            ]
            self._process(f"web{number}", [*uvicorn, *options])
        for number in range(1, workers + 1):
            self._process(f"worker{number}", [sys.executable, "manage.py", "runworker"])
        self.wanted: set[str] = set()  # the processes that nobody has ended on purpose
        self.fallen: list[str] = []  # those that ended by themselves

    def begin(self) -> None:
        """Start everything, with an empty ledger and its history."""
        self.manage("migrate", "--verbosity", "0")
        self.audit.install()
        self.manage("topology", "--declare")
        for name in self.processes:
            self.up(name)

    def up(self, name: str) -> None:
        """Start a process and wait until it serves; a worker, until it runs."""
        port = {"backend": self.backend_port} | {
            f"web{n}": port for n, port in enumerate(self.webs, 1)
        }
        page = "/tasks?ids=" if name == "backend" else "/healthz"
        url = f"http://127.0.0.1:{port[name]}{page}" if name in port else ""
        self.processes[name].start(lambda: not url or answers(url), timeout=60)
        self.wanted.add(name)

    def down(self, name: str, *, kill: bool) -> None:
        """SIGKILL, or SIGTERM and then patience."""
        self.wanted.discard(name)
        process = self.processes[name]
        process.kill() if kill else process.stop(40)

    def signal(self, name: str, number: signal.Signals) -> None:
        """SIGSTOP or SIGCONT for a process of ours and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, number)

    def watch(self) -> None:
        """Note what ended by itself, and start it again, as a supervisor would."""
        for name in sorted(self.wanted):
            if not self.processes[name].alive:
                self.fallen.append(name)
                self.processes[name].start()

    def misbehave(self, **rule: Any) -> None:
        """Make the backend answer badly; without a rule: well again."""
        url = f"http://127.0.0.1:{self.backend_port}/_test/behave"
        http("POST" if rule else "DELETE", url, rule or None)

    def database_pids(self) -> list[int]:
        """The processes of PostgreSQL."""
        return (
            _family(self.postgres.process.pid)
            if self.postgres and self.postgres.process.alive
            else []
        )

    def database_down(self, *, kill: bool) -> None:
        """End PostgreSQL: at once, or as `pg_ctl stop -m fast` does."""
        assert self.postgres
        process = self.postgres.process
        if kill:
            signal_all(self.database_pids(), signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGINT)
            assert process.popen
            with suppress(subprocess.TimeoutExpired):
                process.popen.wait(20)
        process.kill()

    def database_up(self) -> None:
        """Start PostgreSQL again on its data; the processes of a killed one may take a moment to go."""
        assert self.postgres
        until = time.monotonic() + 60
        while True:
            try:
                self.postgres.process.start(self.postgres._is_up)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def tracebacks(self) -> list[tuple[str, bool]]:
        """The last line of each traceback in the logs, with the process that wrote it, and whether code of ours is in it."""
        found = []
        for name, process in self.processes.items():
            inside = ours = False
            for line in process.output().splitlines():
                if line.lstrip(" |+-").startswith("Traceback"):
                    inside, ours = True, False
                elif inside and line and not line.startswith((" ", "|", "+")):
                    found.append((f"{name}: {line[:200]}", ours))
                    inside = False
                elif f'File "{ROOT}/' in line and "site-packages" not in line:
                    ours = True
        return found


def _table(name: str, url: str) -> str:
    interval, many, repeat, shards = KINDS[name]
    return BACKENDS.format(
        name=name,
        url=url,
        interval=interval,
        shards=shards,
        repeat=str(repeat).lower(),
        many=MANY if many else "",
    )


def _family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """One signal for several processes of ours."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def away(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call what blocks, in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)
