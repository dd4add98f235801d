"""What lies in a cache, and taking out of it what was not used for longest."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.cache.store import PARTIAL, is_still, remove
from converter.rootfs.directories import DIRECTORY


@dataclass(frozen=True)
class Entry:
    """A layer of the cache: `size` in bytes on the disk, as it was made; times in seconds since the epoch."""

    key: str
    path: Path
    what: str
    size: int
    created: float
    used: float


def entries(directory: Path) -> list[Entry]:
    """What is in the cache `directory`, the last used first; nothing when there is no such directory."""
    found = []
    for path in (directory / "layers").glob(f"[!{PARTIAL[0]}]*"):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            meta = json.loads((path / "meta.json").read_bytes())
            used = (path / "meta.json").stat().st_mtime
            created = float(meta["created"])
            found.append(Entry(path.name, path, str(meta["instruction"]), int(meta["size"]), created, used))
    return sorted(found, key=lambda entry: (-entry.used, entry.key))


def trim(directory: Path, limit: int) -> int:
    """Take out what was not used for longest until no more than `limit` bytes are left; how many were taken out.

    What somebody is using stays (`Cache.using`). Not for a cache of builds, which use their layers otherwise.
    """
    there = entries(directory)
    left = sum(entry.size for entry in there)
    freed = 0
    for entry in reversed(there):
        if left <= limit:
            break
        if _take_out(entry):
            left -= entry.size
            freed += entry.size
    return freed


def trim_builds(directory: Path, limit: int) -> int | None:
    """The same for a cache of builds; None, and nothing is taken out, while a build uses it."""
    with _alone(directory) as alone:
        if not alone:
            return None
        freed = trim(directory, limit)
        for link in (directory / "names").glob("*"):
            if (
                not link.exists()
                and link.is_symlink()
                and not (directory / "layers" / link.readlink()).exists()
            ):
                link.unlink(missing_ok=True)
        return freed


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[bool]:
    try:
        lock = (directory / "lock").open("ab")
    except FileNotFoundError:  # there is no cache
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _take_out(entry: Entry) -> bool:
    """Remove a layer; False when somebody is using it."""
    try:
        fd = os.open(entry.path, DIRECTORY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_still(fd, entry.path):
            return False
        gone = entry.path.with_name(f"{PARTIAL}{entry.key}.gone")
        remove(gone)
        entry.path.rename(gone)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    remove(gone)
    return True
