"""What a batch is made of: jobs go in, outcomes come out, and events tell what happens in between.

All of it can be pickled: jobs are done by other processes, and on other hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from converter.image.reference import Reference
from converter.note import Note
from converter.options import Options

State = Literal["done", "planned", "complete", "failed", "interrupted", "left"]
"""How a job ended: the machine was made now; with --dry-run it would be; it was there already (--resume); it could not
be made; a signal came while it was being made; it was never begun (--fail-fast, a signal)."""

GOOD: frozenset[State] = frozenset({"done", "planned", "complete"})


@dataclass(frozen=True)
class Job:
    """One machine to make. `number` is its place in the list, from 0; `where` tells people that place ("list:3").

    `source` is as it was written; `options.name` is set.
    """

    number: int
    where: str
    source: str
    reference: Reference
    options: Options

    @property
    def name(self) -> str:
        """The machine's name."""
        return self.options.name or ""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    `reason` says in one line why it failed, `remedy` what to do about it. `passing`: the fault may pass by itself
    (a network's). `no_room`: the disk was full, perhaps of what was being made beside. `seconds` and `size` (bytes of
    layers read) are of the last attempt; `worker` tells who did it.
    """

    number: int
    name: str
    source: str
    state: State
    digest: str | None = None
    tree_path: str = ""
    notes: tuple[Note, ...] = ()
    reason: str = ""
    remedy: str = ""
    passing: bool = False
    no_room: bool = False
    attempts: int = 1
    seconds: float = 0.0
    size: int = 0
    worker: str = ""

    def count(self, kind: str) -> int:
        """How many facts came over like this: "exact", "adapted" or "dropped"."""
        return sum(note.kind == kind for note in self.notes)


@dataclass(frozen=True)
class Event:
    """Something happened to job `number` (-1: to work that several jobs share, called `name`).

    begun: somebody works on it. step: it is at `label`, of which `done` of `total` (None: unknown) are done, in `unit`
    ("bytes", "files", "seconds"). waiting: it will be tried again in `seconds`, because of `label`. ended: `outcome`
    tells how.
    """

    kind: Literal["begun", "step", "waiting", "ended"]
    number: int
    name: str
    label: str = ""
    done: int = 0
    total: int | None = None
    unit: str = "bytes"
    seconds: float = 0.0
    worker: str = ""
    outcome: Outcome | None = None


@dataclass(frozen=True)
class Summary:
    """A whole batch: every job has its outcome, in the list's order.

    `started` and `ended` are in seconds since the epoch, `jobs` how many were done at a time.
    """

    outcomes: tuple[Outcome, ...]
    version: str
    host: str
    root: str
    started: float
    ended: float
    jobs: int
    interrupted: bool = False
    messages: tuple[str, ...] = field(default_factory=tuple)  # about the list: what was left out, and why

    def ended_in(self, *states: State) -> tuple[Outcome, ...]:
        """The outcomes of these states."""
        return tuple(outcome for outcome in self.outcomes if outcome.state in states)

    @property
    def good(self) -> bool:
        """Has everything been done?"""
        return all(outcome.state in GOOD for outcome in self.outcomes)
