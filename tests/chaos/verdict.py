"""Judges a run of chaos: was a job lost, forked, polled early, shown too late?

Pure: it compares the backend's journal, the ledger's history, the tasks that passed the gate, and
what the screens showed.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from tests.chaos.audit import Change, Entry
from tests.chaos.backend import Asked, Look
from tests.chaos.clients import Rewound, Wish
from tests.chaos.forks import DRAWN, Calm, Tasks, Turns, by_job, judge_tasks
from tests.chaos.wire import Passed

#: Two polls may be so many seconds closer than the interval, because clocks differ and are rounded.
TOLERANCE = 0.01
#: For so many seconds after a fault was healed its effects may still go on: redelivered tasks,
#: sweeps, and calls that time out. Repeated polls are allowed then.
AFTERMATH = 20.0
#: A job has two loops when so many polls in a row come in less than two thirds of the time that
#: they should take.
FORKED = 10
#: What comes on top of the lease until a lost task is swept: the grace, which doubles with each
#: sweep in vain, and the time between two sweeps.
GRACE, SWEEP = 10.0, 5.5
ENDED = ("succeeded", "failed", "cancelled", "expired")


class Pace(NamedTuple):
    """How often a backend is asked about a job, and for how long without a write (seconds)."""

    interval: float
    lease: float


@dataclass
class Verdict:
    """The rows of the table; each list has a sentence for every job, client or process at fault."""

    started: int = 0
    ended: int = 0
    states: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    forked: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    unhealed: list[str] = field(default_factory=list)
    untold: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    unserved: list[str] = field(default_factory=list)
    neighbours: list[str] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    faults: int = 0
    spared: str = ""
    checked: int = 0
    polls: int = 0
    calm_polls: int = 0
    repeated: int = 0
    unwritten: int = 0
    twins: dict[str, list[float]] = field(default_factory=dict)
    longest_stall: tuple[float, str] = (0.0, "")
    calm_stall: tuple[float, str] = (0.0, "")

    @property
    def passed(self) -> bool:
        """Whether the promise was kept, and the run could have shown the opposite."""
        return not (
            self.lost
            or self.wrong
            or self.twice
            or self.broken
            or self.forked
            or self.early
            or self.unhealed
            or self.untold
            or self.stale
            or self.unserved
            or self.neighbours
            or self.fallen
            or self.tracebacks
            or self.unproven
        )

    @property
    def unproven(self) -> list[str]:
        """What this run could not have shown, because it never looked."""
        looked = {
            "no screens were compared while all was calm": self.checked,
            "no poll came while all was calm": self.calm_polls,
            "each poll was followed by a write": self.unwritten,
        }
        unread = [f"the gate could not read a connection: {error}" for error in self.unread]
        return [sentence for sentence, count in looked.items() if not count] + unread

    def table(self) -> str:
        """The table for a terminal, with what each row means."""
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        longest, calm = self.longest_stall, self.calm_stall
        rows: list[tuple[str, object, str]] = [
            ("faults", self.faults, self.spared or "of all kinds for which there was time"),
            ("jobs started", self.started, "and shown on a screen"),
            ("jobs ended", self.ended, states),
            ("lost", self.lost, "asked for, and not ended"),
            ("ended wrongly", self.wrong, "not as the backend or a cancel said"),
            ("started twice", self.twice, "two tasks of one job, or two requests where one may be"),
            ("history broken", self.broken, "a turn or version jumped, or changed after the end"),
            ("loops forked", self.forked, "two live tasks of a turn, made by us, or polls overlap"),
            *(
                (f"… by {maker}", len(lives), f"the longest lived {max(lives):.1f} s")
                for maker, lives in sorted(self.twins.items())
            ),
            ("early polls", self.early, "sooner than the task or the interval allows"),
            ("healed late", self.unhealed, "overdue in calm for longer than a lost task may be"),
            ("untold", self.untold, "an end for which `job_finished` never came"),
            ("stale screens", self.stale, "a screen showed less than the ledger had, or went back"),
            ("unserved", self.unserved, "a storm's browsers that got no snapshot in time"),
            ("neighbour's jobs", self.neighbours, "lost by another installation on the vhost"),
            ("fallen processes", self.fallen, "ended though nobody had ended them"),
            ("tracebacks", self.tracebacks, "through our code, in any log"),
            ("screens compared", self.checked, "times, all of them, while all was calm"),
            ("unproven", self.unproven, "what this run could not have shown"),
            ("polls", self.polls, f"{self.calm_polls} in calm; {self.repeated} repeated at faults"),
            ("… without a write", self.unwritten, "found nothing new within the lease"),
            ("longest stall", f"{longest[0]:.1f} s", f"of an overdue step ({longest[1]})"),
            ("… in calm", f"{calm[0]:.2f} s", f"{AFTERMATH:g} s after all faults ({calm[1]})"),
        ]
        lines = []
        for name, value, meaning in rows:
            shown = len(value) if isinstance(value, list) else value
            lines.append(f"  {name:17} {shown!s:>8}   {meaning}")
            lines += [f"      {each}" for each in value[:8]] if isinstance(value, list) else []
        return "\n".join(lines)


def judge(
    wishes: Sequence[Wish],
    cancelled: set[str],
    entries: Sequence[Entry],
    history: Mapping[str, Sequence[Change]],
    asked: Mapping[str, Asked],
    paces: Mapping[str, Pace],
    once: set[str],
    calm: Calm,
    *,
    told: Collection[tuple[str, str]],
    passed: Sequence[Passed],
    rewound: Sequence[Rewound] = (),
) -> Verdict:
    """Judge all but the screens and the logs.

    `wishes`, `entries`, `history`: what visitors wanted, what became of it, and every change;
    `asked`: what the backend was asked; the latter two by the job's id. `cancelled`: the jobs
    that a visitor cancelled. `paces`: those of the backends by name. `once`: the backends where a
    start may not be repeated. `told`: the ids and states for which `job_finished` came. `passed`:
    the messages of tasks, oldest first.
    `rewound`: when the database lost its last commits. The history lies in the same database, so
    it went back with the rows and has no gap; only a start may then have been sent twice, and a
    turn taken twice.
    """
    verdict = Verdict()
    by_request = {entry.request: entry for entry in entries}
    verdict.started = sum(wish.job_id is not None for wish in wishes)
    for wish in wishes:
        entry = by_request.get(wish.request)
        if entry is None or entry.state not in ENDED:
            found = entry.state if entry else "not in the ledger"
            verdict.lost.append(f"{wish.job_id or 'never acknowledged'}: {found}")
            continue
        if wish.job_id not in (None, entry.id):
            verdict.lost.append(f"{wish.job_id}: its request belongs to {entry.id}")
        verdict.ended += 1
        verdict.states[entry.state] = verdict.states.get(entry.state, 0) + 1
        wanted = {"succeed": "succeeded", "fail": "failed"}[wish.outcome]
        by_cancel = entry.state == "cancelled" and entry.id in cancelled
        unknown = entry.state == "failed" and entry.error.startswith("outcome unknown")
        if entry.state != wanted and not by_cancel and not (unknown and wish.backend in once):
            verdict.wrong.append(f"{entry.id}: {entry.state} ({entry.error})")
    turns = by_job(passed)
    for entry in entries:
        seen, changes = asked.get(entry.id, Asked()), history.get(entry.id, [])
        again, lost = entry.backend in once and seen.posts > 1, _lost(changes, rewound)
        if (seen.tasks > 1 or again) and not (entry.backend in once and lost):
            verdict.twice.append(f"{_name(entry)}: {seen.tasks} tasks, {seen.posts} requests")
        if entry.state in ENDED and (entry.id, entry.state) not in told:
            verdict.untold.append(f"{_name(entry)}: {entry.state}")
        verdict.broken += [f"{entry.id}: {fault}" for fault in broken(changes)]
        pace, own = paces[entry.backend], turns.get(entry.id, {})
        tasks = judge_tasks(own, changes, *pace, calm, rewound)
        _count_tasks(verdict, entry, tasks)
        by_visitor = entry.id in cancelled
        _judge_polls(verdict, entry, seen.looks, pace.interval, by_visitor, calm, tasks)
        _judge_dues(verdict, entry, seen.looks, changes, own, calm, tasks)
        _judge_stalls(verdict, entry, changes, seen.looks, pace, calm)
    return verdict


def _lost(changes: Sequence[Change], rewound: Sequence[Rewound]) -> bool:
    """Whether the database may have lost a change of a job with this history."""
    return any(
        changes[0].at <= each.until and changes[-1].at >= each.since for each in rewound if changes
    )


def _name(entry: Entry) -> str:
    return f"{entry.id} on {entry.backend}"


def broken(changes: Sequence[Change]) -> list[str]:
    """What is wrong in a job's history: a jump of its turn or version, a change after its end."""
    found = []
    for before, after in pairwise(changes):
        if not 0 <= after.turn - before.turn <= 1:
            found.append(f"turn {before.turn} → {after.turn}")
        if not 0 <= after.version - before.version <= 1:
            found.append(f"version {before.version} → {after.version}")
        if before.state in ENDED:
            found.append(f"{before.state} → {after.state} after the end")
    return found


def forked(looks: Sequence[Look], interval: float) -> bool:
    """Whether some polls come so fast that a job must have two loops.

    Failed polls are left out, because they are tried again sooner.
    """
    times = [look.began for look in looks if look.fine]
    return any(
        last - first < FORKED * interval / 1.5
        for first, last in zip(times, times[FORKED:], strict=False)
    )


def _count_tasks(verdict: Verdict, entry: Entry, tasks: Tasks) -> None:
    """Take over what the tasks of a job told."""
    verdict.unwritten += tasks.unwritten
    verdict.forked += [f"{_name(entry)}: {fault}" for fault in tasks.ours]
    for twins in tasks.others:
        verdict.twins.setdefault(twins.maker, []).append(twins.life)


def _twice_as_often(tasks: Tasks, at: float, interval: float) -> bool:
    """Whether others had made a second task of the job that was looked at about this time."""
    return any(each.since - TOLERANCE <= at <= each.looked + 2 * interval for each in tasks.others)


def _judge_polls(
    verdict: Verdict,
    entry: Entry,
    looks: Sequence[Look],
    interval: float,
    cancelled: bool,
    calm: Calm,
    tasks: Tasks,
) -> None:
    """Compare each poll with the one before it.

    While a pair of tasks that we have not made lives, each of the two is polled for.
    """
    verdict.polls += len(looks)
    alone = [look for look in looks if not _twice_as_often(tasks, look.began, interval)]
    if forked(alone, interval):
        verdict.forked.append(f"{_name(entry)}: {FORKED} polls in less than 2/3 of their time")
    for before, after in pairwise(looks):
        gap = after.began - before.began
        quiet = calm(before.began - AFTERMATH, after.began) and not _twice_as_often(
            tasks, after.began, interval
        )
        if quiet and after.began < before.ended:
            verdict.forked.append(f"{_name(entry)}: polls overlap at {after.began:.2f}")
        verdict.calm_polls += quiet
        if gap < interval - TOLERANCE and before.fine and not cancelled:
            if quiet:
                verdict.early.append(f"{_name(entry)}: {gap:.3f} s apart at {after.began:.2f}")
            else:
                verdict.repeated += 1


def _judge_dues(
    verdict: Verdict,
    entry: Entry,
    looks: Sequence[Look],
    changes: Sequence[Change],
    turns: Turns,
    calm: Calm,
    tasks: Tasks,
) -> None:
    """Compare each poll with when the task of its turn that was published last was due."""
    moments = iter(looks)
    look = next(moments, None)
    for change, following in pairwise(changes):
        published = [each for each in turns.get(change.turn, ()) if each.before is None]
        while look is not None and look.began < following.at:
            # Who loaded the row just before `change.at` may still poll a moment later. That is
            # a repeated poll, and no early one.
            settled = look.began > change.at + 1.0
            task = max(
                (each for each in published if each.at < look.began),
                key=lambda each: each.at,
                default=None,
            )
            early = task.due - look.began if task else 0.0
            if (
                task
                and settled
                and early > TOLERANCE
                and calm(max(change.at, task.at) - 6.0, look.began)
                and not any(each.since <= look.began <= each.looked for each in tasks.others)
            ):
                verdict.early.append(f"{_name(entry)}: {early:.3f} s before it was due")
            look = next(moments, None)


def _judge_stalls(
    verdict: Verdict,
    entry: Entry,
    changes: Sequence[Change],
    looks: Sequence[Look],
    pace: Pace,
    calm: Calm,
) -> None:
    """Find the longest time that a step was overdue: a change of the row, or a poll.

    A lost task heals when the lease has ended, and the grace, and a sweep has come. What is overdue
    for longer, and so long in calm, was not healed as it is promised.
    """
    moments = [(change.at, _task_due(change, pace), change) for change in changes]
    states = iter(changes)
    change, coming = None, next(states, None)
    for look in looks:
        while coming is not None and coming.at <= look.began:
            change, coming = coming, next(states, None)
        if change is not None and coming is not None:
            moments.append((look.began, look.began + pace.interval, change))
    moments.sort(key=lambda moment: moment[:2])
    for (at, due, change), (following, *_) in pairwise(moments):
        late = following - max(due, at)
        where = f"{entry.id[:8]} on {entry.backend}, {change.state}"
        verdict.longest_stall = max(verdict.longest_stall, (late, where))
        if calm(at - AFTERMATH, following):
            verdict.calm_stall = max(verdict.calm_stall, (late, where))
        heals = DRAWN * pace.lease + GRACE * 2 ** min(change.sweeps, 6) + SWEEP + AFTERMATH
        if late > heals and calm(following - heals, following):
            verdict.unhealed.append(f"{where}: {late:.1f} s at {following:.2f}")


def _task_due(change: Change, pace: Pace) -> float:
    """When the task after a change is due, where all is well: the row tells the lease's end."""
    if change.state == "running" and not change.attempts and not change.cancelling:
        return min(change.due, change.at + pace.interval)
    return change.due
