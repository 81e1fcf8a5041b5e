"""`manage.py backend`: checks the backends' file, tries a backend, shows the recipes."""

import json
import os
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from django.core.management.base import CommandError, CommandParser

from progrock import conf
from progrock.backends import ConfigError, Options
from progrock.backends.config import load_each
from progrock.management import base
from progrock.trial.abilities import abilities, trouble
from progrock.trial.recipes import UnknownRecipe, recipe, recipes


class Command(base.Command):
    """For whoever writes the backends' file. Only `try` talks to a server: to the backend's."""

    help = "Checks the backends' file, tries a backend, shows the recipes."
    needs_rabbitmq = False
    requires_system_checks = ()  # because they stop at the first wrong table

    def add_arguments(self, parser: CommandParser) -> None:
        """The subcommands and what they take."""
        what = parser.add_subparsers(dest="what", required=True, metavar="check|try|recipes|…")
        check = what.add_parser(
            "check", help="says what each table can do, or what is wrong with it"
        )
        check.add_argument("file", nargs="?", help="a TOML file (default: PROGROCK_BACKENDS)")
        check.add_argument(
            "--build", action="store_true", help="a ${VARIABLE} that is not set is an error"
        )
        trial = what.add_parser(
            "try", help="starts a job at the backend and prints each request, answer and decision"
        )
        trial.add_argument("name", help="the name of a table")
        trial.add_argument(
            "--params", default="{}", help="the job's params, a JSON object (default: {})"
        )
        trial.add_argument("--file", help="a TOML file (default: PROGROCK_BACKENDS)")
        what.add_parser("recipes", help="lists the tables for known services")
        what.add_parser("recipe", help="prints one of these tables").add_argument("name")
        what.add_parser("schema", help="prints the JSON Schema of the file, for editors")

    def run(self, **options: Any) -> None:
        """Run the subcommand."""
        match options["what"]:
            case "check":
                self._check(_file(options["file"]), build=options["build"])
            case "try":
                self._try(_file(options["file"]), options["name"], _params(options["params"]))
            case "recipes":
                for each in recipes():
                    self.stdout.write(f"{each.name:28} {each.title}")
                    self.stdout.write(f"{'':28} {each.about}")
            case "recipe":
                try:
                    self.stdout.write(recipe(options["name"]))
                except UnknownRecipe as error:
                    raise CommandError(str(error)) from None
            case "schema":
                schema = files("progrock.backends") / "backends.schema.json"
                self.stdout.write(schema.read_text(encoding="utf-8"))

    def _check(self, file: str, *, build: bool) -> None:
        wrong = 0
        for name, options in load_each(file).items():
            try:
                if isinstance(options, ConfigError):
                    raise options
                more = trouble(options, os.environ, wanted=build)
            except ConfigError as error:
                wrong += 1
                self.stdout.write(self.style.ERROR(f"{name}: {error}"))
                continue
            self.stdout.write(f"{name}: ok: {abilities(options)}{more and f'; {more}'}")
        if wrong:
            raise CommandError(f"{wrong} table{'s' * (wrong > 1)} wrong in {file}", returncode=1)

    def _try(self, file: str, name: str, params: dict[str, Any]) -> None:
        from progrock.trial.run import try_backend  # it loads aiohttp, which the others do not need

        options = _chosen(load_each(file), name)
        try:
            works = try_backend(options, params, environ=os.environ, say=self._say)
        except KeyboardInterrupt:
            raise CommandError(
                "left at once; the job may run on at the backend", returncode=130
            ) from None
        if not works:
            raise CommandError("the trial failed, see above", returncode=1)

    def _say(self, line: str) -> None:
        """Print a line, in red if it tells of a failure. A pipe gets it at once, too."""
        failure = line.startswith("  !! ") or " FAILED: " in line
        self.stdout.write(self.style.ERROR(line) if failure else line)
        self.stdout.flush()


def _file(named: str | None) -> str:
    """The file that the command names, or else the settings. Raises CommandError."""
    if file := named or str(conf.setting("PROGROCK_BACKENDS") or ""):
        return file
    raise CommandError("PROGROCK_BACKENDS is not set: name a file, such as backends.toml")


def _params(text: str) -> dict[str, Any]:
    """The value of --params. Raises CommandError."""
    try:
        params = json.loads(text)
    except ValueError as error:
        raise CommandError(
            f'--params is not JSON: {error}; wanted an object such as {{"seconds": 3}}'
        ) from None
    if not isinstance(params, dict):
        raise CommandError(
            f'--params is a {type(params).__name__}; wanted a JSON object such as {{"seconds": 3}}'
        )
    return params


def _chosen(found: Mapping[str, Options | ConfigError], name: str) -> Options:
    """The backend of this name. Raises CommandError, and ConfigError where its table is wrong."""
    if name not in found:
        raise CommandError(f"there is no backend {name!r}; wanted one of: {', '.join(found)}")
    if isinstance(options := found[name], ConfigError):
        raise options
    return options
