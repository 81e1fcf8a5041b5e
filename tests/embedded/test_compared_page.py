"""Runs ProgRock's half of docs/compared.md as it stands there: the bar moves in Chromium."""

import os
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path

from playwright.async_api import Page, expect

from deploy.demo.rabbitmq_node import free_port
from tests.browser.conftest import chromium, new_page  # noqa: F401  (fixtures: the same browser)
from tests.embedded.conftest import UV
from tests.services import ROOT, Process, answers

BLOCK = re.compile(r'^```\w+ title="([^"\n]+)"\n(.*?)^```$', re.M | re.S)
#: Both halves of the page need it alike, so it does not count the lines.
SQLITE = """
DATABASES["default"]["OPTIONS"] = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
}
"""


def blocks(page: str) -> dict[str, str]:
    """The titled blocks of a text, by their titles."""
    return dict(BLOCK.findall(page))


def write(folder: Path, *, rabbitmq: str, service: int) -> None:
    """Write ProgRock's half of the page into a project that `startproject` has made."""
    ours, _, _ = (ROOT / "docs/compared.md").read_text().partition("## With Celery")
    for title, text in blocks(ours).items():
        name, _, at_the_end = title.partition(",")
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        text = text.replace("amqp://guest:guest@127.0.0.1:5672/", rabbitmq)
        text = text.replace(":8090", f":{service}").replace('"seconds": 5', '"seconds": 2')
        path.write_text(path.read_text() + text if at_the_end else text)
    settings = folder / "mysite/settings.py"
    settings.write_text(settings.read_text() + SQLITE)
    embed = blocks((ROOT / "docs/embed.md").read_text())
    (folder / "render_service.py").write_text(embed["render_service.py"])


async def test_the_first_bar_moves_with_the_lines_of_the_page(
    python: Path,
    vhost_url: str,
    tmp_path: Path,
    new_page: object,  # noqa: F811
) -> None:
    lock = ROOT / "requirements-dev.txt"
    command = [*UV, "pip", "install", "--python", python, "-c", lock, "daphne"]
    subprocess.run(command, check=True)
    service, port = free_port(), free_port()
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = inherited | {"RENDER_PORT": str(service), "PYTHONDONTWRITEBYTECODE": "1"}
    manage = ["env", "-C", str(tmp_path), str(python), "manage.py"]

    def run(*command: str) -> None:
        subprocess.run(command, check=True, env=env, capture_output=True)

    run("env", "-C", str(tmp_path), str(python), "-m", "django", "startproject", "mysite", ".")
    run(*manage, "startapp", "films")
    write(tmp_path, rabbitmq=vhost_url, service=service)
    run(*manage, "migrate")
    url = f"http://127.0.0.1:{port}/"
    servers = {
        "service": [str(python), str(tmp_path / "render_service.py")],
        "worker": [*manage, "runworker"],
        "web": [*manage, "runserver", "--noreload", str(port)],
    }
    with ExitStack() as running:
        for name, command in servers.items():
            process = Process(name, command, log=tmp_path / f"{name}.log", env=env)
            running.callback(process.stop)
            process.start(lambda name=name: name != "web" or answers(f"{url}jobs/healthz"))
        page: Page = await new_page()  # type: ignore[operator]
        await page.goto(url)
        job = page.locator("job-progress")
        await expect(job).to_contain_text(re.compile(r"\b[1-9]\d? %"))
        await expect(job).to_have_attribute("state", "succeeded")
        await expect(job).to_contain_text("100 %")
