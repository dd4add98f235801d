"""A tree that stands on the disk, looked at as a Plan is: what machine.facts has to know about it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConversionError
from converter.linux import open_in_root

# What a path that leads nowhere gives.
_NOTHING = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EXDEV}
)
_KINDS = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


@dataclass(frozen=True)
class There:
    """What is at a path, links followed: its real path without a leading slash, and its kind as in Entry."""

    path: bytes
    kind: str


class StandingTree:
    """The tree below the open directory `root_fd`. No link leads out of it. Needs Linux 5.6 (openat2)."""

    def __init__(self, root_fd: int) -> None:
        self._root = root_fd
        self._prefix = _path_of(root_fd) + b"/"

    def lookup(self, path: str) -> There | None:
        """What a program in the machine would find at `path`."""
        with self._opened(path, os.O_PATH) as fd:
            if fd is None:
                return None
            kind = _KINDS.get(stat.S_IFMT(os.fstat(fd).st_mode), "socket")
            return There((_path_of(fd) + b"/").removeprefix(self._prefix)[:-1], kind)

    def children(self, path: str) -> list[bytes]:
        """The names in the directory `path`; empty when it is none."""
        with self._opened(path, os.O_RDONLY | os.O_DIRECTORY) as fd:
            return [] if fd is None else sorted(os.fsencode(entry.name) for entry in os.scandir(fd))

    def read(self, path: str, limit: int) -> bytes | None:
        """The content of the regular file `path`, None when there is none such.

        Raises ConversionError when it has more than `limit` bytes.
        """
        there = self.lookup(path)
        if there is None or there.kind != "file":
            return None
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:
            if fd is None:
                return None
            size = os.fstat(fd).st_size
            if size > limit:
                raise ConversionError(f"the image's /{path} has {size} bytes, which is not sensible")
            with open(fd, "rb", closefd=False) as file:
                return file.read(limit)

    @contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int | None]:
        name = path.encode("utf-8", "surrogateescape").strip(b"/") or b"."
        try:
            fd = open_in_root(self._root, name, flags)
        except OSError as error:
            if error.errno not in _NOTHING:
                raise
            yield None
            return
        try:
            yield fd
        finally:
            os.close(fd)


def _path_of(fd: int) -> bytes:
    return os.fsencode(Path(f"/proc/self/fd/{fd}").readlink()).rstrip(b"/")
