"""`manage.py deadletters`: lists, shows, replays and discards the messages in the dead queue."""

import asyncio
from typing import Any

from django.core.management.base import CommandError, CommandParser

from progrock import conf
from progrock.broker.operate import letters
from progrock.broker.operate.letters import Letter
from progrock.management import base

#: How many messages are listed or shown at most, unless --most says otherwise.
MOST = 100
ID = "a message's id, as `list` prints it, or its beginning"


class Command(base.Command):
    """Works on the messages in the dead queue, which the code calls letters.

    A letter is named by the id that `list` shows, or by the beginning of that id.
    """

    help = "Lists the messages in the dead queue with their reasons; replays or discards them."

    def add_arguments(self, parser: CommandParser) -> None:
        """One subcommand for each action; without one the letters are listed."""
        parser.set_defaults(do="list", most=MOST)
        actions = parser.add_subparsers(dest="do", metavar="ACTION")
        listing = actions.add_parser(
            "list", help="print a line for each message (the default); nothing is removed"
        )
        listing.add_argument(
            "--most", type=int, default=MOST, help=f"print so many lines at most (default: {MOST})"
        )
        show = actions.add_parser("show", help="print all of some messages: reason, headers, body")
        show.add_argument("ids", nargs="+", metavar="ID", help=ID)
        for do, what in (
            ("replay", "send the tasks to where they belong now; messages that make no sense stay"),
            ("discard", "delete messages"),
        ):
            action = actions.add_parser(do, help=what)
            action.add_argument("ids", nargs="*", metavar="ID", help=ID)
            action.add_argument("--all", action="store_true", help="all messages in the dead queue")

    def run(self, **options: Any) -> None:
        """Run the subcommand."""
        url, do = conf.amqp_url(), options["do"] or "list"
        ids, every = tuple(options.get("ids") or ()), options.get("all", False)
        if do in ("replay", "discard") and bool(ids) == every:
            found = "both ids and --all" if ids else "neither ids nor --all"
            raise CommandError(f"{do}: found {found}; wanted the ids of messages, or --all")

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
                f"the queue {conf.names().dead} has no message with such an id;"
                " `manage.py deadletters` lists them"
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
