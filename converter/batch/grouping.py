"""What many machines have in common is said once: equal notes, and failures of one reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from converter.batch.model import Outcome, Summary
from converter.note import Kind, Note

K = TypeVar("K")


@dataclass(frozen=True)
class SharedNote:
    """A note, and the machines that have it, in the list's order."""

    note: Note
    outcomes: tuple[Outcome, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(outcome.name for outcome in self.outcomes)


@dataclass(frozen=True)
class Failure:
    """A reason, its remedy (may be empty), and the machines that failed for it, in the list's order."""

    reason: str
    remedy: str
    outcomes: tuple[Outcome, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(outcome.name for outcome in self.outcomes)


def notes_of(summary: Summary, *kinds: Kind) -> tuple[SharedNote, ...]:
    """Every distinct note of these kinds; what most machines have comes first."""
    found = _grouped(
        (note, outcome)
        for outcome in summary.outcomes
        for note in dict.fromkeys(outcome.notes)
        if note.kind in kinds
    )
    return tuple(SharedNote(note, outcomes) for note, outcomes in found)


def failures_of(summary: Summary) -> tuple[Failure, ...]:
    """Every distinct reason for which a machine failed; the most frequent comes first."""
    found = _grouped(((o.reason, o.remedy), o) for o in summary.ended_in("failed"))
    return tuple(Failure(reason, remedy, outcomes) for (reason, remedy), outcomes in found)


def _grouped(pairs: Iterable[tuple[K, Outcome]]) -> Iterator[tuple[K, tuple[Outcome, ...]]]:
    groups: dict[K, list[Outcome]] = {}
    for key, outcome in pairs:
        groups.setdefault(key, []).append(outcome)
    for key in sorted(groups, key=lambda key: -len(groups[key])):
        yield key, tuple(groups[key])
