"""A project with its own users, settings and packages installs the bare wheel and runs a job.

Its packages `jobs`, `broker`, `consumers` and `config` are called like ours, and its environment
has none of the extras.
"""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from deploy.demo.rabbitmq_node import free_port
from tests.services import PATIENCE, DemoBackend, Process, answers

HOST = Path(__file__).parent / "host"
WHOSE = "from importlib.util import find_spec; print(find_spec('{0}').origin)"
PEOPLE = """
from people.models import Person
for name, team in [("ann", "blue"), ("bob", "blue"), ("eve", "red")]:
    Person.objects.create_user(name, password="pw", team=team)
"""


def whose(python: Path, name: str, env: dict[str, str]) -> Path:
    """The file of a package, as the host's Python finds it."""
    command = [python, "-c", WHOSE.format(name)]
    done = subprocess.run(command, env=env, cwd=HOST, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def environment(folder: Path, *, rabbitmq: str, press: str) -> dict[str, str]:
    """The environment of the host project."""
    inherited = {
        k: v for k, v in os.environ.items() if not k.startswith(("PROGROCK_", "DJANGO_", "PYTHON"))
    }
    return inherited | {
        "HOST_DATABASE": str(folder / "host.sqlite3"),
        "HOST_RABBITMQ": rabbitmq,
        "PRESS_URL": press,
        "PYTHONPATH": str(HOST),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def host(
    bare_python: Path, vhost_url: str, demo_backend: DemoBackend, tmp_path: Path
) -> Iterator[tuple[str, dict[str, str], Path]]:
    """The host project, running: its address, its environment, its Python."""
    env = environment(tmp_path, rabbitmq=vhost_url, press=demo_backend.url)
    for name in ("config", "jobs", "broker", "consumers"):
        assert whose(bare_python, name, env).is_relative_to(HOST)
    for name in ("progrock", "progrock.broker", "progrock.consumers"):
        assert "site-packages" in whose(bare_python, name, env).parts
    manage = [str(bare_python), str(HOST / "manage.py")]
    for command in (
        ["check"],
        ["makemigrations", "--check", "--dry-run", "progrock"],
        ["migrate", "--run-syncdb", "-v0"],
    ):
        subprocess.run([*manage, *command], check=True, env=env, cwd=HOST)
    subprocess.run([*manage, "shell", "-c", PEOPLE], check=True, env=env, cwd=HOST)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    uvicorn = [str(bare_python), "-m", "uvicorn", "config.asgi:application", "--port", str(port)]
    uvicorn += ["--ws", "websockets-sansio"]
    # In its own folder, because Python would find the packages of our checkout first.
    here = ["env", "-C", str(HOST)]
    web = Process("host-web", [*here, *uvicorn], log=tmp_path / "web.log", env=env)
    worker = Process(
        "host-worker", [*here, *manage, "runworker"], log=tmp_path / "worker.log", env=env
    )
    try:
        web.start(lambda: answers(f"{url}/progress/healthz"))
        worker.start()
        yield url, env, bare_python
        assert worker.stop() == 0, worker.output()
    finally:
        worker.stop()
        web.stop()


def test_the_hosts_own_tests_need_no_rabbitmq(bare_python: Path, tmp_path: Path) -> None:
    """By pytest, where the fixture is there by itself, and by Django's own runner."""
    nothing = "127.0.0.1:1"
    env = environment(tmp_path, rabbitmq=f"amqp://{nothing}/", press=f"http://{nothing}")
    for command, told in (
        (["-m", "pytest", "-p", "no:cacheprovider"], "2 passed"),
        (["manage.py", "test", "jobs"], "\nOK"),
    ):
        done = subprocess.run(
            [bare_python, *command], env=env, cwd=HOST, capture_output=True, text=True, check=False
        )
        assert told in done.stdout + done.stderr, done.stdout + done.stderr


async def test_a_teams_job_runs_in_the_hosts_own_page(
    host: tuple[str, dict[str, str], Path],
) -> None:
    url, env, python = host
    async with (
        signed_in(url, "ann") as ann,
        signed_in(url, "bob") as bob,
        signed_in(url, "eve") as eve,
    ):
        async with (
            bob.ws_connect(f"{url}/prog/") as socket,
            eve.ws_connect(f"{url}/prog/") as other,
        ):
            assert json.loads((await socket.receive()).data)["type"] == "snapshot"
            assert json.loads((await other.receive()).data)["type"] == "snapshot"
            async with ann.get(f"{url}/printing/") as answer:
                page = await answer.text()
            assert "Printed by broker 7.1 of the print shop" in page
            script = re.search(r'<script type="module" src="([^"]+)"', page)
            assert script, page
            async with ann.get(f"{url}{script[1]}") as answer:
                assert (answer.status, answer.content_type) == (200, "text/javascript")
            job = re.search(r'<job-progress[^>]*job="([0-9a-f-]{36})"', page)
            assert job, page
            async with asyncio.timeout(PATIENCE):
                while not (frame := json.loads((await socket.receive()).data)).get("complete"):
                    pass
            assert (frame["job"], frame["state"]) == (job[1], "succeeded")
            await other.send_json({"action": "cancel", "job": job[1]})
            async with asyncio.timeout(PATIENCE):
                while (answered := json.loads((await other.receive()).data))["type"] != "error":
                    assert answered["type"] in ("status", "beat"), "another team is shown nothing"
            assert answered["code"] == "unknown_job"
        async with eve.get(f"{url}/progress/jobs/{job[1]}") as answer:
            assert answer.status == 404
    log = (Path(env["HOST_DATABASE"]).parent / "worker.log").read_text()
    assert "this worker consumes 1 queues: press.0" in log, "the host has no LOGGING"
    assert f"job started, job={job[1]} backend=press" in log
    see = "from jobs.models import Job; print(Job.objects.get().outcome)"
    told = [python, HOST / "manage.py", "shell", "-v0", "-c", see]

    def outcome() -> str:
        done = subprocess.run(told, env=env, cwd=HOST, check=True, capture_output=True, text=True)
        return done.stdout

    async with asyncio.timeout(PATIENCE):  # the signal is sent after the push
        while "succeeded for the readers" not in await asyncio.to_thread(outcome):
            pass


class signed_in:
    """An HTTP session of a user of the host."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name

    async def __aenter__(self) -> aiohttp.ClientSession:
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        login = f"{self.url}/progress/login/?next=/progress/"
        async with self.session.get(login) as page:
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', await page.text())
        assert token
        data = {"username": self.name, "password": "pw", "csrfmiddlewaretoken": token[1]}
        async with self.session.post(login, data=data, allow_redirects=False) as answer:
            assert answer.status == 302
        return self.session

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
