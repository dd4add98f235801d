"""What lies in a cache, and taking out of it what was not used for longest."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.cache.removal import (
    PARTIAL,
    is_still,
    kept_from_machinectl,
    put_aside,
    remove,
    remove_dead,
    removing,
    size_of,
    try_lock,
)
from converter.rootfs.directories import DIRECTORY

LIMIT = 20 << 30  # bytes that may stay in each of the caches unless something else is said
_ABOUT = 1000  # characters of what an entry is that are worth keeping in memory


@dataclass(frozen=True)
class Entry:
    """A layer of a cache, or a directory of RUN --mount=type=cache.

    `what` tells people what it is. `size` is in bytes on the disk: a layer's as it was made, though it may share some
    with others; times are in seconds since the epoch, `used` 0 when nobody can use it any more.
    """

    key: str
    path: Path
    what: str
    size: int
    created: float
    used: float
    parent: str | None = None  # the key of the layer that it was made upon


@dataclass(frozen=True)
class Pruned:
    """What became of a cache: entries that were `taken` out and that are `left`, the last used first.

    `in_use`: how many of those left would have been taken out if nobody were using them. `dead`: bytes of what killed
    processes had left, which are gone, too.
    """

    taken: tuple[Entry, ...] = ()
    left: tuple[Entry, ...] = ()
    in_use: int = 0
    dead: int = 0

    @property
    def freed(self) -> int:
        """Bytes, at most: what others share with it stays on the disk."""
        return sum(entry.size for entry in self.taken) + self.dead


def entries(directory: Path) -> list[Entry]:
    """What is in the cache `directory`, the last used first; nothing when there is none. Raises OSError."""
    found = [_layer(path) for path in _below(directory / "layers")]
    found += [_mount(path) for path in _below(directory / "mounts")]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: (-entry.used, entry.key))


def is_in_use(entry: Entry) -> bool:
    """Is somebody using it at this moment? Of a layer that builds use, only its cache's lock tells (`is_used`)."""
    with contextlib.suppress(FileNotFoundError), _opened(entry.path) as fd:
        return not try_lock(fd)
    return False


def is_used(directory: Path) -> bool:
    """Is a build using the cache, or a conversion what images share? Raises OSError."""
    with _alone(directory) as alone:
        return not alone


def prune(
    directory: Path, limit: int, *, before: float = math.inf, builds: bool = False, dry_run: bool = False
) -> Pruned | None:
    """Take out what was not used for longest until no more than `limit` bytes are left (0: nothing at all).

    Only what was last used `before` that time goes, and what somebody is using stays. In a cache of `builds` that is
    all as long as a build goes on: then this is None. There a layer is used with those that were made upon it, and goes
    after them. Raises OSError.
    """
    layers = directory / "layers"
    if not layers.is_dir():
        return Pruned()
    with contextlib.ExitStack() as stack:
        dead = 0
        if not dry_run:
            if not builds:
                stack.enter_context(kept_from_machinectl(directory))
            with contextlib.suppress(OSError):  # on a full disk there may be no room for a lock
                dead = remove_dead(directory)
            dead += stack.enter_context(removing(layers))
        with _alone(directory) if builds else contextlib.nullcontext(True) as alone:
            if not alone:
                return None
            there = entries(directory)
            order = _order_of_builds(there) if builds else [(entry, entry.used) for entry in reversed(there)]
            taken, in_use = _choose(order, limit, before, None if dry_run else layers)
            if taken and not dry_run:
                _forget_names(directory)
        for path in taken.values():  # builds may go on meanwhile
            if path is not None:
                remove(path)
    gone = tuple(entry for entry in there if entry in taken)
    return Pruned(gone, tuple(entry for entry in there if entry not in taken), in_use, dead)


def trim(directory: Path, limit: int) -> int:
    """Prune what images share; how many bytes are free again, at most. Never raises OSError."""
    with contextlib.suppress(OSError):
        pruned = prune(directory, limit)
        return pruned.freed if pruned is not None else 0
    return 0


def trim_builds(directory: Path, limit: int, *, before: float) -> None:
    """Prune a cache of builds of what was last used `before` that time, unless a build is using it."""
    with contextlib.suppress(OSError):
        prune(directory, limit, before=before, builds=True)


def _order_of_builds(there: list[Entry]) -> list[tuple[Entry, float]]:
    """Entries in the order in which they may go, each with its last use or that of one made upon it."""
    by_key = {entry.key: entry for entry in there}
    used = {entry.key: entry.used for entry in there}
    depth: dict[str, int] = {}
    for entry in there:
        below: dict[str, None] = {}
        at: Entry | None = entry
        while at is not None and at.key not in below:
            below[at.key] = None
            used[at.key] = max(used[at.key], entry.used)
            at = by_key.get(at.parent) if at.parent is not None else None
        depth[entry.key] = len(below)
    order = sorted(there, key=lambda entry: (used[entry.key], -depth[entry.key], entry.key))
    return [(entry, used[entry.key]) for entry in order]


def _choose(
    order: list[tuple[Entry, float]], limit: int, before: float, layers: Path | None
) -> tuple[dict[Entry, Path | None], int]:
    """What goes, with where it now is if it was put aside in `layers`; and how many had to stay."""
    left = sum(entry.size for entry, _ in order)
    taken: dict[Entry, Path | None] = {}
    in_use = 0
    for entry, used in order:
        if (limit and left <= limit) or used >= before:
            break
        path = _take_out(entry, layers) if layers is not None else None
        if is_in_use(entry) if layers is None else path is None:
            in_use += 1
            continue
        taken[entry] = path
        left -= entry.size
    return taken, in_use


def _take_out(entry: Entry, layers: Path) -> Path | None:
    """Put an entry aside; None when somebody is using it, or it cannot be."""
    with contextlib.suppress(OSError), _opened(entry.path) as fd:
        if try_lock(fd) and is_still(fd, entry.path):
            return put_aside(entry.path, layers)
    return None


def _forget_names(directory: Path) -> None:
    """Remove the names of layers that are no more. Nobody else may be naming any."""
    for link in (directory / "names").glob("*"):
        if link.is_symlink() and not (directory / "layers" / link.readlink()).exists():
            link.unlink(missing_ok=True)


def _layer(path: Path) -> Entry | None:
    """None when it has just been taken out."""
    with contextlib.suppress(FileNotFoundError):
        status = path.stat()
        try:
            meta = json.loads((path / "meta.json").read_bytes())
            used = (path / "meta.json").stat().st_mtime
            what, size, created = str(meta["instruction"])[:_ABOUT], int(meta["size"]), float(meta["created"])
        except (OSError, ValueError, LookupError, TypeError):
            # Nobody uses it, whatever it was.
            return Entry(path.name, path, "damaged", size_of(path), status.st_mtime, 0.0)
        return Entry(path.name, path, what, size, created, used, meta.get("parent"))
    return None


def _mount(path: Path) -> Entry | None:
    with contextlib.suppress(FileNotFoundError):
        used = created = path.stat().st_mtime
        what = "RUN --mount=type=cache"
        with contextlib.suppress(OSError):
            what = (path / "about").read_text(errors="replace")[:_ABOUT]
            created = (path / "about").stat().st_mtime
        return Entry(path.name, path, what, size_of(path), created, used)
    return None


def _below(directory: Path) -> list[Path]:
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(PARTIAL)]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    """Hold the cache's lock alone, if nobody else has it."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # there is no cache
        yield True
        return
    try:
        yield try_lock(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
