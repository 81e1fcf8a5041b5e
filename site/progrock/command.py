"""The console command `progrock demo`, which runs all of ProgRock on this machine to try it out."""

import argparse
import importlib.util
import os
import sys
from pathlib import Path

#: The modules that the demo needs beside ProgRock itself. The extra `standalone` installs them.
NEEDED = ("csp", "dj_database_url", "servestatic", "uvicorn", "uvloop", "websockets")
#: The demo's programs: inside the installed package, or at the top of the repository.
INSTALLED = Path(__file__).with_name("_standalone")
REPOSITORY = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code. It does not return once the demo begins."""
    parser = argparse.ArgumentParser(prog="progrock", description="Runs ProgRock by itself.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="run everything on this machine until Ctrl-C: RabbitMQ, a backend, workers, the page",
        description="Runs RabbitMQ, a backend, two workers and the page on this machine until"
        " Ctrl-C. RabbitMQ is the one of AMQP_URL, or the installed one, or Docker's.",
    )
    demo.add_argument(
        "--directory",
        type=Path,
        default=Path(os.environ.get("DEMO_DIRECTORY") or ".progrock"),
        help="where the demo keeps its files (default: .progrock in the present folder)",
    )
    return run_demo(parser.parse_args(arguments).directory.resolve())


def run_demo(directory: Path) -> int:
    """Replace this process with the demo, which keeps its files in `directory`.

    Returns 1 where packages are missing, and otherwise does not return.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(  # noqa: T201  (this is a command)
            f"progrock demo: {', '.join(missing)} cannot be imported; install what the demo needs:"
            " pip install 'django-progrock[standalone]'",
            file=sys.stderr,
        )
        return 1
    home = INSTALLED if INSTALLED.is_dir() else REPOSITORY
    paths = [str(home), str(home / "site"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "DEMO_DIRECTORY": str(directory),
        "DEMO_COMMAND": "progrock demo",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    return os.execve(sys.executable, [sys.executable, "-m", "deploy.demo"], environment)
