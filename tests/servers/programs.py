"""Flower, Scrapyd and pygeoapi as programs on loopback, each in a folder of its own.

They run in `.progrock/servers`, a virtual environment that `make test-servers` makes.
"""

import base64
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.error import HTTPError

from deploy.demo.rabbitmq_node import free_port
from tests.services import ROOT, Broker, Process, answers, http

BIN = ROOT / ".progrock" / "servers" / "bin"
FOLDERS = ("eggs_dir", "logs_dir", "items_dir", "dbs_dir")
JOBS = Path(__file__).parent / "jobs"


class Server:
    """A server that runs jobs. The job's one param, `choice`, says how it goes."""

    recipe: ClassVar[str]
    choice: ClassVar[str]
    #: The server's words for a job that is being worked on, and for one that was cancelled.
    at_work: ClassVar[str]
    stopped: ClassVar[str]
    #: What a job of each kind ends with: a part of the error, and the results.
    broken: ClassVar[str]
    fine: ClassVar[Any]
    large: ClassVar[Any]

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.folder, self.broker, self.port = folder, broker, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.processes: list[Process] = []

    @property
    def environment(self) -> dict[str, str]:
        """The variables of the recipe."""
        raise NotImplementedError

    def start(self) -> Self:
        """Start it and wait until it takes jobs."""
        raise NotImplementedError

    def state(self, handle: str) -> str:
        """The server's own word for where a job stands, asked past ProgRock."""
        raise NotImplementedError

    def stop(self) -> None:
        """End its programs, the last one first."""
        for process in reversed(self.processes):
            process.stop()

    def program(self, name: str, *args: str, **env: str) -> Process:
        """A program of the servers' environment, which ends with this server."""
        own = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PROGROCK_", "DJANGO_", "PYTHON"))
        }
        made = Process(
            f"{self.recipe}-{name}",
            [str(BIN / name), *args],
            log=self.folder / f"{name}-{len(self.processes)}.log",
            env=own | {"PYTHONPATH": str(JOBS), "PYTHONDONTWRITEBYTECODE": "1"} | env,
        )
        self.processes.append(made)
        return made


class Flower(Server):
    """Flower, and a Celery worker of two processes."""

    recipe, choice = "flower", "kind"
    at_work, stopped = "PROGRESS", "REVOKED"
    broken, fine, large = "these numbers do not add up", "x" * 10, "x" * 100_000
    login = "lab:flowers"

    @property
    def environment(self) -> dict[str, str]:
        basic = base64.b64encode(self.login.encode()).decode()
        return {"FLOWER_URL": self.url, "FLOWER_BASIC": basic}

    def start(self) -> Self:
        results = self.folder / "results"
        results.mkdir()
        self.vhost = self.broker.new_vhost("celery")
        env = {"LAB_BROKER": self.vhost, "LAB_RESULTS": f"file://{results}"}
        worker = self.program(
            "celery", "-A", "lab", "worker", "--concurrency=2", "--loglevel=INFO", **env
        )
        worker.start(lambda: "ready." in worker.output())
        options = ["--address=127.0.0.1", f"--port={self.port}", f"--basic_auth={self.login}"]
        flower = self.program("celery", "-A", "lab", "flower", *options, **env)
        flower.start(lambda: answers(f"{self.url}/healthcheck"))
        return self

    def state(self, handle: str) -> str:
        at = self.url.replace("//", f"//{self.login}@")
        return str(http("GET", f"{at}/api/task/result/{handle}")["state"])

    def stop(self) -> None:
        super().stop()
        self.broker.delete_vhost(self.vhost)


class Scrapyd(Server):
    """Scrapyd with one project, which came as an egg."""

    recipe, choice = "scrapyd", "category"
    at_work, stopped = "running", "finished"
    broken = "the crawl left no items; its log is /logs/shop/prices/"
    fine: ClassVar = [{"number": 0, "text": "x" * 10}]
    large: ClassVar = [{"number": number, "text": "x" * 1000} for number in range(100)]

    @property
    def environment(self) -> dict[str, str]:
        return {"SCRAPYD_URL": self.url, "SCRAPYD_PROJECT": "shop", "SCRAPYD_SPIDER": "prices"}

    def start(self) -> Self:
        options = {
            "bind_address": "127.0.0.1",
            "http_port": self.port,
            "poll_interval": 0.2,
            "jobs_to_keep": 100,
            **{name: self.folder / name for name in FOLDERS},
        }
        lines = "\n".join(f"{name} = {value}" for name, value in options.items())
        (self.folder / ".scrapyd.conf").write_text(f"[scrapyd]\n{lines}\n")
        egg = self.folder / "eggs_dir" / "shop" / "1.egg"
        egg.parent.mkdir(parents=True)
        with zipfile.ZipFile(egg, "w") as file:
            for path in (JOBS / "shop").glob("*.py"):
                file.write(path, f"shop/{path.name}")
            file.writestr("EGG-INFO/PKG-INFO", "Metadata-Version: 1.0\nName: shop\nVersion: 1\n")
            file.writestr("EGG-INFO/entry_points.txt", "[scrapy]\nsettings = shop.settings\n")
        # It reads the file in its user's home last, so that one counts.
        pid = f"--pidfile={self.folder / 'pid'}"
        scrapyd = self.program("scrapyd", pid, HOME=str(self.folder), PYTHONPATH="")
        scrapyd.start(lambda: answers(f"{self.url}/daemonstatus.json"))
        return self

    def state(self, handle: str) -> str:
        return str(http("GET", f"{self.url}/status.json?job={handle}")["currstate"])


class PyGeoApi(Server):
    """pygeoapi with one process, whose jobs a TinyDB keeps."""

    recipe, choice = "ogc_api_processes", "kind"
    at_work, stopped = "accepted", "404"
    broken = "the area has no edge"
    fine: ClassVar = {"points": "x" * 10}
    large: ClassVar = {"points": "x" * 100_000}

    @property
    def environment(self) -> dict[str, str]:
        return {"OGC_URL": self.url, "OGC_PROCESS": "survey"}

    def start(self) -> Self:
        config, openapi = self.folder / "config.json", self.folder / "openapi.yml"
        config.write_text(json.dumps(self._config()))
        env = {"PYGEOAPI_CONFIG": str(config), "PYGEOAPI_OPENAPI": str(openapi)}
        generate = [str(BIN / "pygeoapi"), "openapi", "generate", str(config)]
        generate += ["--output-file", str(openapi)]
        flask = self.program("flask", "--app", "pygeoapi.flask_app:APP", "run", **env)
        done = subprocess.run(
            generate, env=flask.env, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        # `pygeoapi serve` watches its files and starts itself again. Flask without that is calmer.
        flask.command += ["--host", "127.0.0.1", "--port", str(self.port)]
        flask.start(lambda: answers(f"{self.url}/processes"))
        return self

    def _config(self) -> dict[str, Any]:
        nobody = "none"
        return {
            "server": {
                "bind": {"host": "127.0.0.1", "port": self.port},
                "url": self.url,
                "mimetype": "application/json; charset=UTF-8",
                "encoding": "utf-8",
                "language": "en-US",
                "pretty_print": False,
                "limits": {"default_items": 10, "max_items": 10},
                "map": {"url": f"{self.url}/none/{{z}}/{{x}}/{{y}}.png", "attribution": nobody},
                "manager": {
                    "name": "TinyDB",
                    "connection": str(self.folder / "jobs.json"),
                    "output_dir": str(self.folder),
                },
            },
            "logging": {"level": "ERROR"},
            "metadata": {
                "identification": {
                    "title": "Survey",
                    "description": "A test",
                    "keywords": ["test"],
                    "keywords_type": "theme",
                    "terms_of_service": nobody,
                    "url": self.url,
                },
                "license": {"name": nobody, "url": self.url},
                "provider": {"name": nobody, "url": self.url},
                "contact": {"name": nobody, "url": self.url},
            },
            "resources": {"survey": {"type": "process", "processor": {"name": "survey.Survey"}}},
        }

    def state(self, handle: str) -> str:
        try:
            return str(http("GET", handle)["status"])
        except HTTPError as error:
            with error:
                return str(error.code)
