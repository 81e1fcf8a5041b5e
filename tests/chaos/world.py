"""All that chaos runs and breaks, each as a real process.

That is RabbitMQ, the database, the backend, web servers and workers.
"""

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
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psutil

from deploy.demo.rabbitmq_node import Node, free_port
from tests.chaos.audit import Audit
from tests.chaos.clients import Rewound
from tests.chaos.gate import Gate
from tests.chaos.receivers import FILE, hang_of
from tests.services import (
    DEMO_ANSWERS,
    MANAGE,
    ROOT,
    Broker,
    Postgres,
    Stack,
    answers,
    http,
    vhost_of,
    web_command,
)

BACKENDS = """
[{name}]
url = "{url}"
start = {{ path = "/tasks", headers = {{ Idempotency-Key = "{{job}}" }}, repeat = {repeat} }}
browser = true
poll = {{ path = "/tasks/{{handle}}" }}
{many}cancel = {{ path = "/tasks/{{handle}}" }}
{answers}progress = "percent"
message = "stage"
result = "output"
error = "error.message"
interval = {interval}
shards = {shards}
{lease}"""
MANY = 'poll_many = { path = "/tasks?ids={handles}", items = "tasks", id = "id" }\n'
#: What ProgRock takes where no lease is given, at intervals up to 2.5 seconds.
USUAL_LEASE = 16.0


class Kind(NamedTuple):
    """A backend: seconds between polls, whether one request asks for many jobs, whether a start may
    be repeated, its shards, and the lease in seconds, None for the usual one.
    """

    interval: float
    many: bool
    repeat: bool
    shards: int
    lease: float | None = None


#: The backends by name. Those with a lease of their own have the shortest that there is.
KINDS = {
    "quick": Kind(0.5, many=True, repeat=True, shards=2, lease=2.0),
    "render": Kind(1.0, many=True, repeat=True, shards=2),
    "single": Kind(2.0, many=False, repeat=True, shards=1),
    "once": Kind(1.0, many=False, repeat=False, shards=1, lease=4.0),
}


_claims: list[socket.socket] = []


def claimed_port() -> int:
    """A free TCP port that no other run of chaos takes while nobody listens there.

    The sign for that is the UDP port of the same number, which we hold.
    """
    while True:
        port = free_port()
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
        except OSError:  # Another run of chaos has it.
            claim.close()
        else:
            _claims.append(claim)
            return port


class Cluster:
    """The RabbitMQ under test: a private node, or the nodes at `urls`, which run already.

    `command`, if there is one, can stop and start the latter.
    """

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
            urls = urls[:1]  # They are no cluster, so the first one must do.
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
        """Whether nothing here can end RabbitMQ itself."""
        return not (self.node or self.command)

    @property
    def version(self) -> str:
        """RabbitMQ's version and number of nodes, as a text."""
        overview = self.any("GET", "overview")
        many = f", {len(self.urls)} nodes" if len(self.urls) > 1 else ""
        many = ", private" if self.node else many
        return f"RabbitMQ {overview['rabbitmq_version']}{many}"

    def any(self, method: str, path: str, body: object = None) -> Any:
        """A request to the management API of the first node that answers."""
        for broker in self.brokers:
            with suppress(OSError):
                return broker.api(method, path, body)
        raise OSError("no node of RabbitMQ answers")

    def make_vhost(self) -> None:
        """Make the vhost again, after its node was replaced by an empty one."""
        self.brokers[0].make_vhost(vhost_of(self.vhost_url))

    def queues(self) -> list[str]:
        """The names of the poll queues and lanes."""
        found = [queue["name"] for queue in self.any("GET", f"queues/{vhost_of(self.vhost_url)}")]
        ours = ("progrock.poll.", "progrock.delay.")  # and not those of another installation
        return sorted(name for name in found if name.startswith(ours))

    def delete_queue(self, name: str) -> None:
        """Delete a queue with all that is in it."""
        self.any("DELETE", f"queues/{vhost_of(self.vhost_url)}/{name}")

    def do(self, what: str, number: int) -> None:
        """`kill`, `stop` or `start` node `number` (from 1); return when that is done."""
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
    """All of ProgRock, with several web servers.

    It reaches RabbitMQ and PostgreSQL through gates, and its backend keeps a journal.
    """

    def __init__(
        self,
        directory: Path,
        cluster: Cluster,
        gate: Gate,
        postgres: Postgres | None,
        database_gate: Gate | None,
        *,
        webs: int,
        workers: int,
    ) -> None:
        self.cluster, self.gate, self.postgres = cluster, gate, postgres
        self.database_gate = database_gate
        self.standby: Postgres | None = None
        self.rewound: list[Rewound] = []  # when the database lost its last commits
        self.unserved: list[str] = []  # the storms that not all browsers outlived
        self.neighbour: Stack | None = None
        self.neighbour_jobs: set[str] = set()
        self.signals = directory / "signals"
        self.hang = hang_of(self.signals)
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
            "PROGROCK_MAX_STARTS_AN_HOUR": "0",
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            FILE: str(self.signals),
        }
        if postgres and database_gate:
            database_gate.nodes = [("127.0.0.1", postgres.port)]
            parts = urlsplit(self.database_url)
            login, _, _ = parts.netloc.rpartition("@")
            gated = parts._replace(netloc=f"{login}@127.0.0.1:{database_gate.port}")
            self.env["DATABASE_URL"] = gated.geturl()
        self.audit = Audit(self.database_url)
        command = [sys.executable, "-m", "tests.chaos.backend", "--port", str(self.backend_port)]
        self.add("backend", [*command, "--journal", str(self.journal)])
        for number, port in enumerate(self.webs, 1):
            self.add(f"web{number}", web_command(port))
        for number in range(1, workers + 1):
            self.add(f"worker{number}", [*MANAGE, "runworker"])
        self.wanted: set[str] = set()  # The processes that no fault has ended on purpose.
        self.fallen: list[str] = []  # Those that ended by themselves.

    def begin(self) -> None:
        """Start all processes on an empty ledger."""
        self.prepare()
        self.audit.install()
        for name in self.processes:
            self.up(name)

    def up(self, name: str, *, ahead: float = 0.0) -> None:
        """Start a process; return when it answers requests, or at once if it is a worker.

        With `ahead`, its clock is wrong by so many seconds, also when it is started again later.
        """
        if ahead:
            paths = [str(Path(__file__).parent / "shifted"), self.env.get("PYTHONPATH", "")]
            path = os.pathsep.join(filter(None, paths))
            self.processes[name].env = self.env | {"CHAOS_AHEAD": str(ahead), "PYTHONPATH": path}
        port = {f"web{n}": port for n, port in enumerate(self.webs, 1)}
        port["backend"] = self.backend_port
        page = "/tasks?ids=" if name == "backend" else "/healthz"
        url = f"http://127.0.0.1:{port[name]}{page}" if name in port else ""
        self.processes[name].start(lambda: not url or answers(url), timeout=60)
        self.wanted.add(name)

    def down(self, name: str, *, kill: bool) -> None:
        """End a process by SIGKILL; or by SIGTERM, with 40 s to finish."""
        self.wanted.discard(name)
        process = self.processes[name]
        process.kill() if kill else process.stop(40)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send SIGSTOP or SIGCONT to a process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.processes[name].pid, number)

    def watch(self) -> None:
        """Note which processes ended by themselves, and start them again."""
        for name in sorted(self.wanted):
            if not self.processes[name].alive:
                self.fallen.append(name)
                self.processes[name].start()

    def misbehave(self, **rule: Any) -> None:
        """Make the backend answer badly by a rule; without one, as it should."""
        url = f"http://127.0.0.1:{self.backend_port}/_test/behave"
        http("POST" if rule else "DELETE", url, rule or None)

    def database_pids(self) -> list[int]:
        """The processes of PostgreSQL."""
        up = self.postgres and self.postgres.process.alive
        return _family(self.postgres.process.pid) if self.postgres and up else []

    def database_down(self, *, kill: bool) -> None:
        """End PostgreSQL: kill it, or stop it as `pg_ctl stop -m fast` does."""
        assert self.postgres
        if kill:
            signal_all(self.database_pids(), signal.SIGKILL)
            self.postgres.process.kill()
        else:
            self.postgres.shut_down()

    def database_up(self) -> None:
        """Start PostgreSQL again on its data.

        That may fail for a moment, until all processes of a killed server have gone.
        """
        assert self.postgres
        until = time.monotonic() + 60
        while True:
            try:
                self.postgres.restart()
            except RuntimeError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return

    def fail_over(self, behind: float) -> None:
        """Make the standby the primary, and the primary its standby; the name stays for now.

        The first time, the standby is made. It has all that was committed; or it lacks the last
        `behind` seconds, if that is more than 0.
        """
        assert self.postgres
        old = self.postgres
        new = self.standby or old.standby()
        self.standby, since = new, time.time()
        if behind:
            new.shut_down()
            time.sleep(behind)
        else:
            old.wait_for_standby()  # a server that shuts down waits only for one that follows it
        old.shut_down()
        if behind:
            new.restart()
        new.promote()
        if behind:
            self.rewound.append(Rewound(since, time.time()))
        self.postgres, self.standby = new, old
        self.database_url = new.url(urlsplit(self.database_url).path[1:])
        self.audit = Audit(self.database_url)
        old.follow(new)

    def move_the_name(self) -> None:
        """Lead new connections to the new primary; open ones stay where they are."""
        assert self.postgres
        assert self.database_gate
        self.database_gate.nodes = [("127.0.0.1", self.postgres.port)]

    def let_the_neighbour_start(self, count: int) -> None:
        """Start jobs of another installation on the same vhost, which the first time is made."""
        if self.neighbour is None:
            directory = self.directory / "neighbour"
            env = {
                "AMQP_URL": self.env["AMQP_URL"],
                "PROGROCK_PREFIX": "neighbour",
                "PROGROCK_BACKENDS": self.env["PROGROCK_BACKENDS"],
            }
            self.neighbour = Stack(
                directory, self.broker, backend_url=self.env["DEMO_BACKEND_URL"], env=env
            )
            self.neighbour.prepare()
            self.neighbour.start_worker()
        code = (
            "import progrock\n"
            f"for _ in range({count}):\n"
            "    print(progrock.start('quick', {'seconds': 5}, audience='all').pk)"
        )
        self.neighbour_jobs |= set(self.neighbour.shell(code).split())

    def neighbours_lost(self) -> list[str]:
        """The jobs of the other installation that have not succeeded, with what they are."""
        if self.neighbour is None:
            return []
        found = {each.id: each.state for each in Audit(self.neighbour.database_url).entries()}
        states = {job_id: found.get(job_id, "missing") for job_id in sorted(self.neighbour_jobs)}
        return [f"{job_id}: {state}" for job_id, state in states.items() if state != "succeeded"]

    def stop(self) -> None:
        """End every process, those of the other installation too, and delete the vhost."""
        if self.neighbour:
            self.neighbour.stop()
        super().stop()
        if self.standby:
            self.standby.stop()

    def tracebacks(self) -> list[tuple[str, bool]]:
        """The last line of each traceback in the logs, and whether it runs through our code.

        The name of the process that logged it stands before the line.
        """
        found = []
        processes = list(self.processes.items())
        if self.neighbour:
            processes += [(f"neighbour's {n}", p) for n, p in self.neighbour.processes.items()]
        for name, process in processes:
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
    kind = KINDS[name]
    return BACKENDS.format(
        name=name,
        url=url,
        interval=kind.interval,
        shards=kind.shards,
        repeat=str(kind.repeat).lower(),
        many=MANY if kind.many else "",
        answers=DEMO_ANSWERS,
        lease="" if kind.lease is None else f"lease = {kind.lease}\n",
    )


def _family(pid: int) -> list[int]:
    """A process and all its descendants."""
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    """Send one signal to several processes."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def away(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function that blocks, in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)
