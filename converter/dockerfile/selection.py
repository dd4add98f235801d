"""What one COPY or ADD brings, found and named: the data between looking at a source and writing into a tree."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["file", "dir", "symlink", "fifo", "char", "block", "empty"]

_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFSOCK: "empty",  # BuildKit makes an empty regular file of a socket
}


class Entry(NamedTuple):
    """One file, by its path below the top of its Item; "" is the top itself. `mode` is the permission bits only.

    `mtime` and `atime` in ns; `size` in bytes. `inode` is that of a file with further names. `implied`: a directory
    that is there only for something in it; one that is at the destination already keeps its owner.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    atime: int = 0
    mtime: int = 0
    device: int = 0
    link: str = ""
    inode: tuple[int, int] | None = None
    implied: bool = False


def entry(path: str, status: os.stat_result, *, link: str = "", owned: bool, implied: bool = False) -> Entry:
    """The Entry of a file; not `owned`: it is root's."""
    kind = _KINDS[stat.S_IFMT(status.st_mode)]
    return Entry(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid if owned else 0,
        status.st_gid if owned else 0,
        status.st_size if kind == "file" else 0,
        status.st_atime_ns,
        status.st_mtime_ns,
        status.st_rdev if kind in {"char", "block"} else 0,
        link,
        (status.st_dev, status.st_ino) if kind != "dir" and status.st_nlink > 1 else None,
        implied,
    )


@dataclass(frozen=True)
class Item:
    """What one source, or one match of a wildcard, brings: `top`, a path below the directory `root`, and all below it.

    `name` is what it is called at a destination that is a directory. `spread`: of a directory what is in it goes to
    the destination, not the directory. `archive`: it is a file that is unpacked there instead. `identity`: what tells
    it from others as well as reading all of it would; "" when nothing does. `privileged`: capabilities of its files
    are kept; those of a build context are not.
    """

    name: str
    root: Path
    top: str
    entries: tuple[Entry, ...]
    spread: bool = False
    archive: bool = False
    identity: str = ""
    privileged: bool = False


@dataclass(frozen=True)
class Selection:
    """What a COPY or ADD brings, in the order it is put. `notes`: what a person may want to know of it."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()
