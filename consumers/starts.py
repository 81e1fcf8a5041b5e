"""Starts jobs in two steps, the intent and then the call, so that none is started twice or lost."""

import asyncio
from collections.abc import Sequence

from progrock import clock, lifecycle
from progrock.backends import Options
from progrock.consumers.calls import Calls, Decided
from progrock.consumers.commits import Commits
from progrock.dispatch import to_the_end
from progrock.ledger import Row
from progrock.lifecycle import Step
from progrock.models import State


class Starts:
    """Starts the jobs of one backend."""

    def __init__(self, options: Options, calls: Calls, commits: Commits) -> None:
        self._options, self._calls, self._commits = options, calls, commits
        self._one_group = asyncio.Lock()

    async def start(self, rows: Sequence[Row]) -> None:
        """Start jobs that are queued, or whose start was swept. Raises PublishFailed.

        They are started in groups of as many as the backend takes at once, so that no intent is
        open for longer than its call. A job whose start may have killed a worker is a group by
        itself, so that the others of its batch do not die with it again.
        """
        size = self._options.concurrency
        calm = [row for row in rows if not row.crashes]
        groups = [calm[i : i + size] for i in range(0, len(calm), size)]
        groups += [[row] for row in rows if row.crashes]
        showing: list[asyncio.Task[None]] = []
        for group in groups:
            async with self._one_group:
                decided = await self._start_group(group, showing)
            await self._commits.finish(decided)
        await asyncio.gather(*showing)

    async def _start_group(self, rows: Sequence[Row], showing: list[asyncio.Task[None]]) -> Decided:
        """Commit the intents, then call. `showing` gets the background task that shows the intents.

        No call waits for that task. A worker that dies between commit and call leaves an open
        intent, which only a sweep brings back.
        """
        decided: Decided = []
        intents: Decided = []
        now = clock.now()
        for row in rows:
            step = lifecycle.next_step(row, now=now, options=self._options)
            if step is Step.START:
                intents.append((row, lifecycle.intent(row, options=self._options)))
            elif not isinstance(step, Step):
                decided.append((row, step))
        if not intents:
            return decided
        repeated = {row.id for row, _ in intents if row.state == State.STARTING}
        opened = clock.elapsed()
        committed = await self._commits.commit(intents)
        follow_up = self._commits.follow_up(intents, committed)
        showing.append(self._commits.in_background(follow_up))
        started = [
            self._call(each.row, each.row.id in repeated, opened)
            for each in committed
            if each.row.active  # else the database could not hold its intent
        ]
        for outcome in await to_the_end(started):
            decided += outcome
        return decided

    async def _call(self, row: Row, repeated: bool, opened: float) -> Decided:
        if lifecycle.too_late_to_start(clock.elapsed() - opened, self._options):
            return [(row, lifecycle.put_back(row, repeated=repeated))]
        return await self._calls.start(row, repeated=repeated)
