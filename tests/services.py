"""The real services of the tests: RabbitMQ, PostgreSQL, the demo backend, and all of ProgRock."""

import asyncio
import base64
import itertools
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from deploy.demo.rabbitmq_node import Node, free_port
from progrock.backends import load
from progrock.broker.names import Names
from progrock.broker.topology import Topology, declare
from tests.reading import dashed, rows

#: Seconds that a test waits for what must come, because a busy machine or disk may pause for long.
PATIENCE = 60.0
ROOT = Path(__file__).resolve().parents[1]
MANAGE = [sys.executable, str(ROOT / "manage.py")]
#: How to read the demo backend's answers, for a table of backends.toml.
DEMO_ANSWERS = """handle = "id"
state = "status"
states.running = ["running"]
states.succeeded = ["done"]
states.failed = ["failed"]
states.cancelled = ["cancelled"]
"""
#: The file of a SQLite database with all tables, and nothing else, once a stack has made one.
_migrated: list[bytes] = []
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http(method: str, url: str, body: object = None, *, timeout: float = PATIENCE / 2) -> Any:
    """Send one HTTP request with a JSON body; returns the JSON of the answer, or its text.

    The URL may hold a user and a password. Raises HTTPError for an error status.
    """
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(
        parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl(),
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    if parts.username:
        login = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
    with _opener.open(request, timeout=timeout) as answer:
        text = answer.read()
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def answers(url: str) -> bool:
    """Whether an address answers, with anything but a server error."""
    try:
        http("GET", url, timeout=2)
    except urllib.error.HTTPError as error:
        with error:
            return error.code < 500
    except OSError:
        return False
    return True


class Process:
    """A program whose output goes into a file; it is ended together with all its children."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.name, self.command, self.log = name, list(command), log
        self.env, self.options = env, options
        self.popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the running program."""
        assert self.popen, f"{self.name} was not started"
        return self.popen.pid

    @property
    def alive(self) -> bool:
        """Whether the program runs now."""
        return self.popen is not None and self.popen.poll() is None

    def start(
        self, ready: Callable[[], bool] = lambda: True, *, timeout: float = 2 * PATIENCE
    ) -> Self:
        """Start the program and wait until `ready()`; an end before that raises with its output."""
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                **self.options,
            )
        until = time.monotonic() + timeout
        while not ready():
            if not self.alive or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.name} did not come up:\n{self.output()[-4000:]}")
            time.sleep(0.05)
        return self

    def stop(self, timeout: float = PATIENCE) -> int | None:
        """SIGTERM, then SIGKILL after `timeout` seconds; returns the exit code."""
        if self.popen and self.alive:
            self.popen.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout)
        return self.kill()

    def kill(self) -> int | None:
        """SIGKILL for the program and its children; returns the exit code."""
        if self.popen is None:
            return None
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        return self.popen.wait()

    def output(self) -> str:
        """What it wrote so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Broker:
    """A RabbitMQ for the tests: a private node (then `node` is set), or one that runs already."""

    def __init__(self, url: str, management_url: str, node: Node | None = None) -> None:
        self.url, self.management_url, self.node = url, management_url, node
        self._user = urllib.parse.unquote(urllib.parse.urlsplit(url).username or "guest")

    @classmethod
    def running_at(cls, url: str) -> Self:
        """The broker at an AMQP address; its management API is at the AMQP port + 10000."""
        parts = urllib.parse.urlsplit(url)
        credentials = parts.netloc.rpartition("@")[0] or "guest:guest"
        return cls(url, f"http://{credentials}@{parts.hostname}:{(parts.port or 5672) + 10000}")

    def api(self, method: str, path: str, body: object = None) -> Any:
        """A request to the management API, such as `api("GET", "queues/myvhost")`."""
        return http(method, f"{self.management_url}/api/{path}", body)

    def new_vhost(self, name: str = "") -> str:
        """Make a vhost with a name of its own; returns its AMQP address."""
        vhost = f"{name or 'test'}-{secrets.token_hex(4)}"
        self.make_vhost(vhost)
        return urllib.parse.urlsplit(self.url)._replace(path=f"/{vhost}").geturl()

    def make_vhost(self, vhost: str) -> None:
        """Make a vhost, in which our user may do everything."""
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        self.api("PUT", f"vhosts/{vhost}", {})
        self.api("PUT", f"permissions/{vhost}/{self._user}", rights)

    def delete_vhost(self, url: str) -> None:
        """Delete the vhost of an address that `new_vhost` gave, with all that is in it."""
        self.api("DELETE", f"vhosts/{vhost_of(url)}")

    def queues(self, url: str) -> dict[str, dict[str, Any]]:
        """The queues of a vhost by name, from the management API: counts are up to 5 s old."""
        return {queue["name"]: queue for queue in self.api("GET", f"queues/{vhost_of(url)}")}

    def close_connections(self, url: str) -> int:
        """Close every connection into a vhost, as an operator would; returns their number."""
        found = self.api("GET", f"vhosts/{vhost_of(url)}/connections")
        for connection in found:
            with suppress(urllib.error.HTTPError):
                self.api("DELETE", "connections/" + urllib.parse.quote(connection["name"], safe=""))
        return len(found)


@contextmanager
def private_broker(directory: Path, name: str = "progrock") -> Iterator[Broker]:
    """A RabbitMQ of one's own, which may be stopped and wiped; at the end it is thrown away."""
    node = Node(directory, amqp_port=free_port(), management_port=free_port(), name=name)
    with throwaway(node) as broker:
        yield broker


@contextmanager
def throwaway(node: Node) -> Iterator[Broker]:
    """Start a node; at the end kill it, because its data is not wanted any more, and delete it."""
    node.start()
    try:
        yield Broker(node.amqp_url, node.management_url, node)
    finally:
        node.kill()
        node.wipe()


def vhost_of(url: str) -> str:
    """The vhost in an AMQP address, as it stands in a path of the management API."""
    return urllib.parse.urlsplit(url).path[1:] or "%2F"


class Postgres:
    """A private PostgreSQL cluster on loopback; an unprivileged user runs it, as it demands.

    By default it is fast and may lose commits when it is killed. `synchronous`: what it has
    acknowledged outlives a kill. `durable`: its own defaults, which outlive a power cut too.
    """

    def __init__(self, *, durable: bool = False, synchronous: bool = False) -> None:
        self.port = free_port()
        self._options = {"durable": durable, "synchronous": synchronous}  # a standby has the same
        self.directory = Path(tempfile.mkdtemp(prefix="progrock-postgres-"))
        users = ("postgres", "nobody") if os.geteuid() == 0 else ()
        #: Who runs it, where that is not the user who runs the tests.
        self.user = next((name for name in users if _exists(name)), None)
        self._as: dict[str, Any] = {}
        if self.user:
            shutil.chown(self.directory, self.user)
            self._as = {"user": self.user, "extra_groups": []}
        command = [self._binary("postgres"), "-D", "data", "-p", str(self.port)]
        command += ["-h", "127.0.0.1", "-k", ""]
        command += ["-c", "wal_keep_size=256MB"]  # so that a standby may be away for a while
        if not durable:
            command += ["-c", "fsync=off", "-c", "full_page_writes=off"]
            command += ["-c", f"synchronous_commit={'on' if synchronous else 'off'}"]
        # The cluster's folder is its working directory, because its user may not enter ours.
        command = ["env", "-C", str(self.directory), *command]
        self.process = Process("postgres", command, log=self.directory / "log", **self._as)

    @staticmethod
    def _binary(name: str) -> str:
        """The path of a server's program; Debian has a folder a version, outside the PATH."""
        found = sorted(
            Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4])
        )
        return str(found[-1]) if found else shutil.which(name) or ""

    @classmethod
    def installed(cls) -> bool:
        """Whether a PostgreSQL server is on this machine."""
        return bool(cls._binary("postgres"))

    def start(self) -> Self:
        """Make the cluster and start it; about 2 s."""
        initdb = [self._binary("initdb"), "-D", "data", "-U", "postgres", "-A", "trust"]
        initdb += ["-E", "UTF8", "--no-sync"]
        subprocess.run(initdb, cwd=self.directory, check=True, capture_output=True, **self._as)
        return self.restart()

    def restart(self) -> Self:
        """Start the server on the data that it has, after it was stopped or killed."""
        self.process.start(self._is_up)
        return self

    def standby(self) -> "Postgres":
        """Make a hot standby of this server, which follows it by streaming, and start it."""
        other = type(self)(**self._options)
        try:
            return other.follow(self)
        except BaseException:
            other.stop()
            raise

    def follow(self, primary: "Postgres") -> Self:
        """Throw the data away, and become a hot standby of `primary` on the port as before."""
        self.process.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        copy = [self._binary("pg_basebackup"), "-D", "data", "-R", "-X", "stream", "--no-sync"]
        copy += ["--checkpoint=fast", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
        subprocess.run(copy, cwd=self.directory, check=True, capture_output=True, **self._as)
        return self.restart()

    def wait_for_standby(self) -> None:
        """Return when a standby gets all that is committed here, as it happens."""
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        until = time.monotonic() + PATIENCE
        with psycopg.connect(self.url(), autocommit=True) as connection:
            while connection.execute(streaming).fetchone() == (0,):
                if time.monotonic() > until:
                    raise RuntimeError("no standby follows the server")
                time.sleep(0.1)

    def promote(self) -> None:
        """Make this standby a primary; return when it takes writes."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SELECT pg_promote(true, 60)")

    def read_only(self, on: bool) -> None:
        """Refuse all writes, in open sessions too; or take them again."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            name = "default_transaction_read_only"
            change = f"SET {name} = on" if on else f"RESET {name}"
            # The type wants a literal, against injection; these are ours.
            connection.execute(f"ALTER SYSTEM {change}")  # type: ignore[arg-type, unused-ignore]
            connection.execute("SELECT pg_reload_conf()")

    def shut_down(self, timeout: float = 20) -> None:
        """Stop as `pg_ctl stop -m fast` does: a standby that follows gets all before the end."""
        if self.process.popen and self.process.alive:
            os.kill(self.process.pid, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                self.process.popen.wait(timeout)
        self.process.kill()

    def stop(self) -> None:
        """End the cluster and delete it."""
        self.process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """The address of a database, in dj-database-url's form."""
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database with a name of its own; returns its address."""
        name = f"test_{secrets.token_hex(4)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            # The type wants a literal, against injection; this name is ours.
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type, unused-ignore]
        return self.url(name)

    def _is_up(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that a test may stop or kill, and what it has acknowledged is still there."""
    cluster = Postgres(synchronous=True)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


def _exists(user: str) -> bool:
    import pwd  # there is none on Windows

    with suppress(KeyError):
        return bool(pwd.getpwnam(user))
    return False


class DemoBackend:
    """The demo backend as a program, with its hooks for tests under `/_test/`."""

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "deploy.demo_backend", "--port", str(self.port), "--test"]
        self.process = Process("demo-backend", command, log=directory / "demo-backend.log")

    def start(self) -> Self:
        """Start it and wait until it answers."""
        self.process.start(lambda: answers(f"{self.url}/tasks?ids=none"))
        return self

    def seen(self, stack: "Stack", job_id: str) -> dict[str, Any]:
        """What it saw of a job: polls, overlaps of polls, times, cancels."""
        found: dict[str, Any] = http("GET", f"{self.url}/_test/tasks/{stack.handles()[job_id]}")
        return found

    def finish(self, handles: Iterable[str]) -> None:
        """Have these tasks done from now on."""
        for handle in handles:
            http("POST", f"{self.url}/_test/tasks/{handle}", {"status": "done", "percent": 100})

    async def until_polled(self, stack: "Stack", count: int, more: int = 2) -> dict[str, str]:
        """Wait until so many jobs were polled so often from now on; returns all handles by job id.

        Jobs that have no handle yet count from their start.
        """

        def polls(handles: Iterable[str]) -> dict[str, int]:
            return {
                handle: http("GET", f"{self.url}/_test/tasks/{handle}")["polls"]
                for handle in handles
            }

        before = polls(stack.handles().values())
        async with asyncio.timeout(2 * PATIENCE):
            while True:
                handles = stack.handles()
                now = polls(handles.values())
                if sum(seen >= before.get(each, 0) + more for each, seen in now.items()) >= count:
                    return handles
                await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End it; its jobs are forgotten."""
        self.process.stop()


def web_command(port: int) -> list[str]:
    """The command of a web server on loopback, with the options that the documentation names."""
    command = [sys.executable, "-m", "uvicorn", "config.asgi:application", "--port", str(port)]
    command += ["--ws", "websockets-sansio", "--ws-max-size", "1048576"]
    return [*command, "--ws-per-message-deflate", "false"]


class Stack:
    """All of ProgRock with a vhost and a database of its own: a web server and workers.

    As a context manager it stops at the end.
    """

    def __init__(
        self,
        directory: Path,
        broker: Broker,
        *,
        database_url: str = "",
        backend_url: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory, self.broker = directory, broker
        self.directory.mkdir(parents=True, exist_ok=True)
        self.amqp_url = broker.new_vhost(directory.name)
        self.management_url = broker.management_url
        self.database_url = database_url or f"sqlite:///{directory / 'db.sqlite3'}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ws_url = f"ws://127.0.0.1:{self.port}/prog/"
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PROGROCK_", "DJANGO_"))
        }
        self.env = inherited | {
            "AMQP_URL": self.amqp_url,
            "DATABASE_URL": self.database_url,
            "PROGROCK_MANAGEMENT_URL": self.management_url,
            "PROGROCK_BACKENDS": str(ROOT / "deploy" / "backends.toml"),
            "DEMO_BACKEND_URL": backend_url,
            "DEBUG": "1",
            "SECRET_KEY": "only-for-tests",
            "PYTHONUNBUFFERED": "1",
            **(env or {}),
        }
        self.processes: dict[str, Process] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def manage(
        self, *args: str, check: bool = True, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py in this stack's environment."""
        return self.run([*MANAGE, *args], check=check, timeout=timeout)

    def run(
        self, command: Sequence[str], *, check: bool = True, timeout: float = 180
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this stack's environment; with `check`, a failure raises its output."""
        done = subprocess.run(
            command,
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            said = f"{done.stdout}{done.stderr}"
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
        return done

    def shell(self, code: str) -> str:
        """Run Python code in `manage.py shell`; returns what it printed."""
        return self.manage("shell", "--verbosity", "0", "-c", code).stdout.strip()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query, read without ProgRock."""
        return rows(self.database_url, sql)

    def handles(self) -> dict[str, str]:
        """The handles by job id, by which backends know the jobs; of those that have one."""
        found = self.rows("SELECT id, handle FROM progrock_job WHERE handle <> ''")
        return {dashed(key): str(handle) for key, handle in found}

    @property
    def vhost(self) -> str:
        """The name of this stack's vhost."""
        return vhost_of(self.amqp_url)

    def prepare(self) -> None:
        """Make the tables of the database, and the queues of RabbitMQ."""
        self.migrate()
        [(key,)] = self.rows("SELECT key FROM progrock_installation")
        names = Names(self.env.get("PROGROCK_PREFIX", "progrock"), lambda: key)
        backends = load(Path(self.env["PROGROCK_BACKENDS"]))
        wanted = Topology({name: each.shards for name, each in backends.items()}, names)
        with ThreadPoolExecutor(1) as thread:  # a loop may be running in ours
            thread.submit(asyncio.run, declare(self.env["AMQP_URL"], wanted)).result()

    def migrate(self) -> None:
        """Make the tables of the database.

        Of the stacks with our own settings and SQLite only the first one in a process migrates. The
        others get a copy of its file, in which only the id is their own, because each is another
        installation.
        """
        sqlite = self.database_url.startswith("sqlite:///")
        usual = sqlite and "DJANGO_SETTINGS_MODULE" not in self.env
        file = Path(self.database_url.removeprefix("sqlite:///"))
        if usual and _migrated:
            file.write_bytes(_migrated[0])
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("UPDATE progrock_installation SET key = ?", (uuid.uuid4().hex,))
            return
        self.manage("migrate", "--verbosity", "0")
        if usual:
            _migrated.append(file.read_bytes())

    def start_web(self) -> Process:
        """Start the web server, on the same port each time, and wait for /healthz."""
        # A test does not read all its sockets all the time, and aiohttp answers pings only then.
        web = self.add("web", [*web_command(self.port), "--ws-ping-timeout", "600"])
        return web.start(lambda: answers(f"{self.url}/healthz"))

    def stop_web(self) -> int | None:
        """SIGTERM for the web server, as a deployment does; returns its exit code."""
        return self.processes["web"].stop()

    def start_worker(
        self,
        *queues: str,
        env: Mapping[str, str] | None = None,
        hasty: Mapping[str, float] | None = None,
    ) -> Process:
        """Start one more `runworker`; they are named worker1, worker2 … as they are started.

        `hasty` has times that are shorter than the product's, such as `tests.hasty.SWEEPS`.
        """
        command = [*MANAGE, "runworker", *queues]
        if hasty:
            command = [sys.executable, "-m", "tests.hasty", *queues]
            env = {"HASTY": json.dumps(dict(hasty)), **(env or {})}
        return self.add(f"worker{next(self._numbers)}", command, env).start()

    def workers(self) -> list[Process]:
        """The workers that run now."""
        return [
            each
            for name, each in self.processes.items()
            if name.startswith("worker") and each.alive
        ]

    def stop_worker(self, worker: Process | None = None) -> int | None:
        """SIGTERM for a worker (the oldest that runs); returns its exit code."""
        return (worker or self.workers()[0]).stop()

    def kill_worker(self, worker: Process | None = None) -> int | None:
        """SIGKILL for a worker (the oldest that runs)."""
        return (worker or self.workers()[0]).kill()

    def logs(self, name: str = "") -> str:
        """What one process wrote so far, or all of them."""
        chosen = [self.processes[name]] if name else self.processes.values()
        return "\n".join(f"--- {each.name}\n{each.output()}" for each in chosen)

    def stop(self) -> None:
        """End every process and delete the vhost."""
        for each in self.processes.values():
            if each.popen and each.alive:
                each.popen.terminate()
        for each in self.processes.values():
            each.stop()
        with suppress(OSError):  # the broker may be down: some tests do that
            self.broker.delete_vhost(self.amqp_url)

    def add(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Process:
        """Add a process that ends with this stack; returns it, not yet started."""
        self.processes[name] = Process(
            name, command, log=self.directory / f"{name}.log", env=self.env | (env or {})
        )
        return self.processes[name]
