"""`docker2nspawn cache ls` and `cache prune`, from the options to what is printed."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from converter.batch.wording import amount, counted, moment, shown
from converter.cache.prune import LIMIT, Entry, Pruned, entries, is_in_use, is_used, prune
from converter.errors import ConversionError
from converter.places import Places

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60))  # seconds
_NEVER = "never"
_BUSY = "a build is using it, so nothing was taken out; try again when it is over"


@dataclass(frozen=True)
class Wanted:
    """What `cache prune` is asked for.

    `limit`: bytes that may stay in each cache; None: as after a batch, or with `unused_for` (seconds) nothing that was
    not used for so long.
    """

    root: Path
    limit: int | None = None
    unused_for: float | None = None
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True)
class _Place:
    """One of the caches. `builds`: those use all of it as long as they go on."""

    name: str
    path: Path
    builds: bool


def show_caches(root: Path, *, as_json: bool) -> None:
    """Print what is in the caches below `root`. Raises ConversionError when they cannot be read."""
    found: dict[_Place, list[tuple[Entry, bool]]] = {}
    for place in _places(root):
        with _errors_of(place):
            busy = place.builds and is_used(place.path)
            found[place] = [(entry, busy or is_in_use(entry)) for entry in entries(place.path)]
    if as_json:
        _print_json(
            {
                place.name: {
                    "path": str(place.path),
                    "size": _size(entry for entry, _ in inside),
                    "entries": [{**_json(entry), "in_use": in_use} for entry, in_use in inside],
                }
                for place, inside in found.items()
            }
        )
        return
    console = Console(highlight=False, soft_wrap=True)
    _print_entries(console, [(place, entry, used) for place in found for entry, used in found[place]])
    if console.is_terminal:
        for place, inside in found.items():
            used = sum(in_use for _, in_use in inside)
            told = f"{place.name}: {_total([entry for entry, _ in inside])} in {place.path}"
            console.print(Text(f"{told}, {used:,} in use" if used else told, style="bold"))


def prune_caches(wanted: Wanted) -> None:
    """Take out of the caches what is not wanted any more, and print what that was.

    Raises ConversionError when they cannot be read.
    """
    limit = wanted.limit
    if limit is None:
        limit = LIMIT if wanted.unused_for is None else 0
    before = math.inf if wanted.unused_for is None else time.time() - wanted.unused_for
    done: dict[_Place, Pruned | None] = {}
    for place in _places(wanted.root):
        with _errors_of(place):
            done[place] = prune(place.path, limit, before=before, builds=place.builds, dry_run=wanted.dry_run)
            if done[place] is None:
                sys.stderr.write(f"docker2nspawn: the cache of builds, {place.path}: {_BUSY}\n")
    if wanted.as_json:
        caches = {place.name: _pruned(place, pruned) for place, pruned in done.items()}
        _print_json({"dry_run": wanted.dry_run, "freed": _freed(done.values()), **caches})
        return
    console = Console(highlight=False, soft_wrap=True)
    _print_entries(
        console, [(place, entry, False) for place in done for entry in (done[place] or Pruned()).taken]
    )
    for place, pruned in done.items():
        if pruned is not None:
            console.print(Text(f"{place.name}: {_told(pruned, dry_run=wanted.dry_run)}"))
    said = "would be freed" if wanted.dry_run else "freed"
    freed = _freed(done.values())
    console.print(Text(f"total: {f'up to {amount(freed)}' if freed else 'nothing'} {said}", style="bold"))


def _places(root: Path) -> tuple[_Place, ...]:
    places = Places(root)
    return _Place("builds", places.cache, builds=True), _Place("shared", places.trees, builds=False)


@contextmanager
def _errors_of(place: _Place) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise ConversionError(f"only root can read the cache {place.path}; run this with sudo") from None
    except OSError as error:
        raise ConversionError(f"cannot read the cache {place.path}: {error.strerror}") from None


def _print_entries(console: Console, rows: Sequence[tuple[_Place, Entry, bool]]) -> None:
    """A table on a terminal; in a pipe a line each, with tabs between its fields."""
    if not console.is_terminal:
        for place, entry, in_use in rows:
            fields = (
                place.name,
                entry.key,
                amount(entry.size),
                moment(entry.used) if entry.used else _NEVER,
                _use(in_use),
            )
            # Not by rich, which makes spaces of tabs.
            sys.stdout.write("\t".join((*fields, shown(entry.what))) + "\n")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("cache", "key"):
        table.add_column(heading, no_wrap=True)
    for heading in ("size", "last used", ""):
        table.add_column(heading, no_wrap=True, justify="right")
    table.add_column("what")  # the one to be shortened
    now = time.time()
    for place, entry, in_use in rows:
        fields = (place.name, entry.key[:12], amount(entry.size), _age(now, entry.used), _use(in_use))
        table.add_row(*fields, Text(shown(entry.what), no_wrap=True, overflow="ellipsis"))
    if rows:
        console.print(table, soft_wrap=False)


def _use(in_use: bool) -> str:
    return "in use" if in_use else ""


def _age(now: float, then: float) -> str:
    """As "3 hours ago"."""
    if not then:
        return _NEVER
    for noun, length in _UNITS:
        if now - then >= length:
            return f"{counted(int((now - then) // length), noun)} ago"
    return "now"


def _told(pruned: Pruned, *, dry_run: bool) -> str:
    verb = "would be " if dry_run else ""
    parts = [f"{verb}taken out: {_total(pruned.taken)}", f"left: {_total(pruned.left)}"]
    if pruned.in_use:
        parts.append(f"kept because in use: {pruned.in_use:,}")
    if pruned.dead:
        parts.append(f"left by killed processes, removed: {amount(pruned.dead)}")
    return "; ".join(parts)


def _total(inside: Sequence[Entry]) -> str:
    """As "12 entries, up to 3.4 GB"."""
    number = f"{len(inside):,} {'entry' if len(inside) == 1 else 'entries'}"
    return f"{number}, up to {amount(_size(inside))}" if inside else number


def _size(inside: Iterable[Entry]) -> int:
    return sum(entry.size for entry in inside)


def _freed(done: Iterable[Pruned | None]) -> int:
    return sum(pruned.freed for pruned in done if pruned is not None)


def _pruned(place: _Place, pruned: Pruned | None) -> dict[str, Any]:
    if pruned is None:
        return {"path": str(place.path), "busy": True}
    return {
        "path": str(place.path),
        "busy": False,
        "freed": pruned.freed,
        "taken": [_json(entry) for entry in pruned.taken],
        "left": {"entries": len(pruned.left), "size": _size(pruned.left), "in_use": pruned.in_use},
    }


def _json(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "path": str(entry.path)}


def _print_json(what: dict[str, Any]) -> None:
    json.dump(what, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")
