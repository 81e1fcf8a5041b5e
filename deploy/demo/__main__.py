"""Runs all of ProgRock in the foreground, on loopback, until Ctrl-C.

In the repository `make demo` runs it. Where the package was installed, `progrock demo` does.
"""

import asyncio
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from string import Template
from urllib.parse import urlsplit

try:
    import psutil
except ImportError:  # it only tells who holds a port
    psutil = None  # type: ignore[assignment, unused-ignore]

from deploy.demo.rabbitmq_node import installed
from deploy.demo.supervisor import NotUp, Program, Supervisor

ROOT = Path(__file__).resolve().parents[2]
PORTS = {
    "DEMO_WEB_PORT": 8000,
    "DEMO_BACKEND_PORT": 8090,
    "DEMO_AMQP_PORT": 5680,
    "DEMO_MANAGEMENT_PORT": 15680,
}
# Makes a superuser and prints its password; prints nothing if there is a superuser already.
SUPERUSER = """
from django.contrib.auth import get_user_model
users = get_user_model().objects
if not users.filter(is_superuser=True).exists():
    users.create_superuser("admin", "", "{password}")
    print("{password}")
"""


class Unusable(Exception):
    """Raised when the demo cannot run on this machine; the text says what to do."""


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of all programs: what is `given`, else the demo's defaults.

    Raises Unusable if a port is not a port.
    """
    env = {name: str(port) for name, port in PORTS.items()}
    env |= {"DEBUG": "1", "DEMO_DIRECTORY": str(ROOT / ".progrock")} | dict(given)
    for name, port in PORTS.items():
        if not env[name].isdecimal() or not 0 < int(env[name]) < 65536:
            raise Unusable(f"{name}={env[name]!r}: wanted a port, such as {port}")
    if not env.get("AMQP_URL"):
        env["AMQP_URL"] = f"amqp://guest:guest@127.0.0.1:{env['DEMO_AMQP_PORT']}/"
        env["PROGROCK_MANAGEMENT_URL"] = (
            f"http://guest:guest@127.0.0.1:{env['DEMO_MANAGEMENT_PORT']}"
        )
    defaults = {
        "DATABASE_URL": f"sqlite:///{env['DEMO_DIRECTORY']}/db.sqlite3",
        "DEMO_BACKEND_URL": f"http://127.0.0.1:{env['DEMO_BACKEND_PORT']}",
    }
    own = {"PROGROCK_DIRECTORY": env["DEMO_DIRECTORY"], "PYTHON": sys.executable}
    return defaults | env | own | {"PYTHONUNBUFFERED": "1"}


def programs(env: Mapping[str, str], *, private_rabbitmq: bool) -> Iterator[Program]:
    """The programs of processes.toml, in their order, with their variables filled in.

    Raises Unusable if a private RabbitMQ is wanted and neither RabbitMQ nor Docker is installed.
    """
    table = tomllib.loads(Path(__file__).with_name("processes.toml").read_text())
    if not private_rabbitmq:
        del table["rabbitmq"]
    elif not installed():
        if not shutil.which("docker"):
            raise Unusable(
                "neither RabbitMQ nor Docker is installed. Install one of them (Debian and Ubuntu:"
                " apt-get install rabbitmq-server), or name a RabbitMQ in AMQP_URL"
            )
        table["rabbitmq"]["command"] = table["rabbitmq"]["docker"]
    for kind, entry in table.items():
        for copy in range(1, entry.get("copies", 1) + 1):
            yield Program(
                name=f"{kind}.{copy}" if "copies" in entry else kind,
                command=[Template(word).substitute(env) for word in shlex.split(entry["command"])],
                ports={name: int(env[name]) for name in entry.get("ports", ())},
                once=entry.get("once", False),
            )


def check_ports(chosen: Iterable[Program]) -> None:
    """Raises Unusable if a port is taken. The text says by whom, if we can see that."""
    taken = []
    again = os.environ.get("DEMO_COMMAND", "make demo")
    for name, port in [pair for program in chosen for pair in program.ports.items()]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except PermissionError:
                taken.append(
                    f"this user may not use port {port}; "
                    f"to use another: {name}={PORTS[name]} {again}"
                )
            except OSError:
                taken.append(
                    f"port {port} is taken{_holder(port)}; "
                    f"to use another: {name}={port + 1} {again}"
                )
    if taken:
        raise Unusable("\n".join(taken))


def _holder(port: int) -> str:
    if psutil is None:
        return ""
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if (
                each.status == psutil.CONN_LISTEN
                and each.laddr
                and each.laddr.port == port
                and each.pid
            ):
                return f" by {psutil.Process(each.pid).name()} (process {each.pid})"
    return ""


def admin_login(env: Mapping[str, str]) -> str:
    """Make a superuser if there is none; returns what to type at the admin's login."""
    note = Path(env["DEMO_DIRECTORY"], "admin-password")
    script = SUPERUSER.format(password=secrets.token_urlsafe(9))
    command = [sys.executable, "manage.py", "shell", "--no-imports", "--command", script]
    password = subprocess.run(
        command, env=env, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    if password:
        note.touch(mode=0o600)
        note.write_text(password)
    return f"admin, password {note.read_text()}" if note.exists() else "your own superuser"


def addresses(env: Mapping[str, str], login: str) -> list[str]:
    """The lines that the demo prints when it is up."""
    page = f"http://127.0.0.1:{env['DEMO_WEB_PORT']}/"
    queues = urlsplit(env.get("PROGROCK_MANAGEMENT_URL", ""))
    return [
        "",
        f"The page   {page}",
        f"Admin      {page}admin/  ({login})",
        f"RabbitMQ   http://{queues.hostname}:{queues.port}/  "
        f"({queues.username}, password {queues.password})"
        if queues.hostname
        else "RabbitMQ   the one of AMQP_URL",
        f"Backend    {env['DEMO_BACKEND_URL']}/tasks",
        "Ctrl-C stops everything.",
        "",
    ]


async def run(env: dict[str, str], chosen: Iterable[Program]) -> None:
    """Run the programs until SIGINT, SIGTERM or SIGHUP. Raises NotUp."""
    supervisor, leave = Supervisor(ROOT, env), asyncio.Event()

    async def up() -> None:
        for program in chosen:
            await supervisor.start(program)
        login = await asyncio.to_thread(admin_login, env)
        for line in addresses(env, login):
            supervisor.say("demo", line)
        await leave.wait()

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A second signal only sets it again, so it does not disturb the stopping.
        asyncio.get_running_loop().add_signal_handler(each, leave.set)
    tasks = [asyncio.create_task(up()), asyncio.create_task(leave.wait())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not leave.is_set():
            tasks[0].result()
    finally:
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        await supervisor.stop()


def main() -> int:
    """Run the demo; returns the exit code."""
    try:
        env = environment(os.environ)
        chosen = list(programs(env, private_rabbitmq=not os.environ.get("AMQP_URL")))
        check_ports(chosen)
        Path(env["DEMO_DIRECTORY"]).mkdir(parents=True, exist_ok=True)
        asyncio.run(run(env, chosen))
    except (Unusable, NotUp) as error:
        print(f"demo: {error}", file=sys.stderr)  # noqa: T201  (this is a command)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
