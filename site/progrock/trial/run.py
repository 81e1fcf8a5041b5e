"""Runs one job on a backend as a worker would, and says at each step what was decided.

It needs neither RabbitMQ nor the database. What is decided comes from `progrock.lifecycle`.
"""

import asyncio
import logging
import signal
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from time import time
from typing import Any

import orjson

from progrock import lifecycle
from progrock.backends import Backend, BackendError, JobView, Options, Status, build, schemas
from progrock.backends.errors import shortened
from progrock.backends.http import HttpBackend
from progrock.backends.http.manners import PAUSES
from progrock.backends.outcomes import by_job, failure, outcome_of
from progrock.lifecycle import Decision, Moment, Step
from progrock.models import State
from progrock.trial.job import Way, new_job, take_step
from progrock.trial.masks import Mask
from progrock.trial.watch import Say, Watch
from progrock.trial.words import decided

#: So many failed calls in a row end the trial.
MOST_FAILURES = 3
#: Seconds between a failed call and the next one, at least.
AFTER_A_FAILURE = 1.0

_DECIDE: Mapping[Step, Callable[..., Decision]] = {
    Step.START: lifecycle.after_start,
    Step.POLL: lifecycle.after_poll,
    Step.CANCEL: lifecycle.after_cancel,
}


def try_backend(
    options: Options, params: dict[str, Any], *, environ: Mapping[str, str], say: Say
) -> bool:
    """Run one job with these params. Returns whether the backend said how it ended.

    `say` gets each line of the report. Ctrl-C cancels the job, and a second one leaves at once.
    Raises ConfigError where the backend cannot be built, and KeyboardInterrupt.
    """

    async def run() -> bool:
        trial = Trial(options, params, environ=environ, say=say)
        task, loop = asyncio.ensure_future(trial.run()), asyncio.get_running_loop()

        def interrupt() -> None:
            if trial.stop.is_set():
                task.cancel()
            trial.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # not everywhere
                loop.add_signal_handler(number, interrupt)
        return await task

    try:
        with _quiet():
            return asyncio.run(run())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log of backends, because the report says the same."""
    logger = logging.getLogger("progrock.backends")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class Trial:
    """One job on one backend. `stop` is set to have it cancelled.

    Raises ConfigError where the backend cannot be built.
    """

    def __init__(
        self, options: Options, params: dict[str, Any], *, environ: Mapping[str, str], say: Say
    ) -> None:
        self.stop = asyncio.Event()
        self._options, self._params, self._print = options, params, say
        self._id = str(uuid.uuid4())
        self._mask = Mask(options, environ)
        self._backend: Backend = build(options, environ)
        self._watch: Watch | None = None
        if isinstance(self._backend, HttpBackend):
            self._watch = Watch(self._backend.spec, self._mask, self._say)
            self._watch.attach(self._backend)

    async def run(self) -> bool:
        """Start the job and look until it ends. Returns whether the backend said how it ended."""
        name = self._options.name
        params = self._mask.text(orjson.dumps(self._params).decode())
        self._say(f"{name}: job {self._id} with the params {shortened(params, 500)}")
        if complaint := schemas.complaint(self._options.params_schema, self._params):
            return self._wrong(f"{complaint}, so nothing was sent")
        try:
            return await self._run()
        finally:
            await self._backend.aclose()

    async def _run(self) -> bool:
        job = new_job(self._id, self._options.name, time() + self._options.deadline)
        start = Way("start", job)
        while job.state in (State.QUEUED, State.STARTING) and start.failures < MOST_FAILURES:
            await self._wait(start.delay)
            job.cancel_requested = self.stop.is_set()
            await self._step(start)
        if start.told:
            return self._works([start])
        if job.state != State.RUNNING:
            return self._over(start)
        ways = [Way(name, replace(job), delay=start.delay) for name in self._names()]
        while going := [way for way in ways if way.job.active]:
            await self._wait(max(way.delay for way in going))
            if self.stop.is_set():
                return await self._cancelled(going[-1])
            for way in going:
                await self._step(way)
                if way.failures >= MOST_FAILURES or not (way.job.active or way.told):
                    return await self._given_up(way, ways)
        return self._works(ways)

    async def _cancelled(self, way: Way) -> bool:
        """Cancel the job and look until it has ended."""
        self._say("")
        self._say("Interrupted: cancelling the job. Another Ctrl-C leaves at once.")
        way.job.cancel_requested, way.failures, way.delay = True, 0, 0.0
        while way.job.active and way.failures < MOST_FAILURES:
            await self._wait(way.delay)
            await self._step(way)
        return self._works([way]) if way.told else self._over(way)

    async def _given_up(self, way: Way, ways: list[Way]) -> bool:
        """End the trial. The job is cancelled, because nobody looks at it any more."""
        if way.failures >= MOST_FAILURES:
            self._say("")
            self._say(f"{MOST_FAILURES} looks in a row could not say where the job stands.")
        complaint = way.complaint or way.job.error
        may_run = way.job.active or way.job.state == State.EXPIRED
        if may_run and not any(each.told for each in ways):
            await self._cancel_at_last(way)
        return self._wrong(complaint)

    async def _cancel_at_last(self, way: Way) -> None:
        if not self._options.cancels:
            self._say("The job may run on at the backend, because the table has no `cancel`.")
            return
        way.job.attempts = 0  # else the backend would look at the job before it cancels
        outcome = await self._call("cancel, because nobody looks at the job any more", way)
        if isinstance(outcome, BackendError):
            self._say(f"  = not cancelled, the job may run on: {outcome.sentence}")
        else:
            state = "cancelled" if outcome is None or outcome.cancelling else outcome.state
            self._say(f"  = {state}")

    # The conclusion

    def _works(self, ways: list[Way]) -> bool:
        job, looks = ways[-1].job, max(way.looks for way in ways)
        self._say("")
        if self._watch and (never := self._watch.never_found()):
            self._say(f"These keys never found anything: {', '.join(never)}.")
        count = f", after {looks} look{'s' * (looks != 1)}" if looks else ""
        by = f" by {' and by '.join(way.name for way in ways)}" if len(ways) > 1 else ""
        self._say(f"{self._options.name} works: the job has ended as {job.state}{by}{count}.")
        return True

    def _over(self, way: Way) -> bool:
        if way.taken and not way.job.handle:
            self._say("The backend took the start, so a job may run there that nobody looks at.")
        return self._wrong(way.complaint or way.job.error or "the job was not started")

    def _wrong(self, complaint: str) -> bool:
        self._say("")
        self._say(f"{self._options.name} FAILED: {complaint}")
        return False

    # Steps

    def _names(self) -> list[str]:
        """The ways to look at a job. A table that has both is tried by both."""
        if not isinstance(self._backend, HttpBackend):
            return ["poll"]
        return [name for name in ("poll_many", "poll") if getattr(self._backend.spec, name)]

    async def _step(self, way: Way) -> None:
        """The next step of the job by one way, as a worker would take it."""
        job, options = way.job, self._options
        step = lifecycle.next_step(job, now=time(), options=options)
        if isinstance(step, Decision):
            if step.state == State.CANCELLED and job.handle:
                self._say("  = cancelled here; the table has no `cancel`, so the job runs on there")
                way.told = True
            take_step(job, step)
            return
        way.looks += step is Step.POLL
        name, decide, more = step.value, _DECIDE[step], {}
        if step is Step.START:
            more["repeated"] = job.state == State.STARTING
        elif step is Step.POLL:
            name = f"look {way.looks}" + (f" by {way.name}" if len(self._names()) > 1 else "")
        outcome = await self._call(name, way, step)
        at = Moment(time(), 0.0, options)
        try:
            decision = decide(job, outcome, at, **more)
        except Exception as error:  # a custom class may answer with whatever it likes
            self._print_traceback(error)
            outcome = failure(error)
            way.complaint = outcome.sentence
            decision = decide(job, outcome, at, **more)
        self._say(f"  = {decided(decision, outcome, self._mask.value)}")
        self._account(way, outcome, decision)
        take_step(job, decision)

    def _account(self, way: Way, outcome: object, decision: Decision) -> None:
        """What the outcome means for the trial."""
        failed = _has_failed(outcome)
        way.failures = way.failures + 1 if failed else 0
        way.delay = max(decision.delay or 0.0, AFTER_A_FAILURE if failed else 0.0)
        way.told = decision.delay is None and (
            outcome is None or (isinstance(outcome, Status) and outcome.state == decision.state)
        )
        way.taken = (
            isinstance(outcome, BackendError) and outcome.sent and (outcome.status or 0) < 400
        )

    async def _call(self, name: str, way: Way, step: Step = Step.CANCEL) -> Any:
        """What a call gave, or the BackendError that says why it gave nothing."""
        self._say("")
        self._say(name)
        if self._watch:
            self._watch.call(way.job.handle)
        outcome = await self._ask(step, way)
        way.complaint = outcome.sentence if isinstance(outcome, BackendError) else ""
        if self._watch:
            way.complaint = self._watch.complaint(outcome)
        return outcome

    async def _ask(self, step: Step, way: Way) -> Any:
        view = JobView(self._id, way.job.handle, self._params, again=way.job.attempts > 0)
        options, failed = self._options, self._print_traceback
        if step is Step.START:
            return await outcome_of(self._backend.start, view, options, failed)
        if step is Step.CANCEL:
            return await outcome_of(self._backend.cancel, view, options, failed)
        with _only(self._backend, way.name):
            found = await outcome_of(self._backend.poll, [view], options, failed)
        answers, silence = by_job(found)
        return answers.get(view.id, silence)

    def _print_traceback(self, error: Exception) -> None:
        for line in "".join(traceback.format_exception(error)).splitlines():
            self._say(f"    {line}")

    async def _wait(self, seconds: float) -> None:
        """Wait so long, or until the job is to be cancelled."""
        if self.stop.is_set():
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()

    def _say(self, line: str) -> None:
        """Print one line, without secrets and without control characters."""
        masked = self._mask.text(line)
        self._print(
            "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in masked)
        )


def _has_failed(outcome: object) -> bool:
    """Whether a call failed. It has not if the backend asked for a pause."""
    if not isinstance(outcome, BackendError) or not outcome.asked:
        return False
    return outcome.status not in PAUSES or outcome.retry_after is None


@contextmanager
def _only(backend: Backend, name: str) -> Iterator[None]:
    """Look by this one of `poll` and `poll_many`, where the table has both."""
    if not isinstance(backend, HttpBackend):
        yield
        return
    both = backend.spec
    backend.look_by(
        replace(both, poll=None) if name == "poll_many" else replace(both, poll_many=None)
    )
    try:
        yield
    finally:
        backend.look_by(both)
