"""Entries of a list to jobs: each with its reference, its options and a name that no other has."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from converter.batch.entry import Entries, Entry, UsageError
from converter.batch.model import Job, Outcome
from converter.batch.options import with_settings
from converter.dockerfile.choices import BuildChoices
from converter.errors import ConversionError
from converter.image.reference import Reference, parse_reference
from converter.naming import marked, own_name
from converter.options import Options
from converter.places import Places

_LONGEST_SOURCE = 8192  # characters; a path has at most 4096 bytes, and each ':' is looked at


@dataclass(frozen=True)
class Jobs:
    """What a list comes to. `failed` are those of which it is clear already that they cannot be done.

    The numbers of both together are those from 0 on, in the list's order.
    """

    jobs: tuple[Job, ...]
    failed: tuple[Outcome, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Wanted:
    """An entry looked at. `reference`: or what is wrong with its source."""

    entry: Entry
    reference: Reference | ConversionError
    options: Options

    @property
    def identity(self) -> tuple[str, Options]:
        """Equal for two entries that ask for the same."""
        known = self.reference.full() if isinstance(self.reference, Reference) else self.entry.source
        return known, self.options


def jobs_of(entries: Entries, base: Options) -> Jobs:
    """The jobs that `entries` ask for, with the options of `base` where they say nothing; `base` has no name.

    Raises UsageError, with its place, for a value without a meaning and for a name that two machines would have. A
    source that means nothing is only that machine's failure.
    """
    wanted, messages = _without_repetitions(_looked_at(entry, base) for entry in entries.entries)
    taken = _explicit_names(wanted)
    jobs = []
    failed = []
    for number, one in enumerate(wanted):
        source, name = one.entry.source, one.options.name
        if isinstance(one.reference, ConversionError):
            failed.append(Outcome(number, name or "", source, "failed", reason=str(one.reference)))
            continue
        if name is None:
            name = _automatic_name(one.entry, one.reference, one.options.root, taken)
        options = replace(one.options, name=name)
        jobs.append(Job(number, one.entry.where, source, one.reference, options))
    return Jobs(tuple(jobs), tuple(failed), (*entries.messages, *messages))


def _looked_at(entry: Entry, base: Options) -> _Wanted:
    shared = with_settings(base, entry.defaults)
    reference = _reference(entry)
    is_image = isinstance(reference, Reference) and reference.transport != "dockerfile"
    if is_image:
        shared = replace(shared, build=BuildChoices())  # what is said of all is said of those that it fits
    options = with_settings(shared, entry.settings)
    if is_image and options.build != BuildChoices():
        text = f"{entry.source} is no Dockerfile, and only for one there is something to build"
        return _Wanted(entry, ConversionError(text), options)
    return _Wanted(entry, reference, options)


def _reference(entry: Entry) -> Reference | ConversionError:
    if len(entry.source) > _LONGEST_SOURCE:
        return ConversionError(
            f"a source with {len(entry.source)} characters; {_LONGEST_SOURCE} are the most"
        )
    try:
        return parse_reference(entry.source)
    except ConversionError as error:
        return error


def _without_repetitions(found: Iterable[_Wanted]) -> tuple[list[_Wanted], list[str]]:
    """Each machine once, unless it has a name; and what is to be told about those left out."""
    kept = []
    messages = []
    first: dict[tuple[str, Options], str] = {}
    for one in found:
        where = one.entry.where
        if one.options.name is None:
            if one.identity in first:
                messages.append(f"{where} is the same as {first[one.identity]}")
                continue
            first[one.identity] = where
        kept.append(one)
    return kept, messages


def _explicit_names(wanted: Iterable[_Wanted]) -> dict[tuple[Path, str], str]:
    """Root and name -> the place that says so."""
    taken: dict[tuple[Path, str], str] = {}
    for one in wanted:
        if one.options.name is None:
            continue
        place = one.entry.settings["name"].place
        key = one.options.root, one.options.name
        if key in taken:
            what = f"the name {one.options.name!r} is that of another machine, at {taken[key]}"
            raise UsageError(place, what, "each needs one of its own")
        taken[key] = str(place)
    return taken


def _automatic_name(
    entry: Entry, reference: Reference, root: Path, taken: dict[tuple[Path, str], str]
) -> str:
    """The first name of the reference's own that is free in this list; from then on it is taken."""
    name = own_name(reference, Places(root))
    if (root, name) in taken:
        name = marked(name, reference)
    if (root, name) in taken:
        before = taken[root, name]
        raise UsageError(
            None, f"{entry.where}: {entry.source} would have the name of {before}", "give it a name"
        )
    taken[root, name] = entry.where
    return name
