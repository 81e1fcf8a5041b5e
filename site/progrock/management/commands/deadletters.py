"""`manage.py deadletters`: lists, shows, replays and discards the messages in the dead queue."""

import asyncio
from typing import Any

from django.core.management.base import CommandError, CommandParser

from progrock import conf
from progrock.broker.operate import letters
from progrock.broker.operate.letters import Letter
from progrock.management import base

MOST = 100


class Command(base.Command):
    """The operator's hand on the dead queue.

    A letter is named by the id that `list` shows, or by the beginning of that id.
    """

    help = "Lists the messages in the dead queue with their reasons; replays or discards them."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each action; without one the letters are listed."""
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

    def run(self, **options: Any) -> None:
        """Do the one action that was asked for."""
        url, do = conf.amqp_url(), options["do"] or "list"
        ids, every = tuple(options.get("ids") or ()), options.get("all", False)
        if do in ("replay", "discard") and bool(ids) == every:
            raise CommandError(f"{do} what? Wanted the ids of letters, or --all")

        def chosen(letter: Letter) -> bool:
            return every or letter.id.startswith(ids)

        if do == "list":
            self._list(
                *asyncio.run(letters.read(url, conf.names(), lambda _: True, options["most"]))
            )
        elif do == "show":
            self._show(asyncio.run(letters.read(url, conf.names(), chosen, MOST))[0])
        elif do == "replay":
            count, stay = asyncio.run(letters.replay(url, base.own_topology(), chosen))
            self.stdout.write("\n".join([*stay, f"replayed {count}"]))
        else:
            self.stdout.write(
                f"discarded {asyncio.run(letters.discard(url, conf.names(), chosen))}"
            )

    def _list(self, found: list[Letter], count: int) -> None:
        first = f", the first {len(found)}:" if len(found) < count else ""
        self.stdout.write(f"{count} in {conf.names().dead}{first}")
        for letter in found:
            when = f"{letter.time:%Y-%m-%d %H:%M:%S}" if letter.time else "-"
            more = " …" if len(letter.job_ids) > 3 else ""
            jobs = " ".join(job_id[:8] for job_id in letter.job_ids[:3]) + more or "-"
            cells = (letter.id, f"{when:19}", letter.queue, letter.key, jobs, letter.reason[:100])
            self.stdout.write("  ".join(cells))

    def _show(self, found: list[Letter]) -> None:
        if not found:
            raise CommandError(
                f"no such letter in {conf.names().dead}; `manage.py deadletters` lists them"
            )
        for letter in found:
            for name, value in (
                ("id", letter.id),
                ("reason", letter.reason),
                ("queue", letter.queue),
                ("key", letter.key),
                ("time", letter.time),
                ("jobs", " ".join(letter.job_ids)),
                *((f"header {name}", value) for name, value in letter.headers.items()),
                ("body", letter.body.decode(errors="backslashreplace")),
            ):
                self.stdout.write(f"{name:16} {value}")
            self.stdout.write("")
