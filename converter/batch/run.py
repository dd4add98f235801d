"""Runs a batch: who waits for what, what is tried again, and what becomes of each job.

One thread decides here; the work is done by a Crew. Everything that is under way is a Task, and at any moment no more
tasks are submitted than the crew does at a time, so that a signal has little to call back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from converter.batch import earlier, work
from converter.batch.choosing import choose
from converter.batch.crew import Crew
from converter.batch.model import Event, Job, Outcome
from converter.errors import ConversionError

_PAUSE = 5.0  # seconds before the second attempt; doubled each time
_LONGEST_PAUSE = 120.0
_POLL = 0.2  # seconds between looks at whether to stop
_DIED = "the process that converted it died, perhaps for want of memory (see dmesg)"


@dataclass(frozen=True)
class Rules:
    """How a batch is run. `retries` are further attempts after a fault of the network."""

    resume: bool = False
    dry_run: bool = False
    fail_fast: bool = False
    retries: int = 4


@dataclass
class _Task:
    """Something to submit, when all that it `needs` is finished and its time has come.

    `job` is None for what jobs share. `alone`: nothing runs beside it, because it was there when a process died, or
    found no room.
    """

    name: str
    job: Job | None
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    needs: frozenset[str] = frozenset()
    attempts: int = 0
    not_before: float = 0.0
    alone: bool = False
    number: int = field(default=-1)


def run(
    jobs: Sequence[Job],
    crew: Crew,
    rules: Rules,
    listen: Callable[[Event], None],
    stopped: Callable[[], bool],
) -> tuple[Outcome, ...]:
    """Do the jobs; every one has an outcome, in their order.

    `listen` is told of what begins to wait and what ends. Once `stopped` says so nothing is begun any more, and what is
    under way is interrupted.
    """
    running = _Running(crew, rules, listen, stopped)
    looks = {job.number: work.Look(job.number) for job in jobs}
    if rules.resume or (len(jobs) > 1 and not rules.dry_run):
        running.do([_Task(job.name, None, work.look, (job, rules.resume)) for job in jobs])
        looks |= {look.number: look for look in running.results if isinstance(look, work.Look)}
    for look in looks.values():
        if look.there is not None:
            running.take(look.there)
    left = [job for job in jobs if looks[job.number].there is None]
    if rules.dry_run:
        running.do([_Task(job.name, job, work.plan, (job, crew.tell), number=job.number) for job in left])
    else:
        roots = {job.options.root for job in left}
        together = [[job for job in left if job.options.root == root] for root in roots]
        tasks = [task for some in together for task in _tasks(some, looks, crew, rules)]
        running.do(sorted(tasks, key=lambda task: task.number))
    outcomes = running.outcomes
    for job in left:
        if job.number not in outcomes:
            why = "a signal came before" if stopped() else "an earlier one failed, and --fail-fast was given"
            reason = f"not begun: {why}"
            outcomes[job.number] = Outcome(job.number, job.name, job.source, "left", reason=reason)
    return tuple(outcomes[job.number] for job in jobs)


def _tasks(jobs: Sequence[Job], looks: Mapping[int, work.Look], crew: Crew, rules: Rules) -> list[_Task]:
    """What is to be done for jobs of one root: only below one can they share anything."""
    by_number = {job.number: job for job in jobs}
    choice = choose([looks[job.number] for job in jobs])
    root = jobs[0].options.root

    def names(needs: Iterable[str]) -> frozenset[str]:
        return frozenset(f"{root} {name}" for name in needs)

    tasks = []
    for common in choice.made:
        (name,) = names([common.name])
        shared: tuple[Any, ...] = (by_number[common.number], common.shared, common.what, crew.tell)
        tasks.append(_Task(name, None, work.share, shared, names(common.after)))
    for job in jobs:
        unseen = (
            rules.resume and not looks[job.number].seen
        )  # it could not be told whether its machine is there
        needs = names(choice.needs.get(job.number, ()))
        arguments = (job, choice.shared, crew.tell, unseen)
        tasks.append(_Task(job.name, job, work.convert, arguments, needs, number=job.number))
    return tasks


class _Running:
    """Tasks on their way through a crew. `outcomes` are jobs', by number; `results` what other tasks returned."""

    def __init__(
        self, crew: Crew, rules: Rules, listen: Callable[[Event], None], stopped: Callable[[], bool]
    ) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.results: list[Any] = []
        self._crew = crew
        self._rules = rules
        self._listen = listen
        self._stopped = stopped
        self._failed = False
        self._finished: set[str] = set()
        self._waiting: list[_Task] = []
        self._running: dict[Future[Any], _Task] = {}

    def do(self, tasks: Sequence[_Task]) -> None:
        """Do all tasks, or as many as are begun before it has to stop."""
        self._waiting = list(tasks)
        while self._running or (self._waiting and not self._stops()):
            if not self._stops():
                self._submit()
            elif self._stopped():
                self._crew.interrupt()  # again and again: one may just have begun
            done, _ = wait(self._running, timeout=_POLL, return_when=FIRST_COMPLETED)
            if not self._running:
                time.sleep(_POLL)  # until it is time for another attempt
            broken = [self._running.pop(future) for future in done if not self._finish(future)]
            if broken:
                self._renew(broken)
        self._waiting.clear()

    def _stops(self) -> bool:
        return self._stopped() or (self._rules.fail_fast and self._failed)

    def _submit(self) -> None:
        """Submit what is ready, in the list's order, as far as somebody is free."""
        now = time.monotonic()
        left = []
        alone = any(task.alone for task in self._running.values())
        free = 0 if alone else self._crew.jobs - len(self._running)
        for at, task in enumerate(self._waiting):
            if free <= 0:
                left += self._waiting[at:]
                break
            ready = task.needs <= self._finished and task.not_before <= now
            if not ready or (task.alone and self._running):
                left.append(task)
                continue
            call = self._crew.submitted(task.function, *task.arguments)
            try:
                self._running[self._crew.executor.submit(call)] = task
            except BrokenExecutor:  # somebody has just died
                if not self._running:
                    self._crew.renew()
                left += self._waiting[at:]
                break
            task.attempts += 1
            free = 0 if task.alone else free - 1
        self._waiting = left

    def _finish(self, future: Future[Any]) -> bool:
        """Take what came of a task; False when whoever did it died."""
        if future.cancelled():  # called back before it had begun
            task = self._running.pop(future)
            if task.job is None:
                self._finished.add(task.name)
            return True
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            return False
        task = self._running[future]
        result = future.result() if error is None else error
        if task.job is None:
            self._finished.add(task.name)
            self.results.append(result)
            del self._running[future]
            return True
        outcome = result if isinstance(result, Outcome) else self._outcome_of_error(task.job, error)
        del self._running[future]
        self._end(task, replace(outcome, attempts=task.attempts))
        return True

    def take(self, outcome: Outcome) -> None:
        """The last outcome of a job."""
        self._failed |= outcome.state == "failed"
        self.outcomes[outcome.number] = outcome
        self._listen(Event("ended", outcome.number, outcome.name, outcome=outcome))

    def _end(self, task: _Task, outcome: Outcome) -> None:
        """The outcome of one attempt."""
        assert task.job is not None
        if outcome.no_room and not task.alone and self._crew.jobs > 1 and not self._stops():
            task.alone = True  # what was being made beside it may have taken the room
            self.outcomes[task.number] = outcome
            self._waiting.append(task)
            return
        retry = outcome.passing and task.attempts <= self._rules.retries
        if outcome.state == "failed" and retry and not self._stops():
            pause = min(_PAUSE * 2 ** (task.attempts - 1), _LONGEST_PAUSE) * random.uniform(0.8, 1.2)
            task.not_before = time.monotonic() + pause
            self.outcomes[task.number] = outcome  # if it comes to no other attempt
            self._waiting.append(task)
            self._listen(Event("waiting", task.number, task.name, outcome.reason, seconds=pause))
            return
        self.take(outcome)

    def _renew(self, broken: list[_Task]) -> None:
        """Somebody died, and all that was under way with it. Whose fault it was only shows when each is alone."""
        broken += self._running.values()
        self._running.clear()
        self._crew.renew()
        for task in broken:
            if task.job is None:
                if self._stops() or task.alone:
                    self._finished.add(task.name)  # nobody can rely on it, and nobody does
                    continue
            else:
                outcome = replace(self._outcome_of_error(task.job, None), attempts=task.attempts)
                if outcome.state == "done" or self._stops() or task.alone:
                    self.take(outcome)
                    continue
                self.outcomes[task.number] = outcome  # if it comes to no other attempt
            task.alone = True
            self._waiting.append(task)

    def _outcome_of_error(self, job: Job, error: BaseException | None) -> Outcome:
        """What an interrupted or unusual task comes to; without an error, its process died."""
        if (made := earlier.made_by_this_batch(job)) is not None:
            return made
        if isinstance(error, ConversionError):  # the crew's own
            reason, remedy = work.split(str(error))
            return Outcome(job.number, job.name, job.source, "failed", reason=reason, remedy=remedy)
        if self._stopped():
            reason = "interrupted; nothing was installed"
            return Outcome(job.number, job.name, job.source, "interrupted", reason=reason)
        if error is None:
            return Outcome(job.number, job.name, job.source, "failed", reason=_DIED)
        return Outcome(job.number, job.name, job.source, "failed", reason=f"{type(error).__name__}: {error}")
