"""Sources of COPY and ADD, found in a tree: wildcards, links, patterns, and what is wrong when they are not there.

The rules are BuildKit's: frontend/dockerfile/dockerfile2llb dispatchCopy, solver/llbsolver/file docopy and
github.com/tonistiigi/fsutil/copy.
"""

from __future__ import annotations

import difflib
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from converter.dockerfile.context import Seen, View
from converter.dockerfile.ignore import Matched, Matcher, Pattern, matcher
from converter.dockerfile.model import Copy
from converter.dockerfile.pointing import error_at_word
from converter.dockerfile.selection import Entry, Item, entry
from converter.dockerfile.tree import clean
from converter.dockerfile.unpacking import is_archive
from converter.dockerfile.wildcard import BadPattern, compile_pattern, has_wildcards

_NAMES_LOOKED_AT = 10_000  # for a hint


def select_local(step: Copy, view: View, source: str) -> Iterator[Item]:
    """The Items of one source, in BuildKit's order; none when a wildcard matches nothing, as in BuildKit.

    Raises DockerfileError when it is not there, or a pattern is malformed; OSError.
    """
    included = None
    try:
        excluded = matcher(step.exclude)
        if step.parents:
            pivot, found, pattern = source.partition("/./")
            source, pattern = (pivot, pattern) if found else ("/", source)
            included = matcher([clean(pattern)])
            if not has_wildcards(f"{source}/{pattern}"):
                _required(step, view, clean(f"{source}/{pattern}"), source)
    except BadPattern as error:
        raise error_at_word(step.instruction, source, str(error), "write [ as [[]") from None
    for path in _found(step, view, clean(source)):
        yield _item(step, view, path, included, excluded)


def _required(step: Copy, view: View, path: str, source: str) -> None:
    if not view.exists(view.resolve(path)):
        raise _missing(step, view, path, source)


def _found(step: Copy, view: View, source: str) -> Iterator[str]:
    """The paths that a source without or with wildcards names, links not yet followed."""
    parts = source.split("/")
    first = next((number for number, part in enumerate(parts) if has_wildcards(part)), len(parts))
    base = "/".join(parts[:first])
    if first == len(parts):
        yield base
        return
    pattern = "/".join(parts[first:])
    try:
        compiled = compile_pattern(pattern)
    except BadPattern as error:
        raise error_at_word(step.instruction, source, str(error), "write [ as [[]") from None
    directory = view.resolve(base)
    if not view.exists(directory):
        raise _missing(step, view, base, source)
    if not stat.S_ISDIR(view.tree.status(directory).st_mode):
        return
    taken = "/"
    # A class may match a "/", so how deep a match can lie is only known without one.
    depth = None if "[" in pattern else pattern.count("/") + 1
    for seen in view.walk(directory, depth):
        if seen.path.startswith(taken) or not compiled.fullmatch(seen.path):
            continue
        path = posixpath.join(directory, seen.path)
        if not seen.ignored or view.exists(path):
            taken = f"{seen.path}/"
            yield path


def _item(step: Copy, view: View, path: str, included: Matcher | None, excluded: Matcher | None) -> Item:
    top = view.resolve(path)
    if not view.exists(top):
        raise _missing(step, view, path, path)
    status = view.tree.status(top)
    entries = tuple(entries_below(view, top, included, excluded))
    archive = False
    if stat.S_ISREG(status.st_mode) and (step.add if step.unpack is None else step.unpack):
        fd = view.tree.open(top)
        try:
            archive = is_archive(fd)
        finally:
            os.close(fd)
    name = posixpath.basename(path)
    return Item(
        name, view.source.root, top, entries, spread=True, archive=archive, privileged=view.source.owned
    )


def entries_below(
    view: View, top: str, included: Matcher | None, excluded: Matcher | None
) -> Iterator[Entry]:
    """`top` and all below it that is taken, parents first. Patterns concern what is below. Raises OSError."""
    status = view.tree.status(top)
    link = view.tree.link(top) if stat.S_ISLNK(status.st_mode) else ""
    yield entry("", status, link=link, owned=view.source.owned)
    if stat.S_ISDIR(status.st_mode):
        yield from _Filter(view, top, included, excluded).entries()


@dataclass
class _Open:
    """A directory on the way to what is being looked at. `there`: it is known to be there, though ignored perhaps."""

    prefix: str
    seen: Seen
    included: Matched | None
    excluded: Matched | None
    taken: bool
    there: bool
    given: bool = False


class _Filter:
    """What is below a directory, --parents' patterns and --exclude applied."""

    def __init__(self, view: View, top: str, included: Matcher | None, excluded: Matcher | None) -> None:
        self._view = view
        self._top = top
        self._included = included
        self._excluded = excluded
        self._above: list[_Open] = []

    def entries(self) -> Iterator[Entry]:
        """In the order they are put: parents first."""
        for seen in self._view.walk(self._top):
            while self._above and not seen.path.startswith(self._above[-1].prefix):
                self._above.pop()
            last = self._above[-1] if self._above else None
            taken, included, excluded = True, None, None
            if self._included is not None:
                taken, included = self._included.match(seen.path, last.included if last else None)
            if self._excluded is not None:
                out, excluded = self._excluded.match(seen.path, last.excluded if last else None)
                taken = taken and not out
            if not seen.ignored:
                yield from self._are_there()
            if taken and not seen.ignored:
                yield from self._implied()
                yield self._entry(seen)
            if stat.S_ISDIR(seen.status.st_mode):
                given = taken and not seen.ignored
                self._above.append(
                    _Open(f"{seen.path}/", seen, included, excluded, taken, not seen.ignored, given)
                )

    def _are_there(self) -> Iterator[Entry]:
        """Something in these directories is there, so they are, ignored or not."""
        for number, directory in enumerate(self._above):
            if directory.there:
                continue
            directory.there = True
            if directory.taken:
                yield from self._implied(number)
                directory.given = True
                yield self._entry(directory.seen)

    def _implied(self, before: int | None = None) -> Iterator[Entry]:
        """Directories that are not taken themselves, but something in them is."""
        for directory in self._above[:before]:
            if not directory.given:
                directory.given = True
                yield self._entry(directory.seen, implied=True)

    def _entry(self, seen: Seen, *, implied: bool = False) -> Entry:
        link = ""
        if stat.S_ISLNK(seen.status.st_mode):
            link = self._view.tree.link(posixpath.join(self._top, seen.path))
        return entry(seen.path, seen.status, link=link, owned=self._view.source.owned, implied=implied)


def _missing(step: Copy, view: View, path: str, source: str) -> Exception:
    """The error that a source is not there, and why that may be."""
    name, root = view.source.name, view.source.root
    text, hint = f"{source!r} is not in {name}", f"it would be {root}/{path}"
    directory, _, wanted = path.rpartition("/")
    real = view.resolve(path)
    ignore = view.source.ignore
    pattern = _hidden_by(view, path) or _hidden_by(view, real)
    if pattern is not None and ignore is not None:
        text = f"{path!r} is kept out of {name} by {ignore.file}:{pattern.line}"
        hint = f"its pattern is {str(pattern)!r}; add the line '!{real}' to have it"
    elif any(clean(written) == path and ".." in written.split("/") for written in step.sources):
        hint = f"'..' does not lead out of {name}; move the file into it"
    elif real != path:
        hint = f"a link leads to {real!r}, and no link leads out of {name}"
    else:
        with suppress(OSError):
            names = view.tree.names(view.resolve(directory))[:_NAMES_LOOKED_AT]
            if near := difflib.get_close_matches(wanted, names, 1, 0.7):
                hint = f"is {posixpath.join(directory, near[0])!r} meant?"
    words = (word for word in step.sources if clean(word) in {path, clean(source)})
    return error_at_word(step.instruction, next(words, source), text, hint)


def _hidden_by(view: View, path: str) -> Pattern | None:
    """The pattern that keeps a file out that is there otherwise."""
    with suppress(OSError):
        return view.ignored_by(path) if view.tree.find(path) is not None else None
    return None
