"""Judges a run of chaos from what the backend wrote down, the ledger's history, and the screens. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.audit import Change, Entry
from tests.chaos.backend import Asked, Look
from tests.chaos.clients import Wish

#: Clocks and rounding: two polls may be so many seconds closer together than the interval.
TOLERANCE = 0.01
#: After a fault was healed, what it doubled may come twice for so long: redeliveries, sweeps, waits that time out.
AFTERMATH = 20.0
#: A loop is forked when so many polls in a row took less than two thirds of their time.
FORKED = 10
ENDED = ("succeeded", "failed", "cancelled", "expired")

Calm = Callable[[float, float], bool]


@dataclass
class Verdict:
    """The table's rows; each list names the jobs (or clients) that it is about."""

    started: int = 0
    ended: int = 0
    states: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    forked: list[str] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    fallen: list[str] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    faults: int = 0
    spared: str = ""
    checked: int = 0
    polls: int = 0
    calm_polls: int = 0
    repeated: int = 0
    longest_stall: tuple[float, str] = (0.0, "")
    calm_stall: tuple[float, str] = (0.0, "")

    @property
    def passed(self) -> bool:
        """Whether the promise was kept."""
        return not (
            self.lost
            or self.wrong
            or self.twice
            or self.broken
            or self.forked
            or self.early
            or self.stale
            or self.fallen
            or self.tracebacks
            or self.unproven
        )

    @property
    def unproven(self) -> list[str]:
        """What could not have failed, because it was never looked at."""
        looked = {
            "no screens were compared in calm": self.checked,
            "no poll fell into calm": self.calm_polls,
        }
        return [sentence for sentence, count in looked.items() if not count]

    def table(self) -> str:
        """For a terminal, with what each row means."""
        rows: list[tuple[str, object, str]] = [
            ("faults", self.faults, self.spared or "of every kind, as far as time allowed"),
            ("jobs started", self.started, "acknowledged on a screen"),
            ("jobs ended", self.ended, ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))),
            ("lost", self.lost, "acknowledged or asked for, and not at an end"),
            ("ended wrongly", self.wrong, "another end than the backend's, a cancel's, or an unknown start's"),
            ("started twice", self.twice, "two tasks of one job at the backend, or two requests where it takes no repeat"),
            ("history broken", self.broken, "a turn or version that jumped or fell, a change after the end"),
            ("loops forked", self.forked, f"{FORKED} polls in a row in < 2/3 of their time, at any moment; or overlapping in calm"),
            ("early polls", self.early, f"before the ledger's due, or closer than the interval, {AFTERMATH:g} s after a fault"),
            ("stale screens", self.stale, "older than the ledger was 10 s before, since the last recovery; or gone back"),
            ("fallen processes", self.fallen, "ended though nobody had ended them"),
            ("tracebacks", self.tracebacks, "of ours, in any log"),
            ("screens compared", self.checked, "times, all of them, 10 s of calm after the ledger was read"),
            ("unproven", self.unproven, "what this run could not have shown"),
            ("polls", self.polls, f"{self.calm_polls} of them in calm; {self.repeated} repeated near a fault, as is allowed"),
            ("longest stall", f"{self.longest_stall[0]:.1f} s", f"overdue step of one job, outages included ({self.longest_stall[1]})"),
            ("… in calm", f"{self.calm_stall[0]:.2f} s", f"the same, {AFTERMATH:g} s after a fault ({self.calm_stall[1]})"),
        ]  # fmt: skip
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
    intervals: Mapping[str, float],
    once: set[str],
    calm: Calm,
) -> Verdict:
    """`cancelled`: jobs that a visitor cancelled; `once`: backends that take no repeated start; `calm(since, until)`."""
    verdict = Verdict()
    by_request = {entry.request: entry for entry in entries}
    verdict.started = sum(wish.job is not None for wish in wishes)
    for wish in wishes:
        entry = by_request.get(wish.request)
        if entry is None or entry.state not in ENDED:
            verdict.lost.append(
                f"{wish.job or 'never acknowledged'}: {entry.state if entry else 'not in the ledger'}"
            )
            continue
        if wish.job not in (None, entry.job):
            verdict.lost.append(f"{wish.job}: its request belongs to {entry.job}")
        verdict.ended += 1
        verdict.states[entry.state] = verdict.states.get(entry.state, 0) + 1
        wanted = {"succeed": "succeeded", "fail": "failed"}[wish.outcome]
        excused = (entry.state == "cancelled" and entry.job in cancelled) or (
            wish.backend in once
            and entry.state == "failed"
            and entry.error.startswith("outcome unknown")
        )
        if entry.state != wanted and not excused:
            verdict.wrong.append(f"{entry.job}: {entry.state} ({entry.error})")
    for entry in entries:
        seen, changes = asked.get(entry.job, Asked()), history.get(entry.job, [])
        if seen.tasks > 1 or (entry.backend in once and seen.posts > 1):
            verdict.twice.append(
                f"{entry.job} on {entry.backend}: {seen.tasks} tasks, {seen.posts} requests"
            )
        verdict.broken += [f"{entry.job}: {fault}" for fault in broken(changes)]
        _judge_polls(
            verdict,
            entry,
            seen.looks,
            changes,
            intervals[entry.backend],
            entry.job in cancelled,
            calm,
        )
        _judge_stalls(verdict, entry, changes, calm)
    return verdict


def broken(changes: Sequence[Change]) -> list[str]:
    """What a job's history shows that must not be."""
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
    """Whether a run of polls comes so fast that two loops must be alive; failed polls are retried faster, and left out."""
    times = [look.began for look in looks if look.fine]
    return any(
        last - first < FORKED * interval / 1.5
        for first, last in zip(times, times[FORKED:], strict=False)
    )


def _judge_polls(
    verdict: Verdict,
    entry: Entry,
    looks: Sequence[Look],
    changes: Sequence[Change],
    interval: float,
    cancelled: bool,
    calm: Calm,
) -> None:
    verdict.polls += len(looks)
    if forked(looks, interval):
        verdict.forked.append(
            f"{entry.job} on {entry.backend}: a long run of polls at more than 1.5 times their rate"
        )
    for before, after in pairwise(looks):
        gap = after.began - before.began
        quiet = calm(before.began - AFTERMATH, after.began)
        if quiet and after.began < before.ended:
            verdict.forked.append(
                f"{entry.job} on {entry.backend}: polls overlap at {after.began:.2f}"
            )
        verdict.calm_polls += quiet
        if gap < interval - TOLERANCE and before.fine and not cancelled:
            if quiet:
                verdict.early.append(
                    f"{entry.job} on {entry.backend}: {gap:.3f} s apart at {after.began:.2f}"
                )
            else:
                verdict.repeated += 1
    moments = iter(looks)
    look = next(moments, None)
    for change, following in pairwise(changes):
        while look is not None and look.began < following.at:
            # Whoever loaded the row before `change.at` may still ask a moment later: that is a repeat, not an early poll.
            if change.at + 1.0 < look.began < change.due - TOLERANCE and calm(
                change.at - 6.0, look.began
            ):
                verdict.early.append(
                    f"{entry.job} on {entry.backend}: {change.due - look.began:.3f} s before its due"
                )
            look = next(moments, None)


def _judge_stalls(verdict: Verdict, entry: Entry, changes: Sequence[Change], calm: Calm) -> None:
    for change, following in pairwise(changes):
        late = following.at - max(change.due, change.at)
        where = f"{entry.job[:8]} on {entry.backend}, {change.state}"
        verdict.longest_stall = max(verdict.longest_stall, (late, where))
        if calm(change.at - AFTERMATH, following.at):
            verdict.calm_stall = max(verdict.calm_stall, (late, where))
