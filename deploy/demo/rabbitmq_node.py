"""Runs a private RabbitMQ node on loopback, with its own data, ports, cookie and epmd."""

import argparse
import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

ADVANCED_CONFIG = Path(__file__).resolve().parents[1] / "rabbitmq" / "advanced.config"
# This comes first, because Debian's and Fedora's wrappers in /usr/sbin switch the user.
BIN = "/usr/lib/rabbitmq/bin"
PATH = os.pathsep.join(
    [BIN, "/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin", os.environ.get("PATH", "")]
)


class NodeFailed(Exception):
    """Raised when the node does not come up; the text has the end of its output."""


def installed() -> str | None:
    """The path of `rabbitmq-server`, or None if RabbitMQ is not installed."""
    return shutil.which("rabbitmq-server", path=PATH) if shutil.which("erl", path=PATH) else None


def free_port() -> int:
    """A TCP port that is free on loopback now, below the range that the kernel hands out."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Node:
    """One RabbitMQ node with the management plugin, user guest, password guest.

    All its files are in `directory`. No system service is touched.
    """

    def __init__(
        self,
        directory: Path,
        *,
        amqp_port: int,
        management_port: int,
        name: str = "progrock",
        conf: Sequence[str] = (),
    ) -> None:
        self.directory = directory.resolve()
        self.amqp_port, self.management_port, self.name, self.conf = (
            amqp_port,
            management_port,
            name,
            conf,
        )
        self.amqp_url = f"amqp://guest:guest@127.0.0.1:{amqp_port}/"
        self.management_url = f"http://guest:guest@127.0.0.1:{management_port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._env: dict[str, str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, timeout: float = 180) -> None:
        """Start the node and wait until AMQP and the management API answer, about 7 s.

        Raises NodeFailed if they do not within `timeout` seconds.
        """
        server, epmd = self._prepare()
        with (self.directory / "log" / "out.log").open("wb") as out:
            # epmd first, as our child, because one that the node starts by itself would outlive it
            self._epmd = subprocess.Popen(
                epmd, env=self._env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
            self.process = subprocess.Popen(
                server,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            self._wait_until_up(time.monotonic() + timeout)
        except BaseException:
            self.kill()
            raise

    def become(self) -> NoReturn:
        """Turn this process into the server, with epmd as a child in the same process group.

        Raises NodeFailed if RabbitMQ is not installed.
        """
        server, epmd = self._prepare()
        # setpriv (util-linux) ends epmd when the server ends, even if that is killed.
        tied = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        subprocess.Popen([*tied, *epmd], env=self._env, stdin=subprocess.DEVNULL)
        os.execve(server[0], server, self._env)

    def stop(self, timeout: float = 30) -> None:
        """End the node and its epmd; kill what has not ended after `timeout` seconds."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Kill the node, as a power cut would, and its epmd."""
        if self.process:
            with suppress(ProcessLookupError):  # it has ended already
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self._epmd:
            self._epmd.kill()
            self._epmd.wait()
        self.process = self._epmd = None

    def ctl(self, *args: str) -> str:
        """Run `rabbitmqctl` on the node; returns what it prints. Raises CalledProcessError."""
        ctl = shutil.which("rabbitmqctl", path=PATH) or "rabbitmqctl"
        return subprocess.run(
            [ctl, "-q", *args], env=self._env, check=True, capture_output=True, text=True
        ).stdout

    def wipe(self) -> None:
        """Delete the data of the stopped node."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _prepare(self) -> tuple[list[str], list[str]]:
        server, epmd = installed(), shutil.which("epmd", path=PATH)
        if not server or not epmd:
            raise NodeFailed(
                "RabbitMQ is not installed (on Debian: apt-get install rabbitmq-server)"
            )
        for folder in ("home", "data", "log", "generated"):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        raft = "raft.wal_max_size_bytes = 67108864"  # as in rabbitmq/rabbitmq.conf
        conf = (
            raft,
            "management.tcp.ip = 127.0.0.1",
            f"management.tcp.port = {self.management_port}",
            *self.conf,
            "",
        )
        (self.directory / "rabbitmq.conf").write_text("\n".join(conf))
        (self.directory / "enabled_plugins").write_text("[rabbitmq_management].\n")
        self._env = {
            "PATH": PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.directory / "home"),  # where Erlang keeps the cookie
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "none"),
            "RABBITMQ_NODENAME": f"{self.name}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.amqp_port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(ADVANCED_CONFIG),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(self.directory / "generated"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
        }
        return [server], [epmd]

    def _wait_until_up(self, until: float) -> None:
        while not self._is_up():
            if self.process is None or self.process.poll() is not None or time.monotonic() > until:
                end = (
                    (self.directory / "log" / "out.log")
                    .read_text(errors="replace")
                    .strip()
                    .splitlines()[-15:]
                )
                raise NodeFailed(
                    "\n  ".join([f"RabbitMQ in {self.directory} did not come up", *end])
                )
            time.sleep(0.1)

    def _is_up(self) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self.management_port}/api/vhosts")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with (
                opener.open(request, timeout=2),
                socket.create_connection(("127.0.0.1", self.amqp_port), timeout=2),
            ):
                return True
        except OSError:
            return False


def main() -> None:
    """Prepare a node, start its epmd and become its server. To end this process ends the node."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo.rabbitmq_node", description=__doc__
    )
    parser.add_argument(
        "--directory", type=Path, required=True, help="the folder for all files of the node"
    )
    parser.add_argument("--amqp-port", type=int, required=True)
    parser.add_argument("--management-port", type=int, required=True)
    options = parser.parse_args()
    node = Node(
        options.directory, amqp_port=options.amqp_port, management_port=options.management_port
    )
    try:
        node.become()
    except NodeFailed as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
