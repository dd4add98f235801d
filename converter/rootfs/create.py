"""New regular files: where one comes to lie, and what it gets when its content is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from threading import Lock

from converter.rootfs.attributes import set_attributes
from converter.rootfs.directories import DIRECTORY, Directories

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = b"/"  # begins `written` of what lies aside; paths in the tree have no leading slash

Attributes = Iterable[tuple[bytes, bytes]]


class NewFiles:
    """Where new files go below the directory `root`: to their paths, or aside when something is in the way there.

    Aside is the directory `aside` below `root`: in the tree, because what lies there will be renamed. `written` says
    where a file lies, in both cases.
    """

    def __init__(self, root: int, aside: str) -> None:
        self._root = root
        self._directories = Directories(root)
        self._aside_name = aside
        self._aside_fd = -1
        self._lock = Lock()

    def create(self, path: bytes, number: int, mode: int) -> tuple[int, bytes]:
        """A new file's descriptor, and its `written`; `number` is its name aside. Raises OSError."""
        directory, _, name = path.rpartition(b"/")
        try:
            with self._lock:
                return os.open(name, _NEW_FILE, mode, dir_fd=self._directories.get(directory)), path
        except (FileExistsError, FileNotFoundError, NotADirectoryError):  # its layer has something else there
            written = aside(number)
            fd, name = self.place(written)
            return os.open(name, _NEW_FILE, mode, dir_fd=fd), written

    def place(self, written: bytes) -> tuple[int, bytes]:
        """A descriptor, and the path below it, of `written`."""
        return (self._aside(), written[1:]) if is_aside(written) else (self._root, written)

    def remove_aside(self) -> None:
        """Remove the directory for what has been put aside, when nothing is there any more."""
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1
            os.rmdir(self._aside_name, dir_fd=self._root)

    def forget(self) -> None:
        """Forget the directories that are known: they may be no more."""
        self._directories.close()

    def close(self) -> None:
        """Close what is open."""
        self.forget()
        if self._aside_fd >= 0:
            os.close(self._aside_fd)
            self._aside_fd = -1

    def _aside(self) -> int:
        with self._lock:
            if self._aside_fd < 0:
                with suppress(FileExistsError):  # made by another process
                    os.mkdir(self._aside_name, 0o700, dir_fd=self._root)
                self._aside_fd = os.open(self._aside_name, DIRECTORY, dir_fd=self._root)
            return self._aside_fd


def aside(number: int) -> bytes:
    """A value of `written` that is aside."""
    return _ASIDE + b"%d" % number


def is_aside(written: bytes) -> bool:
    """Does the file lie aside, not at the path of one of its names?"""
    return written.startswith(_ASIDE)


PRIVATE = 0o600  # the mode a file is made with where there may be a umask


def first_mode(mode: int, xattrs: Attributes) -> int:
    """The mode a file is made with where there is no umask: as far as setting owner and attributes keeps it."""
    return PRIVATE if xattrs else mode & 0o777


def finish(
    fd: int, first: int, mode: int, owner: tuple[int, int] | None, mtime: int, xattrs: Attributes
) -> list[bytes]:
    """What a file gets after its content, which would change it; the names of the attributes that were refused.

    `first` is the mode that it was made with.
    """
    if owner is not None:
        os.fchown(fd, *owner)
    refused = set_attributes(fd, xattrs) if xattrs else []
    if mode != first:
        os.fchmod(fd, mode)
    os.utime(fd, ns=(mtime, mtime))
    return refused
