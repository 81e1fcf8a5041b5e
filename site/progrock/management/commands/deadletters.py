"""`manage.py deadletters`: list, show, replay and discard what could not be handled."""

import asyncio
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from progrock import conf
from progrock.backends import ConfigError
from progrock.broker import dead
from progrock.broker.dead import Letter
from progrock.broker.errors import BrokerError
from progrock.broker.topology import DEAD, Topology

MOST = 100


class Command(BaseCommand):
    """The operator's hand on the dead queue; letters are named by the id that `list` shows, or by its beginning."""

    help = f"Lists the messages in {DEAD} with their reasons; shows, replays or discards them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.set_defaults(do="list", most=MOST)
        actions = parser.add_subparsers(dest="do", metavar="ACTION")
        listing = actions.add_parser(
            "list", help="one line a letter (the default); nothing is removed"
        )
        listing.add_argument(
            "--most", type=int, default=MOST, help=f"lines at most (default {MOST})"
        )
        show = actions.add_parser("show", help="all of some letters: reason, headers, body")
        show.add_argument("ids", nargs="+", metavar="ID")
        for do, what in (
            ("replay", "send the tasks to where they belong now; what cannot be read stays"),
            ("discard", "delete letters"),
        ):
            action = actions.add_parser(do, help=what)
            action.add_argument("ids", nargs="*", metavar="ID")
            action.add_argument("--all", action="store_true", help="every letter")

    def handle(self, *args: Any, **options: Any) -> None:
        url, do = conf.amqp_url(), options["do"] or "list"
        ids, every = tuple(options.get("ids") or ()), options.get("all", False)
        if do in ("replay", "discard") and bool(ids) == every:
            raise CommandError(f"{do} what? Wanted the ids of letters, or --all")

        def chosen(letter: Letter) -> bool:
            return every or letter.id.startswith(ids)

        try:
            if do == "list":
                self._list(*asyncio.run(dead.read(url, lambda _: True, options["most"])))
            elif do == "show":
                self._show(asyncio.run(dead.read(url, chosen, MOST))[0])
            elif do == "replay":
                topology = Topology(
                    {name: backend.shards for name, backend in conf.backends().items()}
                )
                count, stay = asyncio.run(dead.replay(url, topology, chosen))
                self.stdout.write("\n".join([*stay, f"replayed {count}"]))
            else:
                self.stdout.write(f"discarded {asyncio.run(dead.discard(url, chosen))}")
        except (BrokerError, ConfigError) as error:
            raise CommandError(str(error)) from None

    def _list(self, letters: list[Letter], count: int) -> None:
        self.stdout.write(
            f"{count} in {DEAD}" + (f", the first {len(letters)}:" if len(letters) < count else "")
        )
        for letter in letters:
            when = f"{letter.time:%Y-%m-%d %H:%M:%S}" if letter.time else "-"
            jobs = " ".join(job[:8] for job in letter.jobs[:3]) + (
                " …" if len(letter.jobs) > 3 else ""
            )
            self.stdout.write(
                f"{letter.id}  {when:19}  {letter.queue}  {letter.key}  {jobs or '-'}  {letter.reason[:100]}"
            )

    def _show(self, letters: list[Letter]) -> None:
        if not letters:
            raise CommandError(f"no such letter in {DEAD}; `manage.py deadletters` lists them")
        for letter in letters:
            for name, value in (
                ("id", letter.id),
                ("reason", letter.reason),
                ("queue", letter.queue),
                ("key", letter.key),
                ("time", letter.time),
                ("jobs", " ".join(letter.jobs)),
                *((f"header {name}", value) for name, value in letter.headers.items()),
                ("body", letter.body.decode(errors="backslashreplace")),
            ):
                self.stdout.write(f"{name:16} {value}")
            self.stdout.write("")
